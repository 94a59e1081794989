"""Sharded weights and optimizer states: made whole again, or written by all processes together (DCP).

    pretrained_model/pytorch_model_fsdp_0/    {"model": name -> weight}            a shard per process
    training_state/optimizer_0/               {"optimizer": name -> state}

Every process enters each of these functions. They also work on a model that is not sharded, in one process: a
run in shards goes on with any number of processes, one included.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from lerobot.core import keys
from lerobot.core.errors import CheckpointError

SHARDED_MODEL = Path(keys.PRETRAINED_FOLDER) / "pytorch_model_fsdp_0"
SHARDED_OPTIMIZER = Path(keys.TRAINING_STATE_FOLDER) / "optimizer_0"


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process holds a part, in full; other tensors as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def full_state_dict(module: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """The weights in full, on the CPU; names of the same weight share it. Empty without `keep`.

    One weight at a time is put together on the device; processes that do not write need not keep them.
    """
    found: dict[int, Tensor] = {}
    weights = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in found:
            full = whole(value.detach())
            found[id(value)] = full.cpu() if keep else full.new_empty(0)
        weights[name] = found[id(value)]
    return weights if keep else {}


def cut_state(optimizer: Optimizer) -> None:
    """Cut the state of an optimizer that was loaded in full as its parameters are cut."""
    for parameter, own in optimizer.state.items():
        if not isinstance(parameter, DTensor):
            continue
        for name, value in own.items():
            if (
                isinstance(value, Tensor)
                and not isinstance(value, DTensor)
                and value.shape == parameter.shape
            ):
                own[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)


def save_sharded(checkpoint: Path, module: nn.Module, optimizer: Optimizer) -> None:
    """Write weights and optimizer state below a checkpoint's folder, each process its own shards.

    Raises:
        OSError: of the first process that could not write.
    """
    _together(
        lambda: dcp.save({"model": get_model_state_dict(module)}, checkpoint_id=checkpoint / SHARDED_MODEL)
    )
    state = get_optimizer_state_dict(module, optimizer)
    _together(lambda: dcp.save({"optimizer": state}, checkpoint_id=checkpoint / SHARDED_OPTIMIZER))


def has_sharded_optimizer(checkpoint: Path) -> bool:
    """Whether `save_sharded` wrote the optimizer's state there."""
    return (checkpoint / SHARDED_OPTIMIZER / ".metadata").is_file()


def load_sharded(checkpoint: Path, module: nn.Module, optimizer: Optimizer) -> None:
    """Bring the optimizer to where `save_sharded` left it, with whatever number of processes that was.

    Raises:
        CheckpointError: shards are missing or damaged, or belong to another model.
    """
    state = get_optimizer_state_dict(module, optimizer)
    folder = checkpoint / SHARDED_OPTIMIZER
    try:
        is_alone = not dist.is_initialized()
        _together(lambda: dcp.load({"optimizer": state}, checkpoint_id=folder, no_dist=is_alone))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({_first_line(error)}): shards are missing, or it is of another model."
        ) from error
    set_optimizer_state_dict(module, optimizer, state)


def read_sharded_weights(folder: Path) -> dict[str, Tensor]:
    """The full weights of a `pytorch_model_fsdp_0` folder, on the CPU, in one process.

    Raises:
        CheckpointError: it is no such folder, or damaged.
    """
    if not (folder / ".metadata").is_file():
        raise CheckpointError(f"{folder} holds no sharded weights: a file called .metadata is missing.")
    try:
        described = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        names = [name for name in described if name.startswith("model.")]
        weights = {name: _empty(described[name]) for name in names}
        _together(lambda: dcp.load(weights, checkpoint_id=folder, no_dist=True))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be read ({_first_line(error)}): copy it again.") from error
    return {name.removeprefix("model."): value for name, value in weights.items()}


def _empty(described: Any) -> Tensor:
    return torch.empty(described.size, dtype=described.properties.dtype)


def _together(work: Callable[[], object]) -> None:
    """Do what all processes do; an error of one of them is raised as itself, in each."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process needs none
            work()
    except CheckpointException as error:  # no Exception, but a BaseException with those of all ranks
        raise next(cause for cause, _ in error.failures.values()) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
