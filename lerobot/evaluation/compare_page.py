"""The parts of a page about two policies in the same episodes: the difference, by task, spread, videos.

Comparison -> compare_parts -> ["<div ...", ...] -> page.document
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.evaluation import page
from lerobot.evaluation.bars import Measured, forest, histogram
from lerobot.evaluation.comparison import Comparison, Pair, paired
from lerobot.evaluation.result import task_name
from lerobot.evaluation.rollout_page import EMBEDDED_BYTES, OPEN_ROWS, between, video_caption

SHOWN_PAIRS = 6  # of videos


def compare_parts(comparison: Comparison, folder: Path) -> list[str]:
    """Headline, facts, the difference by task, both returns, videos side by side, episodes.

    Args:
        folder: where the page will lie.
    """
    found = comparison.overall
    rows = [difference_row("all", found)]
    if len(comparison.tasks) > 1:
        rows += [difference_row(task_name(key), paired(part)) for key, part in comparison.tasks.items()]
    returns = {
        name: [pair[side].sum_reward for pair in comparison.pairs] for side, name in enumerate(("A", "B"))
    }
    changes = {"B minus A": [b.sum_reward - a.sum_reward for a, b in comparison.pairs]}
    charts = [
        histogram("returns of A", {"A": returns["A"]}, x_label="sum of rewards of an episode"),
        histogram("returns of B", {"B": returns["B"]}, x_label="sum of rewards of an episode"),
        histogram("difference of returns", changes, x_label="B minus A, episode by episode"),
    ]
    return [
        page.headline(f"{100 * found['success_rate_difference']:+.0f} points", verdict(found)),
        page.facts(comparison.rows),
        page.section("Difference of success", forest("B minus A", rows, low=-1.0, high=1.0, mark=0.0)),
        page.section("Success, episode by episode", agreement_table(found)),
        page.section("Returns", page.grid(charts, is_wide=True)),
        *([task_table(comparison)] if len(comparison.tasks) > 1 else []),
        video_part(comparison, folder),
        page.section("Episodes", episode_table(comparison)),
    ]


def verdict(found: Mapping[str, Any]) -> str:
    """What the numbers allow to say."""
    low, high = found["success_rate_difference_interval"]
    better = "B succeeds more often than A" if low > 0 else "A succeeds more often than B" if high < 0 else ""
    said = f"{better}." if better else "These episodes do not tell which of the two succeeds more often."
    return (
        f"{said} B minus A is {100 * found['success_rate_difference']:+.1f} points of success; the true "
        f"difference lies between {100 * low:+.1f} and {100 * high:+.1f} (95 % interval for paired episodes, "
        f"Newcombe). In {found['n_only_b']} episodes only B succeeded and in {found['n_only_a']} only A; "
        f"policies of equal success would disagree so unevenly with probability {found['mcnemar_p']:.3g} "
        "(McNemar, exact)."
    )


def difference_row(name: str, found: Mapping[str, Any]) -> Measured:
    """The difference of success as a row of a forest."""
    low, high = found["success_rate_difference_interval"]
    text = f"{100 * found['success_rate_difference']:+.0f}  ({100 * low:+.0f} to {100 * high:+.0f}) points"
    return Measured(name, found["success_rate_difference"], low, high, text)


def agreement_table(found: Mapping[str, Any]) -> str:
    """How often both, one or none succeeded."""
    return page.table(
        ["", "B succeeded", "B did not"],
        [
            ["A succeeded", str(found["n_both"]), str(found["n_only_a"])],
            ["A did not", str(found["n_only_b"]), str(found["n_neither"])],
        ],
    )


def task_table(comparison: Comparison) -> str:
    """All numbers of every task, behind a click."""
    cells = []
    for key, part in comparison.tasks.items():
        found = paired(part)
        cells.append(
            [
                task_name(key),
                str(found["n_episodes"]),
                f"{found['a']['success_rate']:.0%}",
                f"{found['b']['success_rate']:.0%}",
                f"{100 * found['success_rate_difference']:+.0f}",
                f"{found['mcnemar_p']:.3g}",
                f"{found['avg_sum_reward_difference']:+.3g}",
                between(found["avg_sum_reward_difference_interval"], "+.3g"),
            ]
        )
    header = ["task", "episodes", "A", "B", "points", "McNemar p", "return, B - A", "95 % interval"]
    return page.fold("All numbers of the tasks", page.table(header, cells))


def video_part(comparison: Comparison, folder: Path) -> str:
    """Videos of both side by side, those episodes first in which the policies differ."""
    filmed = [pair for pair in comparison.pairs if all(one.video and one.video.is_file() for one in pair)]
    filmed.sort(key=lambda pair: pair[0].success == pair[1].success)
    figures, left = [], EMBEDDED_BYTES
    for pair in filmed[:SHOWN_PAIRS]:
        for name, episode in zip("AB", pair, strict=True):
            assert episode.video is not None
            left -= episode.video.stat().st_size
            words = video_caption(episode, has_tasks=len(comparison.tasks) > 1)
            figures.append(
                page.video(episode.video, f"{name}. {words}", relative_to=folder, is_embedded=left >= 0)
            )
    return page.section("A beside B", page.grid(figures, is_wide=True))


def episode_table(comparison: Comparison) -> str:
    """A row per episode; many of them behind a click."""
    header = ["episode", "seed", "A", "B", "return of A", "return of B", "B minus A"]
    marks = {"yes": "good", "no": "bad"}
    table = page.table(
        header,
        [episode_row(pair, has_tasks=len(comparison.tasks) > 1) for pair in comparison.pairs],
        marks=marks,
    )
    many = len(comparison.pairs) > OPEN_ROWS
    return page.fold(f"All {len(comparison.pairs)} episodes", table) if many else table


def episode_row(pair: Pair, *, has_tasks: bool) -> list[str]:
    """The cells of an episode."""
    a, b = pair
    return [
        a.name if has_tasks else str(a.index),
        str(a.seed),
        *("yes" if one.success else "no" for one in pair),
        *(f"{one.sum_reward:.3f}" for one in pair),
        f"{b.sum_reward - a.sum_reward:+.3f}",
    ]
