"""The order in which frames are trained on: shuffled each epoch, repeatable, resumable at any step."""

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np
import torch

from lerobot.core.errors import DatasetError

logger = logging.getLogger(__name__)


class EpisodeAwareSampler:
    """Frame numbers of chosen episodes, without the first or last few of each.

    Epoch e is ordered by a CPU generator seeded with the first uint64 of NumPy's SeedSequence([seed, e]);
    each iterator begins the next epoch.

    Args:
        dataset_from_indices: first frame of each episode.
        dataset_to_indices: one past the last frame of each episode.
        absolute_to_relative_idx: where each frame is found in a dataset that loaded only some episodes.

    Raises:
        DatasetError: no frame is left, or an episode does not exist.
    """

    def __init__(
        self,
        dataset_from_indices: Sequence[int],
        dataset_to_indices: Sequence[int],
        episode_indices_to_use: Sequence[int] | None = None,
        drop_n_first_frames: int = 0,
        drop_n_last_frames: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        absolute_to_relative_idx: Mapping[int, int] | None = None,
    ) -> None:
        first, last = np.asarray(dataset_from_indices), np.asarray(dataset_to_indices)
        chosen = range(len(first)) if episode_indices_to_use is None else sorted(set(episode_indices_to_use))
        ranges = []
        for episode in chosen:
            if not 0 <= episode < len(first):
                raise DatasetError(
                    f"Episode {episode} does not exist; there are {len(first)} (0 to {len(first) - 1})."
                )
            frames = np.arange(first[episode] + drop_n_first_frames, last[episode] - drop_n_last_frames)
            if not len(frames):
                logger.warning("Episode %d has no frame left after dropping; it is skipped.", episode)
            ranges.append(frames)
        frames = np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)
        if absolute_to_relative_idx is not None:
            frames = np.array([absolute_to_relative_idx[int(frame)] for frame in frames], dtype=np.int64)
        if not len(frames):
            raise DatasetError("No frame is left to sample; drop fewer frames or choose more episodes.")
        self.frames = torch.from_numpy(frames.astype(np.int64))
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.start_index = 0

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[int]:
        """The frames of the current epoch from `start_index` on; the next iterator gives the next epoch."""
        order = self._order(self.epoch)
        start, self.start_index = self.start_index, 0
        self.epoch += 1
        return iter(order[start:].tolist())

    def set_epoch(self, epoch: int) -> None:
        """Make the next iterator give this epoch, from its beginning."""
        self.epoch, self.start_index = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the next iterator begins."""
        return {"epoch": self.epoch, "start_index": self.start_index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` or `compute_sampler_state` says."""
        self.epoch, self.start_index = state["epoch"], state["start_index"]

    def over(self, frames: Sequence[torch.Tensor]) -> Self:
        """The same rule for other frames: one tensor (N,) of them."""
        other = copy.copy(self)
        (other.frames,) = frames
        return other

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffle:
            return self.frames
        return self.frames[shuffled(len(self.frames), self.seed, epoch)]


class MixtureSampler:
    """Frames of several datasets in chosen shares, each gone through without repetition, again and again.

    An epoch has as many frames as the datasets together; of each, the share that its weight says. Dataset k's
    frames come from its own endless run of shuffled passes, so that over several epochs each of its frames is
    seen equally often, give or take one; then the epoch is shuffled as a whole.

    Args:
        frames: per dataset, the numbers (N,) of its frames in the mixture.
        weights: share of each dataset; any scale.
    """

    def __init__(self, frames: Sequence[torch.Tensor], weights: Sequence[float], *, seed: int = 0) -> None:
        self.frames, self.seed = list(frames), seed
        self.total = sum(len(one) for one in frames)
        self.counts = shares(weights, self.total)
        self.epoch = 0
        self.start_index = 0

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        """The frames of the current epoch from `start_index` on; the next iterator gives the next epoch."""
        order = self._order(self.epoch)
        start, self.start_index = self.start_index, 0
        self.epoch += 1
        return iter(order[start:].tolist())

    def state_dict(self) -> dict[str, int]:
        """Where the next iterator begins."""
        return {"epoch": self.epoch, "start_index": self.start_index}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` says."""
        self.epoch, self.start_index = state["epoch"], state["start_index"]

    def over(self, frames: Sequence[torch.Tensor]) -> "MixtureSampler":
        """The same shares and the same rule for other frames of each dataset."""
        return MixtureSampler(frames, self.counts, seed=self.seed)

    def _order(self, epoch: int) -> torch.Tensor:
        parts = [self._part(k, epoch * count, count) for k, count in enumerate(self.counts)]
        return torch.cat(parts)[shuffled(self.total, self.seed, epoch)]

    def _part(self, k: int, start: int, count: int) -> torch.Tensor:
        """Frames `start` to `start + count` of dataset k's endless run."""
        frames, found = self.frames[k], []
        while count:
            epoch, at = divmod(start, len(frames))
            some = frames[shuffled(len(frames), self.seed, epoch, k)][at : at + count]
            found.append(some)
            start, count = start + len(some), count - len(some)
        return torch.cat(found) if found else frames[:0]


def shares(weights: Sequence[float], total: int) -> list[int]:
    """`total` cut into whole numbers in proportion to the weights (largest remainders get the rest)."""
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * total
    counts = np.floor(exact).astype(int)
    rest = np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]
    counts[rest] += 1
    return counts.tolist()


def shuffled(count: int, *seeds: int) -> torch.Tensor:
    """The numbers 0 to count - 1 (count,) in the order that these seeds stand for."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def compute_sampler_state(
    step: int, num_frames: int, batch_size: int, num_processes: int = 1
) -> dict[str, int]:
    """Sampler state after `step` batches of `batch_size` frames on each of `num_processes` processes."""
    batches_per_epoch = math.ceil(math.ceil(num_frames / batch_size) / num_processes)
    epoch, batch = divmod(step, batches_per_epoch)
    return {"epoch": epoch, "start_index": min(batch * batch_size * num_processes, num_frames)}
