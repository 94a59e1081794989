"""A policy's tensors in `model.safetensors`: written once per storage, read strictly.

state dict -> one name per shared tensor -> file           metadata: {name left out: name kept}
file -> names of this release -> compared with the model -> model
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.core.files import reading, write_atomically

logger = logging.getLogger(__name__)

COMPILED = "_orig_mod."  # what torch.compile puts into names


def write_weights(model: nn.Module, folder: Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the state dict, or `weights` in its place.

    Of names that share a tensor the alphabetically first one is kept.
    """
    given = model.state_dict() if weights is None else weights
    tensors = {name.replace(COMPILED, ""): value for name, value in given.items()}
    kept_by_name = {name: group[0] for group in aliases(tensors) for name in group[1:]}
    unique = {name: value.contiguous() for name, value in tensors.items() if name not in kept_by_name}
    metadata = {"format": "pt", **kept_by_name} if kept_by_name else None
    write_atomically(folder / keys.WEIGHTS_FILE, lambda part: save_file(unique, part, metadata=metadata))


def aliases(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Groups of two and more names of the very same tensor, sorted."""
    groups = defaultdict(list)
    for name, value in tensors.items():
        if value.numel():
            groups[value.data_ptr(), value.device, value.shape, value.stride(), value.dtype].append(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder on the CPU, names left out at saving filled in.

    Raises:
        CheckpointError: there is no `model.safetensors`, or it is damaged.
    """
    path = folder / keys.WEIGHTS_FILE
    if not path.is_file():
        there = sorted(item.name for item in folder.iterdir())
        hint = " It is an adapter without its base model." if keys.ADAPTER_CONFIG_FILE in there else ""
        raise CheckpointError(f"{folder} holds no {keys.WEIGHTS_FILE}.{hint} It holds: {', '.join(there)}.")
    try:
        with reading(folder / keys.CONFIG_FILE), safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            left_out = {name: kept for name, kept in (file.metadata() or {}).items() if kept in weights}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): it is damaged or cut short. Copy it again."
        ) from error
    weights |= {name: weights[kept] for name, kept in left_out.items()}
    return {name.replace(COMPILED, ""): value for name, value in weights.items()}


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, source: str, strict: bool = True
) -> None:
    """Copy the tensors into the model; a name may be absent where another name of the same tensor is given.

    Raises:
        CheckpointError: weights are missing, left over or of another shape (without `strict`: other shapes
            only).
    """
    wanted = model.state_dict()
    given = wanted.keys() & weights.keys()
    filled = {name for group in aliases(wanted) if given & set(group) for name in group}
    missing = [name for name in wanted if name not in given and name not in filled]
    unexpected = [name for name in weights if name not in wanted]
    misfits = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and weights[name].shape != wanted[name].shape
    ]
    problems = [
        *([f"{len(missing)} weights are missing ({by_module(missing)})"] if missing else []),
        *([f"{len(unexpected)} are left over ({by_module(unexpected)})"] if unexpected else []),
        *([f"{len(misfits)} have another shape ({'; '.join(misfits[:3])})"] if misfits else []),
    ]
    if misfits or (problems and strict):
        raise CheckpointError(
            f"{source} does not fit this policy: {'; '.join(problems)}. Is --policy.type right, and are the "
            "sizes in "
            "config.json those of the weights? Parts that are meant to be new need strict=False."
        )
    if problems:
        logger.warning("%s: %s.", source, "; ".join(problems))
    with torch.no_grad():
        for name in given:
            wanted[name].copy_(weights[name])


def by_module(names: Iterable[str], *, most: int = 6) -> str:
    """Names grouped by the module they belong to: 'model.encoder.layers.0: 12, model.action_head: 2'."""
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        parts = name.split(".")
        depth = next((i for i, part in enumerate(parts) if part.isdecimal()), min(2, len(parts) - 1))
        counts[".".join(parts[: max(1, depth)])] += 1
    shown = [f"{module}: {count}" for module, count in list(counts.items())[:most]]
    return ", ".join(shown) + (", …" if len(counts) > most else "")
