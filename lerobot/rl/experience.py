"""What a policy lives through while it learns: acted out when it is due, kept, and drawn from.

    batch k is asked for -> episodes are lived until there are enough steps for it -> drawn from the buffer

Between two episodes everything follows from what is saved: the episodes' files, and the policy's weights. So
whole episodes are lived, and a run that goes on from a checkpoint lives on as if nothing had happened.

    OUTPUT_DIR/experience/episode_000012.safetensors     one file per episode, complete or not there
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lerobot.core.errors import CheckpointError
from lerobot.core.files import write_atomically
from lerobot.rl.actor import Actor
from lerobot.rl.buffer import Buffer, Episode
from lerobot.training.logs.metrics import Row
from lerobot.training.sampling.data import Batch, BatchLoader, Position
from lerobot.training.sections import OnlineConfig

FOLDER = "experience"
REMEMBERED = 20  # episodes that the log's means are over


class Experience:
    """Lives episodes as they are needed and keeps them, in memory and on the disk.

    Args:
        seed: which episodes are lived; episode i follows from it and i.
        random_steps: first steps, of all episodes together, whose actions are random.
    """

    def __init__(
        self, actor: Actor, buffer: Buffer, cfg: OnlineConfig, *, seed: int, random_steps: int
    ) -> None:
        self.actor, self.buffer, self.cfg = actor, buffer, cfg
        self.seed, self.random_steps = seed, random_steps
        self.returns: deque[float] = deque(maxlen=REMEMBERED)
        self.successes: deque[bool] = deque(maxlen=REMEMBERED)
        self.oldest_saved = 0  # the oldest episode that the checkpoint before needs

    def settle(self, folder: Path, *, timed: Callable[[], AbstractContextManager]) -> None:
        """Keep episodes in the folder of a run; time spent acting is spent in the context `timed`."""
        self.folder, self.timed = folder / FOLDER, timed

    @property
    def summary(self) -> str:
        """What the header of a run says."""
        cfg = self.cfg
        return (
            f"{cfg.utd_ratio:g} updates per step in {self.actor.cfg.type}, from "
            f"{cfg.steps_before_learning:,} steps on ({self.random_steps:,} of them at random); "
            f"the last {cfg.buffer_capacity:,} are kept"
        )

    def live_for(self, update: int) -> None:
        """Live on until there are enough steps for this update, counted from 0."""
        needed = self.cfg.steps_before_learning + update / self.cfg.utd_ratio
        while self.buffer.num_added < max(1, math.floor(needed)):
            with self.timed():
                self._live()

    def _live(self) -> None:
        number = self.buffer.first_episode + self.buffer.num_episodes
        left = max(0, self.random_steps - self.buffer.num_added)
        lived = self.actor.live(seed_of(self.seed, number), random_steps=left)
        write_atomically(self._path(number), lambda part: save_file(lived.frames, part))
        self.buffer.add(lived.frames)
        self.returns.append(lived.sum_reward)
        self.successes.append(lived.is_success)

    def row(self) -> Row:
        """Numbers for the log: how much was lived, and how well lately."""
        row: Row = {
            "env_steps": self.buffer.num_added,
            "env_episodes": self.buffer.first_episode + self.buffer.num_episodes,
        }
        if self.returns:
            row["online_return"] = float(np.mean(self.returns))
            row["online_success"] = float(np.mean(self.successes))
        return row

    def close(self) -> None:
        """Close the environment."""
        self.actor.env.close()

    # --- checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Which episodes are here, and what the log remembers; files that no checkpoint needs are deleted.

        The checkpoint before this one is complete by now, and the only other one that can be gone on from.
        """
        for path in self.folder.glob("episode_*.safetensors"):
            if number_of(path) < self.oldest_saved:
                path.unlink()
        self.oldest_saved = self.buffer.first_episode
        return {
            "seed": self.seed,
            "random_steps": self.random_steps,
            "first_episode": self.buffer.first_episode,
            "starts": list(self.buffer.starts),
            "returns": list(self.returns),
            "successes": list(self.successes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what was here then; what was lived later is deleted, and is going to be lived again.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        self.seed, self.random_steps = int(state["seed"]), int(state["random_steps"])
        first, starts = int(state["first_episode"]), list(state["starts"])
        self.buffer.first_episode, self.buffer.starts = first, [starts[0]]
        for number in range(first, first + len(starts) - 1):
            self.buffer.add(read_episode(self._path(number)))
        if self.buffer.starts != starts:
            raise CheckpointError(
                f"{self.folder} holds other episodes than the checkpoint was saved with. Copy the whole "
                "folder of the run again."
            )
        for path in self.folder.glob("episode_*.safetensors"):
            if number_of(path) >= first + len(starts) - 1:
                path.unlink()
        self.returns.extend(state["returns"])
        self.successes.extend(state["successes"])
        self.oldest_saved = first

    def _path(self, number: int) -> Path:
        return self.folder / f"episode_{number:06d}.safetensors"


def number_of(path: Path) -> int:
    """The number of an episode's file."""
    return int(path.stem.rpartition("_")[2])


def read_episode(path: Path) -> Episode:
    """The frames of a file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is needed to go on from this checkpoint and cannot be read: {error}. Go on from the "
            "run's last checkpoint, or begin a new run from these weights with --policy.path=CHECKPOINT."
        ) from error


def seed_of(seed: int, number: int) -> int:
    """The seed of an episode; evaluations, which count from --seed on, do not meet it."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class OnlineLoader:
    """Batches for ever: of experience, or a share of each from recorded data.

    It has the face of a `BatchLoader`. Batch k is drawn with numbers of its own, from what had been lived by
    then; positions count batches as epochs.
    """

    num_ranks = 1
    sampler = None

    def __init__(
        self,
        experience: Experience,
        *,
        batch_size: int,
        per_update: int,
        seed: int,
        recorded: BatchLoader | None = None,
    ) -> None:
        """`per_update` is how many batches an optimizer step takes."""
        self.experience, self.batch_size, self.recorded = experience, batch_size, recorded
        self.per_update = per_update
        self.start = Position(seed=seed, frames_per_epoch=self.frames_per_epoch)

    @property
    def frames_per_epoch(self) -> int:
        """The size of the buffer: there are no passes over it."""
        return self.experience.buffer.capacity

    def position(self, num_batches: int) -> Position:
        """Where the order stands after so many batches of this loader."""
        return replace(self.start, epoch=self.start.epoch + num_batches)

    def reseed(self, seed: int) -> None:
        """Draw with the numbers of another seed."""
        self.start = replace(self.start, seed=seed)

    def fitting(self, position: Position, num_processes: int | None) -> Position:
        """Where to go on from a position that was saved."""
        return position

    def item(self) -> Batch:
        """A batch of one item, made up before anything was lived."""
        return self.experience.buffer.blank()

    def __iter__(self) -> Iterator[Batch]:
        number, seed = self.start.epoch, self.start.seed
        num_recorded = 0
        if self.recorded is not None:
            num_recorded = self.batch_size - max(1, round(self.batch_size * self.experience.cfg.ratio))
        recorded: Iterator[Batch] = iter(())
        if self.recorded is not None and num_recorded:
            self.recorded.batch_size = num_recorded
            self.recorded.start = self.recorded.position(number)
            recorded = iter(self.recorded)
        while True:
            self.experience.live_for(number // self.per_update)
            draws = np.random.default_rng([seed, number])
            frames = self.experience.buffer.draw(self.batch_size - num_recorded, draws)
            batch = self.experience.buffer.batch(frames)
            yield joined(batch, next(recorded)) if num_recorded else batch
            number += 1


def joined(one: Batch, other: Batch) -> Batch:
    """Both batches as one, of what is in both."""
    return {
        name: torch.cat([value, other[name]]) if isinstance(value, Tensor) else [*value, *other[name]]
        for name, value in one.items()
        if name in other
    }
