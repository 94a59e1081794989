"""Batches for training: sampled in a repeatable order, read ahead by threads, moved to the device as uint8.

    sampler -> index batches -> threads: dataset.batch(indices) -> in order -> to_device: floats only there

Threads, not processes: decoding releases Python's lock, and nothing is copied between address spaces. The
order never depends on the number of threads, and the position after n batches follows from n alone.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from lerobot.datasets.sampler import EpisodeAwareSampler, compute_sampler_state

Batch = dict[str, Any]


class BatchSource(Protocol):
    """What a loader reads from; `LeRobotDataset` is one."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """Collated items: tensors (B, ...), uint8 pictures (B, [T,] C, H, W), lists of str."""


class BatchLoader:
    """Batches of this process for ever, beginning after `first_batch` of them.

    Args:
        num_workers: reading threads; 0 reads when the batch is asked for.
        prefetch: batches kept ready per thread.
        rank, num_ranks: each batch of `batch_size * num_ranks` frames is cut into parts, one per process.
    """

    def __init__(
        self,
        dataset: BatchSource,
        sampler: EpisodeAwareSampler,
        *,
        batch_size: int,
        num_workers: int = 0,
        prefetch: int = 4,
        rank: int = 0,
        num_ranks: int = 1,
        first_batch: int = 0,
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.batch_size, self.num_workers, self.prefetch = batch_size, num_workers, prefetch
        self.rank, self.num_ranks, self.first_batch = rank, num_ranks, first_batch

    @property
    def frames_per_epoch(self) -> int:
        """Frames that one pass over the data visits."""
        return len(self.sampler)

    def index_batches(self) -> Iterator[list[int]]:
        """Frame numbers of each batch of this process, for ever."""
        state = compute_sampler_state(self.first_batch, len(self.sampler), self.batch_size, self.num_ranks)
        self.sampler.load_state_dict(state)
        size = self.batch_size * self.num_ranks
        while True:
            epoch = list(self.sampler)
            for start in range(0, len(epoch), size):
                yield self._own_part(epoch[start : start + size])

    def _own_part(self, frames: list[int]) -> list[int]:
        if self.num_ranks == 1:
            return frames
        # The last batch of an epoch may be short; a process without a frame would keep the others waiting.
        return frames[self.rank :: self.num_ranks] or frames[:1]

    def __iter__(self) -> Iterator[Batch]:
        if self.num_workers == 0:
            yield from (self.dataset.batch(indices) for indices in self.index_batches())
            return
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="loader")
        waiting: deque[Future[Batch]] = deque()
        try:
            for indices in self.index_batches():
                waiting.append(pool.submit(self.dataset.batch, indices))
                if len(waiting) > self.num_workers * self.prefetch:
                    yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def to_device(batch: Batch, device: torch.device, *, pin: bool = False) -> Batch:
    """The batch on `device`; uint8 pictures become float32 in [0, 1] only there."""
    moved: Batch = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            if pin and device.type == "cuda":
                value = value.pin_memory()
            value = value.to(device, non_blocking=True)
            if value.dtype == torch.uint8:
                value = value.float().div_(255)
        moved[key] = value
    return moved
