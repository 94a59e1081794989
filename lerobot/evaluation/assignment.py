"""Which episodes an evaluation consists of, and which one a free slot runs next.

EnvConfig.tasks x n_episodes -> Assignments -> share of this process -> Schedule -> slots
"""

import hashlib
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot.envs.base import EnvConfig, Task
from lerobot.evaluation.recording import frames_file


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One episode to run: a task, an initial state and a seed, whichever slot gets it."""

    index: int  # in its task; chooses the initial state
    task: Task
    env: EnvConfig  # with this task alone
    seed: int | None  # for the environment's reset
    policy_seed: int  # of the policy's own random numbers
    video: Path | None = None  # where to film it
    recording: Path | None = None  # where to keep its frames

    def __str__(self) -> str:
        name = f"{self.task.group} {self.task.name or self.task.id}"
        return f"episode {self.index} (task {name}, seed {self.seed})"

    @property
    def key(self) -> tuple[str, int, int]:
        """What no other episode has."""
        return self.task.group, self.task.id, self.index


def assignments(
    env_config: EnvConfig,
    *,
    n_episodes: int,
    seed: int | None,
    max_videos: int = 0,
    video_folder: Path | None = None,
    recording_folder: Path | None = None,
) -> list[Assignment]:
    """`n_episodes` of each task in order; episode i of a task is reset with `seed` + i.

    Without a seed the environments are left to chance, and so is what the policy draws.
    """
    found = []
    for task in env_config.tasks:
        one = env_config.with_task(task)
        for index in range(n_episodes):
            video = None
            if video_folder is not None and index < max_videos:
                video = video_folder / f"{task.group}_{task.id}" / f"eval_episode_{index}.mp4"
            found.append(
                Assignment(
                    index=index,
                    task=task,
                    env=one,
                    seed=None if seed is None else seed + index,
                    policy_seed=_policy_seed(seed, task, index),
                    video=video,
                    recording=recording_folder
                    and frames_file(recording_folder, (task.group, task.id), index),
                )
            )
    return found


def share(wanted: Sequence[Assignment], *, rank: int, num_ranks: int) -> list[Assignment]:
    """The part of process `rank` of `num_ranks`: neighbours, so that it meets few tasks."""
    first, end = (len(wanted) * k // num_ranks for k in (rank, rank + 1))
    return list(wanted[first:end])


def _policy_seed(seed: int | None, task: Task, index: int) -> int:
    """A seed in [0, 2^63) that no other episode has; a new one every time where there is no seed."""
    if seed is None:
        return secrets.randbits(63)
    words = f"{seed} {task.group} {task.id} {index}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]) >> 1


class Schedule:
    """Hands out episodes so that slots seldom change their task, which means a new environment."""

    def __init__(self, wanted: Sequence[Assignment]) -> None:
        self.waiting: dict[Task, deque[Assignment]] = {}
        for one in wanted:
            self.waiting.setdefault(one.task, deque()).append(one)
        self.num_slots: dict[Task, int] = dict.fromkeys(self.waiting, 0)  # that are at a task

    def next(self, before: Task | None = None) -> Assignment | None:
        """The next episode of a slot that was at task `before`, or None when all are handed out."""
        if before is not None and self.waiting[before]:
            return self.waiting[before].popleft()
        if before is not None:
            self.num_slots[before] -= 1
        left = [task for task, episodes in self.waiting.items() if episodes]
        if not left:
            return None
        # where a slot has most to do; the earliest of several
        chosen = max(left, key=lambda task: len(self.waiting[task]) / (1 + self.num_slots[task]))
        self.num_slots[chosen] += 1
        return self.waiting[chosen].popleft()
