"""What an evaluation found, per episode and in all, and its form in `eval_info.json`.

EpisodeResult, ... -> EvalResult -> {"per_task", "per_group", "overall", "per_episode", ...}
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """All episodes of one task."""

    group: str  # name of the suite; the environment's type where there is none
    task: str  # task text that the policy was given
    episodes: list[EpisodeResult]
    eval_s: float  # seconds that all of it took
    task_id: int = 0
    facts: dict[str, Any] = field(default_factory=dict)  # what else to write down: checkpoint, versions

    @property
    def overall(self) -> dict[str, Any]:
        """The means over all episodes, the success rate in [0, 1] with its 95 % interval, and the seconds."""
        return aggregate(self.episodes) | {
            "eval_s": self.eval_s,
            "eval_ep_s": self.eval_s / len(self.episodes),
        }

    def to_tree(self) -> dict[str, Any]:
        """The contents of `eval_info.json`, in the keys of both old and new releases."""
        episodes = self.episodes
        metrics = {
            "sum_rewards": [episode.sum_reward for episode in episodes],
            "max_rewards": [episode.max_reward for episode in episodes],
            "successes": [episode.success for episode in episodes],
            **video_paths(episodes),
        }
        return {
            "per_task": [{"task_group": self.group, "task_id": self.task_id, "metrics": metrics}],
            "per_group": {self.group: aggregate(episodes)},
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
                for episode in episodes
            ],
            "task": self.task,
            **self.facts,
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
