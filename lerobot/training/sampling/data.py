"""Batches for training: sampled in a repeatable order and read ahead by threads (or processes).

    sampler -> index batches -> workers: dataset.batch(indices) -> in order -> transfer.py: to the device

Threads by default: decoding releases Python's lock, nothing is copied between address spaces, and memory does
not grow with their number. The order never depends on the workers, and how far it was followed is one
`Position` that any number of processes continues from.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch.multiprocessing
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import TrainingError
from lerobot.core.signals import become_worker

Batch = dict[str, Any]
Workers = Literal["threads", "processes"]


class BatchSource(Protocol):
    """What a loader reads from; `LeRobotDataset` is one."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """Collated items: tensors (B, ...), uint8 pictures (B, [T,] C, H, W), lists of str."""


class Sampler(Protocol):
    """An order of frames that can be entered anywhere; see `datasets/sampler.py`."""

    seed: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Enter epoch `epoch` at frame `start_index`."""

    def over(self, frames: Sequence[Tensor]) -> "Sampler":
        """The same rule for other frames, (N,) of each dataset."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far the order of frames was followed, whatever the number of processes and the batch size."""

    seed: int
    epoch: int = 0
    offset: int = 0  # frames of this epoch that all processes together have taken
    frames_per_epoch: int = 0  # by which a dataset that changed is noticed

    def at(self, *, offset: int) -> Self:
        """Another place in the same epoch."""
        return replace(self, offset=offset)

    def after(self, num_batches: int, *, size: int) -> Self:
        """The position so many batches later, each of `size` frames of all processes together."""
        epoch, offset, total = self.epoch, self.offset, self.frames_per_epoch
        left_in_epoch = math.ceil((total - offset) / size)
        if num_batches < left_in_epoch:
            return replace(self, offset=offset + num_batches * size)
        epochs, rest = divmod(num_batches - left_in_epoch, math.ceil(total / size))
        return replace(self, epoch=epoch + 1 + epochs, offset=rest * size)

    def state(self) -> dict[str, int]:
        """Plain numbers for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, int]) -> Self:
        """The reverse of `state`."""
        return cls(**state)


class Part(NamedTuple):
    """The frames of a batch that one process reads.

    The last batch of an epoch may have fewer frames than there are processes. One without a frame gets a
    filler that counts nothing in the loss, so that the others need not wait for it.
    """

    frames: list[int]
    is_filler: bool = False

    def finish(self, batch: Batch) -> Batch:
        """The batch that was read, marked when it is a filler."""
        return weightless(batch) if self.is_filler else batch


def weightless(batch: Batch) -> Batch:
    """The batch with items that count nothing."""
    return batch | {keys.LOSS_WEIGHT: torch.zeros(len(batch[keys.INDEX]))}  # (B,)


class BatchLoader:
    """Batches of this process for ever, beginning at `start`.

    Args:
        num_workers: reading threads or processes; 0 reads when the batch is asked for.
        workers: processes are for readers that hold Python's lock; each opens the dataset anew.
        prefetch: batches kept ready per worker.
        rank, num_ranks: each batch of `batch_size * num_ranks` frames is cut into parts, one per process.
    """

    def __init__(
        self,
        dataset: BatchSource,
        sampler: Sampler,
        *,
        batch_size: int,
        num_workers: int = 0,
        workers: Workers = "threads",
        prefetch: int = 4,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.batch_size, self.num_workers, self.prefetch = batch_size, num_workers, prefetch
        self.workers, self.rank, self.num_ranks = workers, rank, num_ranks
        self.start = Position(seed=sampler.seed, frames_per_epoch=len(sampler))

    @property
    def frames_per_epoch(self) -> int:
        """Frames that one pass over the data visits."""
        return len(self.sampler)

    def position(self, num_batches: int) -> Position:
        """Where the order stands after so many batches of this loader."""
        return self.start.after(num_batches, size=self.batch_size * self.num_ranks)

    def reseed(self, seed: int) -> None:
        """Follow the order of another seed."""
        self.sampler.seed = seed

    def fitting(self, position: Position, num_processes: int | None) -> Position:
        """Where to go on when a run was saved at this position by so many processes: at the same frame."""
        return position

    def item(self) -> Batch:
        """A batch of one item; the order of frames stays as it is."""
        return self.dataset.batch(next(filter(None, self.parts())).frames[:1])

    def index_batches(self) -> Iterator[list[int] | None]:
        """Frame numbers of each batch of this process, for ever; none where it gets a filler."""
        return (part and ([] if part.is_filler else part.frames) for part in self.parts())

    def parts(self) -> Iterator[Part | None]:
        """What this process reads of each batch, for ever.

        None says that what follows depends on the steps before, so that nothing is read ahead over it.
        """
        epoch, offset, size = self.start.epoch, self.start.offset, self.batch_size * self.num_ranks
        while True:
            self.sampler.load_state_dict({"epoch": epoch, "start_index": offset})
            order = list(self.sampler)
            for first in range(0, len(order), size):
                frames = order[first : first + size]
                own = frames[self.rank :: self.num_ranks]
                yield Part(own or frames[:1], is_filler=not own)
            epoch, offset = epoch + 1, 0

    def __iter__(self) -> Iterator[Batch]:
        if self.num_workers == 0:
            yield from (part.finish(self.dataset.batch(part.frames)) for part in self.parts() if part)
            return
        pool, read = self._pool()
        waiting: deque[tuple[Part, Future[Batch]]] = deque()
        try:
            for part in self.parts():
                if part is not None:
                    waiting.append((part, pool.submit(read, part.frames)))
                while len(waiting) > (0 if part is None else self.num_workers * self.prefetch):
                    first, batch = waiting.popleft()
                    yield first.finish(batch.result())
        except BrokenProcessPool as error:
            raise TrainingError(
                "A loader process ended without a word; the system may have stopped it for its memory. "
                "Lower --num_workers or --prefetch_factor, or use threads: --loader_workers=threads."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self) -> tuple[Executor, Any]:
        if self.workers == "threads":
            return ThreadPoolExecutor(self.num_workers, thread_name_prefix="loader"), self.dataset.batch
        # Spawned, not forked: a fork copies locks and decoders in whatever state the threads left them.
        # torch's context hands tensors over in shared memory.
        context = torch.multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            self.num_workers, mp_context=context, initializer=_open, initargs=(self.dataset,)
        )
        return pool, _read


_source: BatchSource  # of a loader process


def _open(dataset: BatchSource) -> None:
    global _source
    become_worker()
    torch.set_num_threads(1)  # the processes are the parallelism
    _source = dataset


def _read(indices: list[int]) -> Batch:
    return _source.batch(indices)
