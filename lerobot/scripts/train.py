"""Train a policy on a dataset.

lerobot-train --dataset.repo_id=me/so101_pick --policy.type=act --output_dir=outputs/train/act_pick
lerobot-train --output_dir=outputs/train/act_pick --resume=true
"""

from collections.abc import Sequence
from pathlib import Path

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.command import command
from lerobot.core.flags import parse
from lerobot.training.config import TrainConfig, complete
from lerobot.training.origin import find_config


def train(args: TrainConfig | Sequence[str] | None = None) -> Path:
    """Train as a config, a list of flags or the command line (None) says; returns the last checkpoint."""
    if isinstance(args, TrainConfig):
        cfg = args
    else:
        cfg = parse(
            TrainConfig,
            args,
            program="lerobot-train",
            aliases=TRAIN_ALIASES,
            complete=complete,
            find=find_config,
        )
    from lerobot.training.loop import train as run  # torch loads here, after the flags were understood

    return run(cfg)


@command
def main() -> None:
    """Entry point of `lerobot-train`."""
    train()


if __name__ == "__main__":
    main()
