"""Shards of a policy and its optimizer in a checkpoint: each process writes its own, a resumed run cuts anew.

.shards_200/ written by all processes, at once  ->  moved into 000200/ by the first one's writer
"""

import shutil
from copy import deepcopy
from pathlib import Path

from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.core.files import write_json
from lerobot.distributed.gather import (
    SHARDED_MODEL,
    SHARDED_OPTIMIZER,
    cut_state,
    full_state_dict,
    has_sharded_optimizer,
    load_sharded,
    read_sharded_weights,
    save_sharded,
)
from lerobot.distributed.shard import is_sharded
from lerobot.optim.state import load_optimizer_state, read_json
from lerobot.policies.classes import get_policy_class
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.policies.weights import load_weights, write_weights
from lerobot.training.checkpoints.checkpoint import MANIFEST_FILE
from lerobot.training.checkpoints.saver import explained
from lerobot.training.run import Run

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


def put_together(checkpoint: Path, *, delete: bool = False) -> Path:
    """Write `model.safetensors` from the policy's shards in a checkpoint, or in its `pretrained_model`.

    Args:
        delete: remove the shards when that is done; those of the optimizer stay, a resumed run needs them.

    Raises:
        CheckpointError: there are no shards, or they are damaged, or not those of the policy of config.json.
    """
    folders = (checkpoint / SHARDED_MODEL, checkpoint / SHARDED_MODEL.name)
    shards = next((folder for folder in folders if folder.is_dir()), None)
    if shards is None:
        raise CheckpointError(
            f"{checkpoint} holds no {SHARDED_MODEL.name}. Give a checkpoint, .../checkpoints/002000, or its "
            f"{keys.PRETRAINED_FOLDER}."
        )
    folder = shards.parent
    policy = bare_policy(PreTrainedConfig.from_pretrained(folder))
    load_weights(policy, policy.rename_weights(read_sharded_weights(shards)), source=str(shards))
    write_weights(policy, folder)
    if delete:
        shutil.rmtree(shards)
        _forget(folder.parent, beginning=SHARDED_MODEL.as_posix())
    return folder / keys.WEIGHTS_FILE


def _forget(checkpoint: Path, *, beginning: str) -> None:
    """Take files that were removed out of the checkpoint's manifest, where it has one."""
    manifest = checkpoint / MANIFEST_FILE
    if not manifest.is_file():
        return
    tree = read_json(manifest, dict)
    tree["files"] = {name: mark for name, mark in tree["files"].items() if not name.startswith(beginning)}
    write_json(manifest, tree)


def acting_policy(run: Run) -> PreTrainedPolicy:
    """The policy to roll out: one in shards is put together, since episodes of processes differ in length."""
    if not is_sharded(run.policy):
        return run.evaluated_policy
    policy = bare_policy(deepcopy(run.policy.config))
    policy.load_state_dict(full_state_dict(run.policy))
    return policy.to(run.world.device).eval()


def bare_policy(config: PreTrainedConfig) -> PreTrainedPolicy:
    """A new policy whose weights are going to be replaced."""
    kind = get_policy_class(config.type)
    return kind(config, **({"initial_weights": False} if kind.has_initial_weights else {}))
