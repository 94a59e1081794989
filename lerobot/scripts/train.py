"""Train a policy on a dataset, or on what it does in an environment.

lerobot-train --dataset.repo_id=me/so101_pick --policy.type=act --output_dir=outputs/train/act_pick
lerobot-train --output_dir=outputs/train/act_pick --resume=true
lerobot-train --policy.type=tdmpc --env.type=gym --env.task=Pendulum-v1 --online_training=true

With several visible GPUs one process per GPU is started; --num_processes=1 says no.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.command import LAUNCHED, command
from lerobot.core.flags import parse
from lerobot.distributed.launch import launch, processes_to_start
from lerobot.training.config import TrainConfig, complete
from lerobot.training.global_batch import per_process
from lerobot.training.origin import find_config

MODULE = "lerobot.scripts.train"


def train(args: TrainConfig | Sequence[str] | None = None) -> Path:
    """Train in this process as a config, a list of flags or the command line (None) says.

    Returns the folder of the last checkpoint.
    """
    cfg = args if isinstance(args, TrainConfig) else read(args)
    if cfg.online_training:  # torch loads here, after the flags were understood
        from lerobot.rl.learner import train as run
    else:
        from lerobot.training.loop import train as run
    return run(cfg)


def read(words: Sequence[str] | None) -> TrainConfig:
    """The config that flags, or the command line (None), describe."""
    return parse(
        TrainConfig,
        words,
        program="lerobot-train",
        aliases=TRAIN_ALIASES,
        complete=complete,
        find=find_config,
    )


@command
def main() -> None:
    """Entry point of `lerobot-train`."""
    words = sys.argv[1:]
    if LAUNCHED in os.environ:  # what there is to say of the flags was said before this process was started
        logging.disable(logging.WARNING)
    cfg = read(words)
    logging.disable(logging.NOTSET)
    assert cfg.policy is not None
    count = 1 if cfg.online_training else processes_to_start(cfg.num_processes, device=cfg.policy.device)
    if count > 1:
        per_process(cfg, num_processes=count)  # said here once, not by every process
        launch(count, module=MODULE, words=words)
    else:
        train(cfg)


if __name__ == "__main__":
    main()
