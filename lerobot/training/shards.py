"""Shards of a policy and its optimizer in a checkpoint: each process writes its own, and a resumed run cuts anew.

    .shards_200/ written by all processes, at once  ->  moved into 000200/ by the first one's writer
"""

import shutil
from pathlib import Path

from torch import Tensor

from lerobot.core import keys
from lerobot.distributed.gather import (
    SHARDED_MODEL,
    SHARDED_OPTIMIZER,
    cut_state,
    full_state_dict,
    has_sharded_optimizer,
    load_sharded,
    save_sharded,
)
from lerobot.distributed.shard import is_sharded
from lerobot.optim.state import load_optimizer_state
from lerobot.training.run import Run
from lerobot.training.saver import explained

PREFIX = ".shards_"


def whole_weights(run: Run) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds of the policy, on the main process; every process enters."""
    if is_sharded(run.policy):
        return full_state_dict(run.policy, keep=run.world.is_main)
    return run.policy.saved_weights()


def write_shards(run: Run) -> Path | None:
    """The folder with the shards of all processes, which enter together; None where nothing is cut.

    Raises:
        TrainingError: the disk of one of them refused.
    """
    if not is_sharded(run.policy):
        return None
    checkpoints = run.output_dir / keys.CHECKPOINTS_FOLDER
    folder = checkpoints / f"{PREFIX}{run.step}"
    if run.world.is_main:
        run.saver.wait()  # it moves the shards of the checkpoint before this one
        for left in checkpoints.glob(f"{PREFIX}*"):  # by a run that was killed
            shutil.rmtree(left)
    run.world.wait()
    try:
        save_sharded(folder, run.policy, run.optimizer)
    except OSError as error:
        raise explained(error) from error
    return folder


def move_shards(shards: Path | None, checkpoint: Path) -> None:
    """Move what `write_shards` wrote into a checkpoint's folder."""
    if shards is None:
        return
    for part in (SHARDED_MODEL, SHARDED_OPTIMIZER):
        (shards / part).rename(checkpoint / part)
    shutil.rmtree(shards)


def restore_optimizer(run: Run, checkpoint: Path) -> None:
    """Bring the optimizer to where a checkpoint stood, whether that or this run is in shards.

    Raises:
        CheckpointError: it is damaged, or of another model.
    """
    if has_sharded_optimizer(checkpoint):
        load_sharded(checkpoint, run.policy, run.optimizer)
        return
    load_optimizer_state(run.optimizer, checkpoint / keys.TRAINING_STATE_FOLDER)
    cut_state(run.optimizer)
