"""What an evaluation says on the terminal: a few lines, and a table where there are several tasks.

EvalResult, ReplayResult or Comparison -> table -> rich
"""

from typing import TYPE_CHECKING

from lerobot.evaluation.comparison import Comparison, paired
from lerobot.evaluation.replay_result import ReplayResult
from lerobot.evaluation.result import EvalResult, aggregate, task_name
from lerobot.evaluation.rollout_page import between

if TYPE_CHECKING:
    from rich.table import Table


def table(result: EvalResult | ReplayResult | Comparison) -> "Table | None":
    """A row per task, per group and for all; None where there is one task."""
    if isinstance(result, ReplayResult) or len(result.tasks) < 2:
        return None
    return comparison_table(result) if isinstance(result, Comparison) else task_table(result)


def task_table(result: EvalResult) -> "Table":
    """Success and returns of tasks and groups."""
    found = _table("task", "episodes", "success", "95 % interval", "return", "steps")
    rows = [(task_name(key), aggregate(part)) for key, part in result.tasks.items()]
    groups = [(name, aggregate(part)) for name, part in result.groups.items()]
    sections = [rows, groups if len(groups) > 1 else [], [("all", result.overall)]]
    for section in sections:
        for name, means in section:
            found.add_row(
                name,
                str(means["n_episodes"]),
                f"{means['success_rate']:.1%}",
                between(means["success_rate_interval"], ".1%"),
                f"{means['avg_sum_reward']:.4g}",
                f"{means['avg_steps']:.0f}",
            )
        found.add_section()
    return found


def comparison_table(comparison: Comparison) -> "Table":
    """Success of A and B, and its difference, task by task."""
    found = _table("task", "episodes", "A", "B", "B minus A", "95 % interval", "McNemar p")
    tasks = [(task_name(key), paired(part)) for key, part in comparison.tasks.items()]
    for section in (tasks, [("all", comparison.overall)]):
        for name, numbers in section:
            interval = [100 * end for end in numbers["success_rate_difference_interval"]]
            found.add_row(
                name,
                str(numbers["n_episodes"]),
                f"{numbers['a']['success_rate']:.1%}",
                f"{numbers['b']['success_rate']:.1%}",
                f"{100 * numbers['success_rate_difference']:+.1f}",
                between(interval, "+.1f"),
                f"{numbers['mcnemar_p']:.3g}",
            )
        found.add_section()
    return found


def _table(first: str, *others: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    found = Table(box=SIMPLE)
    found.add_column(first, overflow="fold")
    for name in others:
        found.add_column(name, justify="right", no_wrap=True)
    return found
