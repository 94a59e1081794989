"""What was lived through, in memory: the newest episodes, read as a dataset is read.

    episode {feature: (L, ...)} -> add -> a ring per feature -> batch(indices) -> as `LeRobotDataset.batch`

Frames are numbered through from the first that was ever added; the oldest episodes leave when the ring is
full. Pictures stay uint8.

Shapes: L frames of an episode, B items, T frames of an item (offsets), C H W picture.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import ConfigError

Episode = dict[str, Tensor]  # feature -> (L, ...)
PICTURES = ("image", "video")
NUMBERED = {keys.TIMESTAMP: torch.float32} | dict.fromkeys(
    (keys.FRAME_INDEX, keys.EPISODE_INDEX, keys.INDEX, keys.TASK_INDEX), torch.int64
)  # what a dataset adds to each frame


class Buffer:
    """The newest episodes, up to `capacity` frames of them.

    Args:
        features: the feature table of a dataset (format v3.0).
        deltas: feature -> offsets, in frames, of what an item brings along; others come as single frames.
        task: the text of all frames.
    """

    def __init__(
        self,
        features: Mapping[str, Mapping[str, Any]],
        deltas: Mapping[str, Sequence[int] | np.ndarray],
        *,
        capacity: int,
        fps: float,
        task: str = "",
    ) -> None:
        self.features, self.deltas = dict(features), {name: np.array(d) for name, d in deltas.items()}
        self.capacity, self.fps, self.task = capacity, fps, task
        self.rings = {name: self._ring(feature) for name, feature in self.features.items()}  # (capacity, ...)
        self.first_episode = 0  # number of the oldest one that is here
        self.starts: list[int] = [0]  # number of each episode's first frame; and of the next one to come

    @property
    def num_episodes(self) -> int:
        """Episodes that are here."""
        return len(self.starts) - 1

    @property
    def num_frames(self) -> int:
        """Frames that are here."""
        return self.starts[-1] - self.starts[0]

    @property
    def num_added(self) -> int:
        """Frames that were ever added."""
        return self.starts[-1]

    def add(self, episode: Episode) -> None:
        """Take an episode in, {feature: (L, ...)}; the oldest leave where there is no room.

        Raises:
            ConfigError: it alone is longer than the capacity.
        """
        length = len(next(iter(episode.values())))
        if length > self.capacity:
            raise ConfigError(
                f"--online.buffer_capacity={self.capacity}: an episode had {length} frames. "
                f"Type: --online.buffer_capacity={100 * length}"
            )
        start = self.starts[-1]
        places = torch.arange(start, start + length) % self.capacity
        for name, ring in self.rings.items():
            ring[places] = episode[name].reshape(length, *ring.shape[1:])
        self.starts.append(start + length)
        while self.num_frames > self.capacity:
            self.starts.pop(0)
            self.first_episode += 1

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        """The numbers (count,) of frames, each as likely as any other; one may come twice."""
        return random.integers(self.starts[0], self.starts[-1], count)

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """The items at these frames: numbers and pictures (B, [T,] ...), flags (B, T), a list of texts.

        Beyond an end of its episode an item repeats the frame there, and says so.

        Raises:
            IndexError: a frame has left or has not come yet.
        """
        frames = np.asarray(indices, dtype=np.int64)  # (B,)
        if len(frames) and not self.starts[0] <= frames.min() <= frames.max() < self.starts[-1]:
            raise IndexError(f"Not all of {frames}: {self.starts[0]} to {self.starts[-1] - 1} are here.")
        starts = np.asarray(self.starts)
        episodes = np.searchsorted(starts, frames, side="right") - 1  # (B,)
        first, last = starts[episodes], starts[episodes + 1] - 1  # (B,)
        batch: dict[str, Any] = {}
        padding: dict[str, Tensor] = {}
        for name, ring in self.rings.items():
            wanted = frames
            if name in self.deltas:
                asked = frames[:, None] + self.deltas[name]  # (B, T)
                wanted = asked.clip(first[:, None], last[:, None])
                padding[name + keys.PAD_SUFFIX] = torch.from_numpy(asked != wanted)
            values = ring[torch.from_numpy(wanted % self.capacity)]  # (B, [T,] ...)
            batch[name] = values.squeeze(-1) if self.features[name]["shape"] == [1] else values
        numbers = {
            keys.TIMESTAMP: (frames - first) / self.fps,
            keys.FRAME_INDEX: frames - first,
            keys.EPISODE_INDEX: self.first_episode + episodes,
            keys.INDEX: frames,
            keys.TASK_INDEX: np.zeros_like(frames),
        }
        batch |= {name: torch.from_numpy(numbers[name]).to(kind) for name, kind in NUMBERED.items()}
        return batch | padding | {keys.TASK: [self.task] * len(frames)}

    def blank(self) -> dict[str, Any]:
        """A batch of one made-up item, all zeros, for measurements before there is a real one."""
        if self.num_frames:
            return self.batch([self.starts[0]])
        lone = Buffer(self.features, self.deltas, capacity=1, fps=self.fps, task=self.task)
        lone.add({name: torch.zeros_like(ring) for name, ring in lone.rings.items()})
        return lone.batch([0])

    def _ring(self, feature: Mapping[str, Any]) -> Tensor:
        # A page of it takes memory when it is first written to.
        shape, dtype = list(feature["shape"]), feature["dtype"]
        if dtype in PICTURES:
            height, width, channels = shape
            return torch.empty(self.capacity, channels, height, width, dtype=torch.uint8)
        return torch.empty(self.capacity, *shape, dtype=getattr(torch, dtype))
