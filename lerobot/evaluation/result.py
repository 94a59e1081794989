"""What an evaluation in simulation found, per episode and in all, and its form in `eval_info.json`.

EpisodeResult, ... -> EvalResult -> {"per_task", "per_group", "overall", "per_episode", ...} and back
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lerobot.core.clock import readable_duration
from lerobot.core.errors import ConfigError
from lerobot.evaluation.interval import mean_interval, wilson_interval

VIDEO_FOLDER = "videos"  # of an evaluation's folder
TaskKey = tuple[str, int]  # group, number in it


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode, until it was done or out of time."""

    index: int  # 0 is the first episode of its task; chooses the initial state where a task lists them
    seed: int | None  # what the environment was reset with
    steps: int  # control steps taken
    sum_reward: float
    max_reward: float
    success: bool  # whether the environment said so on any step
    video: Path | None = None
    group: str = ""  # suite of its task; the environment's type where there are none
    task_id: int = 0  # number of its task in the group
    task: str = ""  # task text that the policy was given

    @property
    def task_key(self) -> TaskKey:
        """Which task it is of."""
        return self.group, self.task_id

    @property
    def name(self) -> str:
        """What to call it where there are several tasks."""
        return f"{task_name(self.task_key)}, episode {self.index}"


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """All episodes of all tasks."""

    episodes: list[EpisodeResult]
    eval_s: float  # seconds that all of it took
    facts: dict[str, Any] = field(default_factory=dict)  # what else to write down: checkpoint, versions

    @property
    def overall(self) -> dict[str, Any]:
        """The means over all episodes with their 95 % intervals, the success rate in [0, 1], the seconds."""
        return aggregate(self.episodes) | {
            "eval_s": self.eval_s,
            "eval_ep_s": self.eval_s / len(self.episodes),
        }

    @property
    def rows(self) -> dict[str, str]:
        """What to tell a person, in a few lines."""
        found = self.overall
        low, high = found["success_rate_interval"]
        several = f" of {len(self.tasks)} tasks" if len(self.tasks) > 1 else ""
        return {
            "success rate": f"{found['success_rate']:.1%} ({found['n_successes']} of {len(self.episodes)} "
            f"episodes{several}; 95 % interval {low:.1%} to {high:.1%})",
            "reward": f"sum {found['avg_sum_reward']:.3f}, highest {found['avg_max_reward']:.3f} (means)",
            "time": f"{readable_duration(self.eval_s)}, {found['eval_ep_s']:.2f} s per episode",
        }

    @property
    def tasks(self) -> dict[TaskKey, list[EpisodeResult]]:
        """The episodes of each task, by its group and number in it."""
        found: dict[TaskKey, list[EpisodeResult]] = {}
        for episode in self.episodes:
            found.setdefault(episode.task_key, []).append(episode)
        return found

    @property
    def where(self) -> str:
        """The environment's type, with the groups of tasks that it has."""
        groups = ", ".join(self.groups)
        env = ((self.facts.get("config") or {}).get("env") or {}).get("type", groups)
        return groups if env == groups else f"{env} ({groups})"

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
            "per_task": [_task_tree(part) for part in self.tasks.values()],
            "per_group": {group: aggregate(part) for group, part in self.groups.items()},
            "overall": self.overall,
            "per_episode": [_episode_tree(episode) for episode in self.episodes],
            "task": self.episodes[0].task if len(self.tasks) == 1 else None,
            **self.facts,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], *, source: str) -> Self:
        """The result that `to_tree` gave; `source` names the file in messages.

        Raises:
            ConfigError: it is the file of something else, or of a release that does not say which episodes.
        """
        try:
            texts = {(task["task_group"], task["task_id"]): task["task"] for task in tree["per_task"]}
            episodes = [_episode_of(row, texts) for row in tree["per_episode"]]
            eval_s = float(tree["overall"]["eval_s"])
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{source} does not list its episodes one by one with task and seed ({error} is missing): it "
                "is not of an evaluation in simulation by this release. Evaluate again: lerobot-eval "
                "--policy.path=CHECKPOINT --env.type=NAME"
            ) from error
        own = ("per_task", "per_group", "overall", "per_episode", "task")
        return cls(episodes=episodes, eval_s=eval_s, facts={k: v for k, v in tree.items() if k not in own})


def task_name(key: TaskKey) -> str:
    """What a task is called in folders and tables."""
    return f"{key[0]}_{key[1]}"


def aggregate(episodes: list[EpisodeResult]) -> dict[str, Any]:
    """Means over episodes: `pc_success` in percent, `success_rate` in [0, 1]; with 95 % intervals.

    The intervals take the episodes as drawn alike; those of several tasks are therefore rather too wide.
    """
    count = len(episodes)
    successes = sum(episode.success for episode in episodes)
    values = {
        "sum_reward": [episode.sum_reward for episode in episodes],
        "max_reward": [episode.max_reward for episode in episodes],
        "steps": [float(episode.steps) for episode in episodes],
    }
    return {
        **{f"avg_{name}": sum(each) / count for name, each in values.items()},
        **{f"avg_{name}_interval": _pair(mean_interval(each)) for name, each in values.items()},
        "pc_success": 100 * successes / count,
        "n_episodes": count,
        "n_successes": successes,
        "success_rate": successes / count,
        "success_rate_interval": list(wilson_interval(successes, count)),
        **video_paths(episodes),
    }


def video_paths(episodes: Iterable[EpisodeResult]) -> dict[str, list[str]]:
    """The paths of the videos that were written; none of them is a prediction."""
    return {
        "video_paths": [str(episode.video) for episode in episodes if episode.video is not None],
        "predicted_video_paths": [],
    }


def _task_tree(episodes: list[EpisodeResult]) -> dict[str, Any]:
    """One task: what other releases write (`metrics`, episode by episode), and its means."""
    first, means = episodes[0], aggregate(episodes)
    return {
        "task_group": first.group,
        "task_id": first.task_id,
        "task": first.task,
        "metrics": {
            "sum_rewards": [episode.sum_reward for episode in episodes],
            "max_rewards": [episode.max_reward for episode in episodes],
            "successes": [episode.success for episode in episodes],
            **video_paths(episodes),
        },
        **{name: value for name, value in means.items() if not name.endswith("_paths")},
    }


def _episode_tree(episode: EpisodeResult) -> dict[str, Any]:
    return {
        "task_group": episode.group,
        "task_id": episode.task_id,
        "episode_ix": episode.index,
        "seed": episode.seed,
        "steps": episode.steps,
        "sum_reward": episode.sum_reward,
        "max_reward": episode.max_reward,
        "success": episode.success,
        "video_path": None if episode.video is None else str(episode.video),
    }


def _episode_of(row: Mapping[str, Any], texts: Mapping[TaskKey, str]) -> EpisodeResult:
    key = (row["task_group"], row["task_id"])
    return EpisodeResult(
        index=row["episode_ix"],
        seed=row["seed"],
        steps=row["steps"],
        sum_reward=row["sum_reward"],
        max_reward=row["max_reward"],
        success=row["success"],
        video=None if row["video_path"] is None else Path(row["video_path"]),
        group=key[0],
        task_id=key[1],
        task=texts[key],
    )


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
