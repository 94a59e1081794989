"""What an evaluation found, per episode and in all, and its form in `eval_info.json`.

EpisodeResult, ... -> EvalResult -> {"per_task", "per_group", "overall", "per_episode", ...}
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core.clock import readable_duration
from lerobot.evaluation.interval import wilson_interval


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode, until it was done or out of time."""

    index: int  # 0 is the first episode of the evaluation
    seed: int | None  # what the environment was reset with
    steps: int  # control steps taken
    sum_reward: float
    max_reward: float
    success: bool  # whether the environment said so on any step
    video: Path | None = None
    group: str = ""  # suite of its task; the environment's type where there are none
    task_id: int = 0  # number of its task in the group
    task: str = ""  # task text that the policy was given


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """All episodes of all tasks."""

    episodes: list[EpisodeResult]
    eval_s: float  # seconds that all of it took
    facts: dict[str, Any] = field(default_factory=dict)  # what else to write down: checkpoint, versions

    @property
    def overall(self) -> dict[str, Any]:
        """The means over all episodes, the success rate in [0, 1] with its 95 % interval, and the seconds."""
        return aggregate(self.episodes) | {
            "eval_s": self.eval_s,
            "eval_ep_s": self.eval_s / len(self.episodes),
        }

    @property
    def rows(self) -> dict[str, str]:
        """What to tell a person, in a few lines."""
        found = self.overall
        low, high = found["success_rate_interval"]
        count = sum(episode.success for episode in self.episodes)
        return {
            "success rate": f"{found['success_rate']:.1%} ({count} of {len(self.episodes)} episodes; "
            f"95 % interval {low:.1%} to {high:.1%})",
            "reward": f"sum {found['avg_sum_reward']:.3f}, highest {found['avg_max_reward']:.3f} (means)",
            "time": f"{readable_duration(self.eval_s)}, {found['eval_ep_s']:.2f} s per episode",
        }

    @property
    def tasks(self) -> dict[tuple[str, int], list[EpisodeResult]]:
        """The episodes of each task, by its group and number in it."""
        found: dict[tuple[str, int], list[EpisodeResult]] = {}
        for episode in self.episodes:
            found.setdefault((episode.group, episode.task_id), []).append(episode)
        return found

    @property
    def groups(self) -> dict[str, list[EpisodeResult]]:
        """The episodes of each group of tasks."""
        found: dict[str, list[EpisodeResult]] = {}
        for episode in self.episodes:
            found.setdefault(episode.group, []).append(episode)
        return found

    def to_tree(self) -> dict[str, Any]:
        """The contents of `eval_info.json`, in the keys of both old and new releases."""
        return {
            "per_task": [
                {"task_group": group, "task_id": task_id, "task": part[0].task, "metrics": metrics(part)}
                for (group, task_id), part in self.tasks.items()
            ],
            "per_group": {group: aggregate(part) for group, part in self.groups.items()},
            "overall": self.overall,
            "per_episode": [
                {
                    "episode_ix": episode.index,
                    "sum_reward": episode.sum_reward,
                    "max_reward": episode.max_reward,
                    "success": episode.success,
                    "seed": episode.seed,
                    "steps": episode.steps,
                }
                for episode in self.episodes
            ],
            "task": self.episodes[0].task if len(self.tasks) == 1 else None,
            **self.facts,
        }


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One episode: the recorded actions (L, A), and at each frame the first action of the chunk (L, A)."""

    episode: int
    recorded: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """Errors of the actions, summed per episode, step of the chunk and joint.

    Shapes: E episodes, T actions of a chunk, A action size, L frames of an episode.
    """

    repo_id: str
    num_episodes_there: int  # in the whole dataset
    joint_names: list[str]  # A
    episodes: list[int]  # E
    squared: np.ndarray  # (E, T, A) sums of squared errors
    absolute: np.ndarray  # (E, T, A) sums of absolute errors
    counts: np.ndarray  # (E, T) frames whose step T lies inside the episode
    curves: list[Curve]
    eval_s: float
    facts: dict[str, Any] = field(default_factory=dict)  # what else to write down: checkpoint, versions

    def means(self, axis: str) -> list[dict[str, float]]:
        """`action_mse` and `action_mae` along "episode", "step" or "joint"."""
        if axis == "joint":
            total = self.counts.sum()
            pairs = zip(self.squared.sum((0, 1)) / total, self.absolute.sum((0, 1)) / total, strict=True)
        else:
            others = 1 if axis == "episode" else 0
            total = self.counts.sum(others) * len(self.joint_names)
            keep = total > 0
            squared, absolute = self.squared.sum((others, 2))[keep], self.absolute.sum((others, 2))[keep]
            pairs = zip(squared / total[keep], absolute / total[keep], strict=True)
        return [{"action_mse": float(squared), "action_mae": float(absolute)} for squared, absolute in pairs]

    @property
    def overall(self) -> dict[str, Any]:
        """The means over everything, and how much that was."""
        total = self.counts.sum() * len(self.joint_names)
        return {
            "action_mse": float(self.squared.sum() / total),
            "action_mae": float(self.absolute.sum() / total),
            "n_episodes": len(self.episodes),
            "n_frames": int(self.counts[:, 0].sum()),
            "eval_s": self.eval_s,
        }

    @property
    def rows(self) -> dict[str, str]:
        """What to tell a person, in a few lines."""
        found = self.overall
        worst = max(zip(self.means("joint"), self.joint_names, strict=True), key=lambda p: p[0]["action_mae"])
        which = "all episodes"
        if len(self.episodes) < self.num_episodes_there:
            which = f"{len(self.episodes)} of the {self.num_episodes_there} episodes (--num_episodes=N)"
        return {
            "action error": f"mae {found['action_mae']:.4g}, mse {found['action_mse']:.4g}, units of action",
            "largest": f"mae {worst[0]['action_mae']:.4g} at {worst[1]}",
            "frames": f"{found['n_frames']}: {which}",
            "time": readable_duration(self.eval_s),
        }

    def to_tree(self) -> dict[str, Any]:
        """The contents of `eval_info.json`."""
        return {
            "dataset": self.repo_id,
            "overall": self.overall,
            "per_joint": dict(zip(self.joint_names, self.means("joint"), strict=True)),
            "per_step": [{"step": i, **mean} for i, mean in enumerate(self.means("step"))],
            "per_episode": [
                {"episode_index": episode, "n_frames": int(count), **mean}
                for episode, count, mean in zip(
                    self.episodes, self.counts[:, 0], self.means("episode"), strict=True
                )
            ],
            **self.facts,
        }


def metrics(episodes: list[EpisodeResult]) -> dict[str, list]:
    """The numbers of one task, episode by episode."""
    return {
        "sum_rewards": [episode.sum_reward for episode in episodes],
        "max_rewards": [episode.max_reward for episode in episodes],
        "successes": [episode.success for episode in episodes],
        **video_paths(episodes),
    }


def aggregate(episodes: list[EpisodeResult]) -> dict[str, Any]:
    """Means over episodes: `pc_success` in percent, `success_rate` in [0, 1] with `success_rate_interval`."""
    count = len(episodes)
    successes = sum(episode.success for episode in episodes)
    return {
        "avg_sum_reward": sum(episode.sum_reward for episode in episodes) / count,
        "avg_max_reward": sum(episode.max_reward for episode in episodes) / count,
        "pc_success": 100 * successes / count,
        "n_episodes": count,
        "success_rate": successes / count,
        "success_rate_interval": list(wilson_interval(successes, count)),
        **video_paths(episodes),
    }


def video_paths(episodes: list[EpisodeResult]) -> dict[str, list[str]]:
    """The paths of the videos that were written; none of them is a prediction."""
    return {
        "video_paths": [str(episode.video) for episode in episodes if episode.video is not None],
        "predicted_video_paths": [],
    }
