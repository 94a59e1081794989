"""Training on a dataset that is read while it is trained on: `--dataset.streaming=true`.

    episodes to train on -> part of this process -> runs decoded by threads -> shuffle buffer -> batches
    held-out episodes    -> streamed anew, the same frames each time -> validation loss

Frames are mixed by the buffer, so the order is another one than that of a downloaded dataset.
"""

import logging
import math
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from lerobot.core.errors import ConfigError
from lerobot.datasets.delta import resolve_delta_timestamps
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.training.config import TrainConfig
from lerobot.training.sampling.data import Batch, Position, weightless
from lerobot.training.sampling.split import split_episodes

logger = logging.getLogger(__name__)


class StreamedSource(NamedTuple):
    """The frames to train on, and those held out, each read as it comes."""

    dataset: StreamingLeRobotDataset
    held_out: StreamingLeRobotDataset | None


def open_stream(
    cfg: TrainConfig, meta: LeRobotDatasetMetadata, *, rank: int, num_ranks: int
) -> StreamedSource:
    """The dataset of a run, with the frames each item of its policy needs.

    Raises:
        DatasetError: the dataset does not have what was asked for.
        ConfigError: every episode would be held out, or processes outnumber frames.
    """
    assert cfg.policy is not None
    data = cfg.dataset
    options: dict[str, Any] = {
        "root": data.roots[0],
        "delta_timestamps": resolve_delta_timestamps(cfg.policy, meta, cfg.rename_map),
        "tolerance_s": cfg.tolerance_s,
        "revision": data.revision,
        "seed": cfg.seed or 0,
        "return_uint8": True,
        "depth_output_unit": data.depth_output_unit,
        "num_threads": max(1, cfg.num_workers),
    }
    name = data.names[0]
    whole: dict[str, Any] = {"rank": 0, "num_ranks": 1}
    chosen = StreamingLeRobotDataset(name, episodes=data.episodes, tasks=data.tasks, **whole, **options)
    train, held_out = split_episodes(chosen, share=data.eval_split, seed=data.eval_split_seed)
    dataset = StreamingLeRobotDataset(
        name,
        episodes=train,
        buffer_size=data.buffer_size,
        drop_n_last_frames=cfg.policy.drop_n_last_frames,
        rank=rank,
        num_ranks=num_ranks,
        **options,
    )
    if dataset.num_frames < num_ranks:
        raise ConfigError(
            f"{dataset.num_frames} frames are left to train on, for {num_ranks} processes. Choose more "
            "episodes, or hold out fewer."
        )
    if not held_out:
        return StreamedSource(dataset, None)
    # Some of the frames are a random choice of them; all of them need no mixing.
    options |= {"shuffle": cfg.max_eval_samples > 0, "buffer_size": cfg.max_eval_samples}
    return StreamedSource(dataset, StreamingLeRobotDataset(name, episodes=held_out, **whole, **options))


class StreamLoader:
    """Batches of this process for ever, beginning at `start`; the same interface as `BatchLoader`.

    Each process streams a part of every epoch. Parts differ by a frame at most, and where that makes one
    batch less, a filler that counts nothing in the loss keeps processes in step.

    Args:
        prefetch: batches kept ready.
    """

    def __init__(self, dataset: StreamingLeRobotDataset, *, batch_size: int, prefetch: int) -> None:
        self.dataset, self.batch_size, self.prefetch = dataset, batch_size, prefetch
        self.num_ranks = dataset.num_ranks
        self.start = Position(seed=dataset.seed, frames_per_epoch=dataset.num_frames)

    @property
    def frames_per_epoch(self) -> int:
        """Frames that one pass over the data visits, in all processes together."""
        return self.dataset.num_frames

    def reseed(self, seed: int) -> None:
        """Follow the order of another seed."""
        self.dataset.seed = seed

    def position(self, num_batches: int) -> Position:
        """Where the order stands after so many batches of this loader."""
        return self.start.after(num_batches, size=self.batch_size * self.num_ranks)

    def fitting(self, position: Position, num_processes: int | None) -> Position:
        """Where to go on when a run was saved at this position by so many processes."""
        if num_processes in (None, self.num_ranks) or position.offset == 0:
            return position
        logger.warning(
            "The run was saved by %d processes and goes on with %d, whose parts of the data are others: "
            "epoch %d is streamed from its beginning.",
            num_processes,
            self.num_ranks,
            position.epoch,
        )
        return position.at(offset=0)

    def item(self) -> Batch:
        """A batch of one item; the order of frames stays as it is."""
        self.dataset.set_epoch(self.start.epoch)
        return next(iter(self.dataset.batches(1)))

    def __iter__(self) -> Iterator[Batch]:
        """The batches; a thread stacks them ahead."""
        batches = self._batches()
        pool = ThreadPoolExecutor(1, thread_name_prefix="stacking")
        waiting: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(waiting) <= self.prefetch:
                    waiting.append(pool.submit(next, batches))
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            batches.close()

    def _batches(self) -> Generator[Batch, None, None]:
        epoch, offset, size = self.start.epoch, self.start.offset, self.batch_size * self.num_ranks
        while True:
            left = math.ceil((self.frames_per_epoch - offset) / size)
            # A part may end a frame before the others: at most one batch of it is missing.
            self.dataset.set_epoch(epoch, min(math.ceil(offset / self.num_ranks), len(self.dataset)))
            batch: Batch | None = None
            for batch in self.dataset.batches(self.batch_size):
                yield batch
                left -= 1
            if left > 0:
                yield weightless(self._one_more(batch))
            epoch, offset = epoch + 1, 0

    def _one_more(self, batch: Batch | None) -> Batch:
        """A batch of one frame: of the last batch, or of the part where it went on at its very end."""
        if batch is None:
            batch = self.item()
        return {name: values[:1] for name, values in batch.items()}
