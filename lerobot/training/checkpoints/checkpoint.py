"""Checkpoints of a run: written whole or not at all, found again, verified, and resumed from.

    <output_dir>/checkpoints/
        000200/pretrained_model/    config, weights, pipelines: what the Hub holds of a policy
              /training_state/      step, optimizer, schedule, random states, extra_state.json
              /manifest.json        size and SHA-256 of every file; other releases ignore it
        last -> 000200

A checkpoint is written under a hidden name, forced to disk and renamed; only then `last` moves. A process
killed at any instant leaves `last` on a complete checkpoint, plus hidden folders that the next save removes.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.core.files import follow_pointer, part_path, reading, sync_file, sync_folders, write_json
from lerobot.optim.rng import RngState, load_rng_state, save_rng_state
from lerobot.optim.state import (
    SCHEDULER_FILE,
    HasState,
    load_optimizer_state,
    load_scheduler_state,
    read_json,
    save_optimizer_state,
    save_scheduler_state,
)

logger = logging.getLogger(__name__)

STEP_FILE = "training_step.json"
EXTRA_FILE = "extra_state.json"
MANIFEST_FILE = "manifest.json"
EMA_FOLDER = "pretrained_model_ema"
LINKS = (keys.LAST_LINK, keys.BEST_LINK)
HAS_LINKS = os.name != "nt"  # there they need a privilege, and cannot be replaced in one instant
OLD_SUFFIX, TRASH_SUFFIX, PART_SUFFIX = ".old", ".trash", ".part"


class Savable(Protocol):
    """A policy or a pipeline: whatever writes itself into a folder."""

    def save_pretrained(self, folder: Path) -> Any:
        """Write the files."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stored run was."""

    step: int  # steps done
    num_processes: int | None = None  # processes that trained together; None in files of releases before 0.6
    batch_size: int | None = None  # per process; None in files of releases before 0.6
    extra: dict[str, Any] = field(default_factory=dict)  # what `save` was given as extra


# ---------------------------------------------------------------------------------- save
def save(
    output_dir: Path,
    *,
    step: int,
    total_steps: int,
    policy: Savable,
    train_config: Mapping[str, Any],
    batch_size: int,
    num_processes: int = 1,
    preprocessor: Savable | None = None,
    postprocessor: Savable | None = None,
    ema_policy: Savable | None = None,
    optimizer: HasState | Mapping[str, HasState] | None = None,
    scheduler: HasState | None = None,
    rng: list[RngState] | None = None,
    extra: Mapping[str, Any] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint and move `last` to it; returns its folder. Call it from one process.

    A checkpoint of the same step is replaced; until the new one is in place the old one can be loaded.

    Args:
        ema_policy: the same policy with averaged weights, for `pretrained_model_ema`.
        rng: random states of all ranks, in order; only that of this process when not given.
        extra: plain values of the run to restore (sampler, loader, scaler ...).
        write_more: writes further files into the checkpoint's folder, before it is sealed.
    """
    checkpoints = Path(output_dir) / keys.CHECKPOINTS_FOLDER
    checkpoints.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(checkpoints)
    final = checkpoints / step_name(step, total_steps)
    part = part_path(final)
    try:
        models = {keys.PRETRAINED_FOLDER: policy, EMA_FOLDER: ema_policy}
        for folder, model in models.items():
            if model is not None:
                _write_model(part / folder, model, train_config, pipelines=(preprocessor, postprocessor))
        state = part / keys.TRAINING_STATE_FOLDER
        state.mkdir()
        write_json(
            state / STEP_FILE, {"step": step, "num_processes": num_processes, "batch_size": batch_size}
        )
        save_rng_state(state, rng)
        if optimizer is not None:
            save_optimizer_state(optimizer, state)
        if scheduler is not None:
            save_scheduler_state(scheduler, state)
        if extra is not None:
            write_json(state / EXTRA_FILE, dict(extra))
        if write_more is not None:
            write_more(part)
        write_json(part / MANIFEST_FILE, _manifest(part))
        _sync_tree(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _put_in_place(part, final)
    point(checkpoints, keys.LAST_LINK, final.name)
    _clear_leftovers(checkpoints)
    return final


def step_name(step: int, total_steps: int) -> str:
    """Folder name of a step: at least six digits, and as many as the last step has."""
    return f"{step:0{max(6, len(str(total_steps)))}d}"


def point(checkpoints: Path, link_name: str, name: str) -> None:
    """Move the link `last` or `best` to a checkpoint in one instant; a text file where links are impossible.

    A real folder of that name (from a copy that followed links) is left alone, with an error in the log.
    """
    link = checkpoints / link_name
    if link.is_dir() and not link.is_symlink():
        logger.error(
            "%s is a folder, not a link, and stays as it is; the new checkpoint is %s. "
            "To let `%s` follow again, type: mv %s %s",
            link, checkpoints / name, link_name, link, link.with_name(f"{link_name}_copied"),
        )  # fmt: skip
        return
    fresh = part_path(link)
    fresh.unlink(missing_ok=True)
    try:
        if not HAS_LINKS:
            raise NotImplementedError
        fresh.symlink_to(name, target_is_directory=True)
    except (OSError, NotImplementedError):  # file systems and accounts without links
        fresh.write_text(name, encoding="utf-8")
        sync_file(fresh)
    if not HAS_LINKS and link.is_symlink():
        link.unlink()  # made by another installation; Windows replaces files, not links to folders
    fresh.replace(link)
    sync_folders(checkpoints, levels=1)


def _write_model(
    folder: Path, model: Savable, train_config: Mapping[str, Any], *, pipelines: tuple[Savable | None, ...]
) -> None:
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    write_json(folder / keys.TRAIN_CONFIG_FILE, dict(train_config))
    for pipeline in pipelines:
        if pipeline is not None:
            pipeline.save_pretrained(folder)


def _put_in_place(part: Path, final: Path) -> None:
    """Rename a finished checkpoint to its name, where an older one of the same step may be."""
    checkpoints = final.parent
    if final.exists():
        waiting = [link for link in LINKS if linked_name(checkpoints, link) == final.name]
        if waiting:
            # `last` must not dangle between the two renames: it waits on a copy (hard links, so it is cheap).
            spare = final.with_name(f".{final.name}{OLD_SUFFIX}")
            shutil.rmtree(spare, ignore_errors=True)
            shutil.copytree(final, spare, copy_function=_link_or_copy)
            _sync_tree(spare)
            for link in waiting:
                point(checkpoints, link, spare.name)
        final.rename(final.with_name(f".{final.name}{TRASH_SUFFIX}"))
    part.rename(final)
    sync_folders(checkpoints)
    if linked_name(checkpoints, keys.BEST_LINK) == f".{final.name}{OLD_SUFFIX}":
        point(checkpoints, keys.BEST_LINK, final.name)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # file systems without hard links
        shutil.copy2(source, target)
    return target


def _clear_leftovers(checkpoints: Path) -> None:
    """Remove what a killed process left: hidden folders that no link points to."""
    kept = {linked_name(checkpoints, link) for link in LINKS}
    for path in checkpoints.glob(".*"):
        if path.name in kept or path.suffix not in (PART_SUFFIX, OLD_SUFFIX, TRASH_SUFFIX):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync_tree(folder: Path) -> None:
    """Return when every file below `folder`, and every name, is on the disk."""
    for place, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(place) / name)
        sync_folders(Path(place), levels=1)


# ---------------------------------------------------------------------------------- manifest
def verify(folder: Path) -> bool:
    """Whether the checkpoint has a manifest and agrees with it; one without (of another release) gives False.

    Raises:
        CheckpointError: a file is missing or was changed.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return False
    for name, stored in read_json(path, dict).get("files", {}).items():
        found = _fingerprint(folder / name) if (folder / name).is_file() else None
        if found != stored:
            what = "is missing" if found is None else "is not what was written there"
            raise CheckpointError(
                f"{folder / name} {what} (by {MANIFEST_FILE}). Resume from another checkpoint, or, if you "
                f"changed the file yourself, type: rm {path}"
            )
    return True


def _manifest(folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {"format": 1, "files": {path.relative_to(folder).as_posix(): _fingerprint(path) for path in files}}


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


# ---------------------------------------------------------------------------------- load
def load(
    folder: Path,
    *,
    optimizer: Optimizer | Mapping[str, Optimizer] | None = None,
    scheduler: LRScheduler | None = None,
    rank: int = 0,
) -> Progress:
    """Bring optimizer, schedule and this process's random states to where the checkpoint stood.

    The weights are loaded by the policy, from `folder / "pretrained_model"`.

    Args:
        folder: a checkpoint, or anything `find` accepts.

    Raises:
        CheckpointError: it is damaged, or of another model.
    """
    folder = find(folder)
    with reading(folder / keys.PRETRAINED_FOLDER / keys.CONFIG_FILE):  # so that another process keeps it
        return _load(folder, optimizer=optimizer, scheduler=scheduler, rank=rank)


def _load(
    folder: Path,
    *,
    optimizer: Optimizer | Mapping[str, Optimizer] | None,
    scheduler: LRScheduler | None,
    rank: int,
) -> Progress:
    verify(folder)
    state = folder / keys.TRAINING_STATE_FOLDER
    progress = read_progress(folder)
    if optimizer is not None:
        load_optimizer_state(optimizer, state)
    if scheduler is not None:
        load_scheduler_state(scheduler, state)
    elif (state / SCHEDULER_FILE).is_file():
        logger.warning("%s holds a learning-rate schedule, which this run does not use.", folder)
    load_rng_state(state, rank=rank)
    return progress


def read_progress(folder: Path) -> Progress:
    """How far a checkpoint's run was, in the files of every release."""
    path = folder / keys.TRAINING_STATE_FOLDER / STEP_FILE
    tree = read_json(path, dict)
    if not isinstance(tree.get("step"), int):
        raise CheckpointError(f"{path} holds no whole number called step.")
    extra = folder / keys.TRAINING_STATE_FOLDER / EXTRA_FILE
    return Progress(
        step=tree["step"] // tree.get("grad_accum_steps", 1),  # a release that says so counts micro-batches
        num_processes=tree.get("dp_world_size", tree.get("num_processes")),
        batch_size=tree.get("batch_size"),
        extra=read_json(extra, dict) if extra.is_file() else {},
    )


# ---------------------------------------------------------------------------------- find
def find(path: Path) -> Path:
    """The checkpoint's folder for any way to name it.

    Accepts `.../checkpoints/000200`, `.../checkpoints/last`, its `pretrained_model` folder or the
    `train_config.json` in it, and a run's output folder or its `checkpoints` (the last one then).

    Raises:
        CheckpointError: there is none.
    """
    path = follow_pointer(Path(path).expanduser())
    for folder in (path, path.parent, path.parent.parent):
        if (folder / keys.TRAINING_STATE_FOLDER / STEP_FILE).is_file():
            return folder.resolve()
    return find_last(path.parent if path.name == keys.LAST_LINK else path)


def find_last(output_dir: Path) -> Path:
    """The last checkpoint of a run, given its output folder or the `checkpoints` folder in it.

    Raises:
        CheckpointError: the run has none.
    """
    checkpoints = Path(output_dir) / keys.CHECKPOINTS_FOLDER
    if not checkpoints.is_dir():
        checkpoints = Path(output_dir)
    link = checkpoints / keys.LAST_LINK
    is_real_folder = link.is_dir() and not link.is_symlink()
    name = linked_name(checkpoints, keys.LAST_LINK)
    if name is not None and not is_real_folder and is_complete(checkpoints / name):
        return (checkpoints / name).resolve()
    # No link, or one that a copying program broke or replaced by a folder: the highest step counts.
    complete = [path for path in checkpoints.glob("*") if path.is_dir() and is_complete(path)]
    if not complete:
        raise CheckpointError(
            f"There is no complete checkpoint in {output_dir}. Give a run's output folder (the one with "
            f"{keys.CHECKPOINTS_FOLDER}/ in it) or one of its checkpoints."
        )
    found = max(complete, key=lambda path: (read_progress(path).step, path.name != keys.LAST_LINK))
    logger.warning("%s does not lead to a checkpoint; taking %s, the highest step.", link, found)
    return found.resolve()


def is_complete(folder: Path) -> bool:
    """Whether both halves of a checkpoint are there, as in every folder that `save` has renamed."""
    return (folder / keys.PRETRAINED_FOLDER).is_dir() and (
        folder / keys.TRAINING_STATE_FOLDER / STEP_FILE
    ).is_file()


def linked_name(checkpoints: Path, link_name: str) -> str | None:
    """What `last` or `best` leads to: the target of the link, or the text of the pointer file."""
    link = checkpoints / link_name
    if link.is_symlink():
        return link.readlink().name
    return link.read_text(encoding="utf-8").strip() if link.is_file() else None
