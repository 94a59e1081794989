"""How far a policy's actions are from recorded ones, and its form in `eval_info.json`.

sums of errors per episode, step, joint -> ReplayResult -> {"overall", "per_joint", "per_step", "per_episode"}

Shapes: E episodes, T actions of a chunk, A action size, L frames of an episode.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lerobot.core.clock import readable_duration
from lerobot.evaluation.interval import mean_interval

Means = dict[str, Any]  # action_mse, action_mae, and with `_interval` behind it the interval of each


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

    def means(self, axis: str) -> list[Means]:
        """`action_mse` and `action_mae` along "episode", "step" or "joint", the last two with intervals."""
        num_joints = len(self.joint_names)
        if axis == "episode":
            totals = self.counts.sum(1) * num_joints  # (E,)
            return [
                {"action_mse": float(squared / total), "action_mae": float(absolute / total)}
                for squared, absolute, total in zip(
                    self.squared.sum((1, 2)), self.absolute.sum((1, 2)), totals, strict=True
                )
            ]
        if axis == "joint":
            counts = np.repeat(self.counts.sum(1)[:, None], num_joints, axis=1)  # (E, A)
            return means_over_episodes(self.squared.sum(1), self.absolute.sum(1), counts)
        return means_over_episodes(self.squared.sum(2), self.absolute.sum(2), self.counts * num_joints)

    @property
    def overall(self) -> dict[str, Any]:
        """The means over everything with their 95 % intervals, and how much that was."""
        every = (
            self.squared.sum((1, 2)),
            self.absolute.sum((1, 2)),
            self.counts.sum(1) * len(self.joint_names),
        )
        (means,) = means_over_episodes(*(part[:, None] for part in every))
        return {
            **means,
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
        interval = found["action_mae_interval"]
        sure = f" (95 % interval {interval[0]:.4g} to {interval[1]:.4g})" if interval else ""
        return {
            "action error": f"mae {found['action_mae']:.4g}{sure}, mse {found['action_mse']:.4g}; "
            "units of action",
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


def means_over_episodes(squared: np.ndarray, absolute: np.ndarray, counts: np.ndarray) -> list[Means]:
    """The means of K kinds of error from sums and counts (E, K); a kind that no episode has is left out.

    Frames of one episode resemble each other, so the intervals say what other episodes would give.
    """
    found = []
    for kind in range(counts.shape[1]):
        has = counts[:, kind] > 0  # (E,)
        if not has.any():
            continue
        means: Means = {}
        for name, sums in (("action_mse", squared[has, kind]), ("action_mae", absolute[has, kind])):
            total = counts[has, kind]
            means[name] = float(sums.sum() / total.sum())
            interval = mean_interval(sums, total)
            # an error cannot be negative, though a symmetric interval may reach below 0
            means[f"{name}_interval"] = None if interval is None else [max(0.0, interval[0]), interval[1]]
        found.append(means)
    return found
