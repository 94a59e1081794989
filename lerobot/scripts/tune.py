"""Search the settings of a training run that train best.

lerobot-tune --dataset.repo_id=me/so101_pick --dataset.eval_split=0.1 --policy.type=act --eval_steps=500 \
             --steps=5000 --space.policy.optimizer_lr="log[1e-6,1e-3]" --space.batch_size="{8,16,32}" \
             --output_dir=outputs/tune/act
lerobot-tune --resume=true --output_dir=outputs/tune/act --n_trials=40
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lerobot.core.command import command
from lerobot.core.help import describe
from lerobot.search.config import TuneConfig, parse_search

if TYPE_CHECKING:
    from lerobot.search.results import Results


def tune(args: TuneConfig | Sequence[str] | None = None) -> "Results":
    """Search as a config, a list of flags or the command line (None) says; gives what was found."""
    words = sys.argv[1:] if args is None else args
    if isinstance(words, TuneConfig):
        cfg = words
    else:
        if {"-h", "--help"} & set(words):
            print(describe(TuneConfig, {}, program="lerobot-tune"))
            print(
                "\nEvery flag of lerobot-train is one of all trials: lerobot-train --help --policy.type=NAME"
            )
            raise SystemExit(0)
        cfg = parse_search(words)
    from lerobot.search.study import tune as run  # Optuna loads here, after the flags were understood

    return run(cfg)


@command
def main() -> None:
    """Entry point of `lerobot-tune`."""
    tune()


if __name__ == "__main__":
    main()
