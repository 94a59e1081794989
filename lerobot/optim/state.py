"""Where an optimizer and its schedule stand, in the files of a checkpoint's `training_state` folder.

    optimizer_state.safetensors     state/<parameter index>/exp_avg, .../exp_avg_sq, .../step
                                    a dict inside (8-bit optimizers) adds its name; whole numbers are I64 ()
    optimizer_param_groups.json     [{"lr": ..., ..., "params": [0, 1, ...]}, ...]
    scheduler_state.json            {"last_epoch": ..., "base_lrs": [...], ...}

Several optimizers (a dict) have one sub-folder each. Reading is tolerant where torch releases differ (a
group gained or lost a key, a number is an int here and a float there) and strict where the model differs.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors.torch import load_file, save_file

from lerobot.core.errors import CheckpointError
from lerobot.core.files import write_json

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

logger = logging.getLogger(__name__)

STATE_FILE = "optimizer_state.safetensors"
GROUPS_FILE = "optimizer_param_groups.json"
SCHEDULER_FILE = "scheduler_state.json"

# How a step is computed, not what it computes: these stay as the new optimizer has them.
IMPLEMENTATION_KEYS = ("foreach", "fused", "capturable", "differentiable")
# Keys that only a stored group may have, because a schedule or a caller added them.
ADDED_KEYS = ("initial_lr", "name")
# State of the shape of its parameter; other state (step counters) has its own.
SHAPED_LIKE_PARAMETER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "state1", "state2")


# ---------------------------------------------------------------------------------- optimizer
class HasState(Protocol):
    """An optimizer or a schedule, or what one of them was at an earlier instant."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""


def save_optimizer_state(optimizer: "HasState | Mapping[str, HasState]", folder: Path) -> None:
    """Write the state of one optimizer into `folder`, or of several into one sub-folder each."""
    if isinstance(optimizer, Mapping):
        for name, one in optimizer.items():
            save_optimizer_state(one, folder / name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    tree = optimizer.state_dict()
    save_file(
        _apart({f"state/{name}": value for name, value in flat(tree["state"]).items()}), folder / STATE_FILE
    )
    # Chosen by the device of this machine, not by the next one's: null lets each loader choose.
    chosen_here = {"foreach": None, "fused": None}
    groups = [
        {**group, **{k: v for k, v in chosen_here.items() if k in group}} for group in tree["param_groups"]
    ]
    write_json(folder / GROUPS_FILE, groups)


def flat(state: Mapping, place: str = "") -> "dict[str, Tensor]":
    """The tensors of nested dicts by their places (`0/exp_avg`); whole numbers become I64 scalars."""
    import torch

    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            tensors |= flat(value, f"{place}{name}/")
        elif value is not None:  # SGD without momentum stores an empty buffer
            tensors[f"{place}{name}"] = torch.as_tensor(value)
    return tensors


def nested(tensors: "Mapping[str, Tensor]") -> dict[int, dict[str, Any]]:
    """The reverse of `flat`: parameter index -> name -> tensor, whole number, or dict of these."""
    state: dict[int, dict[str, Any]] = {}
    for place, value in tensors.items():
        index, *outer, name = place.split("/")
        own = state.setdefault(int(index), {})
        for part in outer:
            own = own.setdefault(part, {})
        is_number = value.dim() == 0 and not value.is_floating_point()  # torch's own counters are F32
        own[name] = value.item() if is_number else value
    return state


def _apart(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors on the CPU; those that share memory are copied: they cannot be stored side by side."""
    found, places = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        is_alone = value.untyped_storage().nbytes() == value.nbytes and value.data_ptr() not in places
        places.add(value.data_ptr())
        found[name] = value if is_alone else value.clone()
    return found


def load_optimizer_state(optimizer: "Optimizer | Mapping[str, Optimizer]", folder: Path) -> None:
    """Bring an optimizer, built anew for the same parameters, to where the stored one stood.

    One of several optimizers whose sub-folder is missing stays fresh, with a warning.

    Raises:
        CheckpointError: a file is missing or damaged, or groups, parameters or shapes differ.
    """
    if isinstance(optimizer, Mapping):
        for name, one in optimizer.items():
            if (folder / name).is_dir():
                load_optimizer_state(one, folder / name)
            else:
                logger.warning("%s has no state of the optimizer %r, which starts afresh.", folder, name)
        return
    fresh = optimizer.state_dict()
    groups = read_json(folder / GROUPS_FILE, list)
    merged = _merge_groups(fresh["param_groups"], groups, folder / GROUPS_FILE)
    state = _read_state(folder / STATE_FILE)
    _check_shapes(state, optimizer, merged, folder / STATE_FILE)
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def _merge_groups(fresh: list[dict], stored: list[dict], path: Path) -> list[dict]:
    """The fresh groups with the stored values."""
    if len(fresh) != len(stored):
        raise CheckpointError(
            f"{path} has {len(stored)} parameter groups, this optimizer {len(fresh)}. Was another policy or "
            "another optimizer trained there?"
        )
    merged = []
    for index, (new, old) in enumerate(zip(fresh, stored, strict=True)):
        if not isinstance(old, dict) or len(old.get("params", ())) != len(new["params"]):
            raise CheckpointError(
                f"{path}: group {index} has {len(old.get('params', ()))} parameters, this model has "
                f"{len(new['params'])}. Was the model built from another config, or are other layers frozen?"
            )
        unknown = [key for key in old if key not in new and key not in ADDED_KEYS]
        if unknown:
            logger.warning("%s, group %d: unknown keys are left out: %s", path, index, ", ".join(unknown))
        values = {
            key: _alike(value, old[key], f"{path}, group {index}, {key}")
            for key, value in new.items()
            if key in old and key not in IMPLEMENTATION_KEYS
        }
        added = {key: old[key] for key in ADDED_KEYS if key in old}
        merged.append({**new, **added, **values, "params": old["params"]})
    return merged


def _alike(fresh: Any, stored: Any, where: str) -> Any:
    """The stored value in the type of the fresh one.

    Raises:
        CheckpointError: it is something else altogether.
    """
    if isinstance(fresh, (list, tuple)):
        if not isinstance(stored, (list, tuple)):
            raise CheckpointError(f"{where} is {stored!r}; expected a list such as {list(fresh)}.")
        return type(fresh)(stored)
    is_number = isinstance(stored, (int, float)) and not isinstance(stored, bool)
    if isinstance(fresh, float) and is_number:
        return float(stored)
    if (
        fresh is None
        or stored is None
        or isinstance(stored, type(fresh))
        or (isinstance(fresh, int) and is_number)
    ):
        return stored
    raise CheckpointError(f"{where} is {stored!r}; expected something like {fresh!r}.")


def _read_state(path: Path) -> dict[int, dict[str, Any]]:
    """Parameter index -> name -> tensor, whole number, or dict of these."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; training cannot be resumed without it.")
    tensors: dict[str, Tensor] = {}
    for key, value in load_file(path).items():
        head, *rest = key.split("/")
        if head != "state" or len(rest) < 2 or not rest[0].isdigit() or not all(rest):
            raise CheckpointError(f"{path} holds {key!r}; expected names such as state/0/exp_avg.")
        tensors["/".join(rest)] = value
    return nested(tensors)


def _check_shapes(
    state: "dict[int, dict[str, Any]]", optimizer: "Optimizer", groups: list, path: Path
) -> None:
    """Raise CheckpointError when the state is that of other parameters."""
    shapes = {
        index: tuple(param.shape)
        for group, own in zip(groups, optimizer.param_groups, strict=True)
        for index, param in zip(group["params"], own["params"], strict=True)
    }
    for index, own in state.items():
        if index not in shapes:
            raise CheckpointError(
                f"{path} has state of parameter {index}; this model has {len(shapes)} of them."
            )
        inner: list[dict[str, Any]] = [value for value in own.values() if isinstance(value, dict)]
        leaves = {name: value for part in (own, *inner) for name, value in part.items()}
        for name in SHAPED_LIKE_PARAMETER:
            if name in leaves and tuple(leaves[name].shape) != shapes[index]:
                raise CheckpointError(
                    f"{path}: {name} of parameter {index} has shape {tuple(leaves[name].shape)}, the "
                    f"parameter {shapes[index]}. Was the model built from another config?"
                )


# ---------------------------------------------------------------------------------- scheduler
def save_scheduler_state(scheduler: HasState, folder: Path) -> None:
    """Write where a learning-rate schedule stands."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SCHEDULER_FILE, scheduler.state_dict())


def load_scheduler_state(scheduler: "LRScheduler", folder: Path) -> None:
    """Bring a schedule, built anew, to where the stored one stood.

    Raises:
        CheckpointError: the file is missing or damaged, or it is of a schedule with other groups.
    """
    path = folder / SCHEDULER_FILE
    stored, fresh = read_json(path, dict), scheduler.state_dict()
    if "last_epoch" not in stored:
        raise CheckpointError(f"{path} has no last_epoch: it is not the state of a learning-rate schedule.")
    for key in ("base_lrs", "_last_lr"):
        if key in stored and key in fresh and len(stored[key]) != len(fresh[key]):
            raise CheckpointError(
                f"{path}: {key} is of {len(stored[key])} parameter groups, not of {len(fresh[key])}."
            )
    known = {
        key: _alike(value, stored[key], f"{path}, {key}")
        for key, value in fresh.items()
        if key in stored and key != "lr_lambdas"  # functions are code, stored as null: the fresh ones stay
    }
    scheduler.load_state_dict({**fresh, **known})


def read_json(path: Path, kind: type) -> Any:
    """The content of a JSON file.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something other than `kind`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; training cannot be resumed without it.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; expected a {kind.__name__}.")
    return value
