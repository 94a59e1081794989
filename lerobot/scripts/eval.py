"""Measure a trained policy in simulation, or on a dataset; or compare two in the same episodes.

lerobot-eval --policy.path=outputs/train/act/checkpoints/last --env.type=so101 --eval.n_episodes=50
lerobot-eval --policy.path=${HF_USER}/act_policy --dataset.repo_id=${HF_USER}/test_dataset --num_episodes=10
lerobot-eval --compare=outputs/train/a,outputs/train/b --env.type=so101 --eval.n_episodes=100
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lerobot.core.aliases import EVAL_ALIASES
from lerobot.core.command import command
from lerobot.core.flags import parse
from lerobot.evaluation.config import EvalPipelineConfig, complete

if TYPE_CHECKING:
    from lerobot.evaluation.comparison import Comparison
    from lerobot.evaluation.replay_result import ReplayResult
    from lerobot.evaluation.result import EvalResult


def evaluate(
    args: EvalPipelineConfig | Sequence[str] | None = None,
) -> "EvalResult | ReplayResult | Comparison":
    """Evaluate as a config, a list of flags, or (None) the command line says; tells where the report is."""
    if isinstance(args, EvalPipelineConfig):
        cfg = args
    else:
        cfg = parse(EvalPipelineConfig, args, program="lerobot-eval", aliases=EVAL_ALIASES, complete=complete)
    # The policy's threads would wait busily for their next work and take the cores from the environments.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rich.console import Console

    from lerobot.evaluation.console import table
    from lerobot.evaluation.job import numbers_file, run  # torch loads here, after the flags were understood

    result, report = run(cfg)
    shown = table(result)
    if shown is not None:
        Console().print(shown)
    rows = {**result.rows, "numbers": str(numbers_file(report, result)), "report": str(report)}
    for name, text in rows.items():
        print(f"{name:<13} {text}")
    return result


@command
def main() -> None:
    """Entry point of `lerobot-eval`."""
    evaluate()


if __name__ == "__main__":
    main()
