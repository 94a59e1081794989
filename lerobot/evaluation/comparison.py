"""Two policies in the same episodes: what the second does better or worse, and how sure that is.

EvalResult of A, EvalResult of B -> compare (same episodes? same versions?) -> Comparison -> comparison.json

In the same episode both meet the same difficulty, so the differences of episodes vary less than the episodes
do, and the interval of the difference is narrower than two separate ones would let hope.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lerobot.core.errors import ConfigError
from lerobot.evaluation.interval import mcnemar_p, mean_interval, paired_interval
from lerobot.evaluation.result import EpisodeResult, EvalResult, TaskKey, aggregate, task_name

Pair = tuple[EpisodeResult, EpisodeResult]  # one episode: A's and B's
LISTED = 5  # differences that a message names
NO_CONDITIONS = (  # of an environment's settings: what a policy's own names are, how it is run and filmed
    "features_map",
    "max_parallel_tasks",
    "disable_env_checker",
    "visualization_height",
    "visualization_width",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The pairs of all episodes of all tasks."""

    names: tuple[str, str]  # A and B
    results: tuple[EvalResult, EvalResult]
    pairs: list[Pair]

    @property
    def tasks(self) -> dict[TaskKey, list[Pair]]:
        """The pairs of each task."""
        found: dict[TaskKey, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair[0].task_key, []).append(pair)
        return found

    @property
    def overall(self) -> dict[str, Any]:
        """`paired` over all episodes."""
        return paired(self.pairs)

    @property
    def rows(self) -> dict[str, str]:
        """What to tell a person, in a few lines."""
        found = self.overall
        low, high = found["success_rate_difference_interval"]
        returns = found["avg_sum_reward_difference_interval"]
        sure = f" (95 % interval {returns[0]:+.3f} to {returns[1]:+.3f})" if returns else ""
        return {
            "A": f"{found['a']['success_rate']:.1%}, {self.names[0]}",
            "B": f"{found['b']['success_rate']:.1%}, {self.names[1]}",
            "B minus A": f"{100 * found['success_rate_difference']:+.1f} points of success (95 % interval "
            f"{100 * low:+.1f} to {100 * high:+.1f}; McNemar p = {found['mcnemar_p']:.3g})",
            "episodes": f"{len(self.pairs)}: both {found['n_both']}, only A {found['n_only_a']}, "
            f"only B {found['n_only_b']}, neither {found['n_neither']}",
            "reward": f"{found['avg_sum_reward_difference']:+.3f} per episode{sure}",
        }

    def to_tree(self) -> dict[str, Any]:
        """The contents of `comparison.json`."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "overall": self.overall,
            "per_task": [
                {"task_group": group, "task_id": number, "task": part[0][0].task, **paired(part)}
                for (group, number), part in self.tasks.items()
            ],
            "per_episode": [
                {
                    "task_group": a.group,
                    "task_id": a.task_id,
                    "episode_ix": a.index,
                    "seed": a.seed,
                    "successes": [a.success, b.success],
                    "sum_rewards": [a.sum_reward, b.sum_reward],
                }
                for a, b in self.pairs
            ],
            "versions": self.results[0].facts.get("versions"),
        }


def paired(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Both sides' numbers and their differences, B minus A, with 95 % intervals.

    `mcnemar_p` is how probable so uneven a disagreement is between policies that succeed equally often.
    """
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    only_a = sum(a.success and not b.success for a, b in pairs)
    only_b = sum(b.success and not a.success for a, b in pairs)
    both = sum(a.success and b.success for a, b in pairs)
    neither = len(pairs) - both - only_a - only_b
    rewards = [b.sum_reward - a.sum_reward for a, b in pairs]
    sure = mean_interval(rewards)
    return {
        "n_episodes": len(pairs),
        "a": without_paths(aggregate(ours)),
        "b": without_paths(aggregate(theirs)),
        "n_both": both,
        "n_only_a": only_a,
        "n_only_b": only_b,
        "n_neither": neither,
        "success_rate_difference": (only_b - only_a) / len(pairs),
        "success_rate_difference_interval": list(
            paired_interval(both=both, only_b=only_b, only_a=only_a, neither=neither)
        ),
        "mcnemar_p": mcnemar_p(only_b=only_b, only_a=only_a),
        "avg_sum_reward_difference": sum(rewards) / len(pairs),
        "avg_sum_reward_difference_interval": None if sure is None else list(sure),
    }


def without_paths(means: Mapping[str, Any]) -> dict[str, Any]:
    """Means without the paths of videos."""
    return {name: value for name, value in means.items() if not name.endswith("_paths")}


def compare(a: EvalResult, b: EvalResult, *, names: tuple[str, str]) -> Comparison:
    """The comparison of two evaluations of the same episodes under the same conditions.

    Args:
        names: what A and B are called.

    Raises:
        ConfigError: episodes, settings of the environment, or versions differ; the message says which.
    """
    check_conditions(a.facts, b.facts, names=names)
    ours, theirs = by_place(a, names[0]), by_place(b, names[1])
    for name, other, missing in (
        (names[0], names[1], ours.keys() - theirs.keys()),
        (names[1], names[0], theirs.keys() - ours.keys()),
    ):
        if missing:
            raise ConfigError(
                f"{name} has {len(missing)} episodes that {other} has not: {listed(sorted(missing))}. Both "
                "must have run the same tasks with the same --seed and --eval.n_episodes."
            )
    return Comparison(names=names, results=(a, b), pairs=[(ours[place], theirs[place]) for place in ours])


def by_place(result: EvalResult, name: str) -> dict[tuple[str, int, int, int], EpisodeResult]:
    """Every episode by its group, task, number and seed.

    Raises:
        ConfigError: an episode has no seed.
    """
    found = {}
    for episode in result.episodes:
        if episode.seed is None:
            raise ConfigError(
                f"The episodes of {name} have no seeds (--seed=null), so nobody can tell whether others are "
                "the same. Evaluate again with a seed, such as --seed=1000."
            )
        found[episode.group, episode.task_id, episode.index, episode.seed] = episode
    return found


def listed(places: Sequence[tuple[str, int, int, int]]) -> str:
    """The first of these episodes, in words."""
    said = [f"{task_name(place[:2])} episode {place[2]} (seed {place[3]})" for place in places[:LISTED]]
    return ", ".join(said) + (", ..." if len(places) > LISTED else "")


def check_conditions(a: Mapping[str, Any], b: Mapping[str, Any], *, names: tuple[str, str]) -> None:
    """Return when versions, renderer and settings of the environment were the same for both.

    Raises:
        ConfigError: something differs, or was not written down.
    """
    found = []
    for facts, name in zip((a, b), names, strict=True):
        if not isinstance(facts.get("versions"), Mapping) or not isinstance(facts.get("config"), Mapping):
            raise ConfigError(
                f"{name} does not say with which versions and settings it was made, so it is not compared. "
                "Evaluate again: lerobot-eval --policy.path=CHECKPOINT --env.type=NAME"
            )
        conditions = {f"version of {name}": number for name, number in facts["versions"].items()}
        conditions["renderer (MUJOCO_GL)"] = facts.get("renderer", "")
        env = facts["config"].get("env") or {}
        found.append(
            conditions | {f"--env.{name}": value for name, value in env.items() if name not in NO_CONDITIONS}
        )
    ours, theirs = found
    different = [
        f"{what}: {ours.get(what, 'absent')} and {theirs.get(what, 'absent')}"
        for what in dict.fromkeys([*ours, *theirs])
        if ours.get(what) != theirs.get(what)
    ]
    if different:
        raise ConfigError(
            f"{names[0]} and {names[1]} were evaluated under different conditions. {'; '.join(different)}. "
            "Evaluate both at once: lerobot-eval --compare=CHECKPOINT_A,CHECKPOINT_B --env.type=NAME"
        )
