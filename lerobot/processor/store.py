"""Pipeline files: `<name>.json` and one safetensors file per step with tensors, in a folder or on the Hub.

{"name": "policy_preprocessor", "steps": [
    {"registry_name": "normalizer_processor", "config": {...}, "state_file": "..._step_0_...."}]}
"""

import importlib
import inspect
import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors.torch import load_file, save_file

from lerobot.core import keys
from lerobot.core.errors import CheckpointError, ConfigError, suggest
from lerobot.core.hub import Repo
from lerobot.processor.step import ProcessorStep, ProcessorStepRegistry, registered_name

logger = logging.getLogger(__name__)

OWN_CLASSES = "lerobot.processor."  # classes of this room may always be named by a file


class OldCheckpointError(CheckpointError):
    """A checkpoint from before LeRobot 0.4: no pipeline, and the statistics inside `model.safetensors`."""


# ---------------------------------------------------------------------------------- write
def write(
    folder: Path, *, name: str, steps: Sequence[ProcessorStep], config_filename: str | None = None
) -> None:
    """Write a pipeline into `folder`, which is made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    filename = config_filename or f"{file_base(name)}.json"
    base = file_base(filename.removesuffix(".json"))
    entries = [_write_step(step, folder, index=index, base=base) for index, step in enumerate(steps)]
    text = json.dumps({"name": name, "steps": entries}, indent=2)
    (folder / filename).write_text(text, encoding="utf-8")


def file_base(name: str) -> str:
    """The stem of a pipeline's files: lower case, everything but letters, digits and _ replaced by _."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def _write_step(step: ProcessorStep, folder: Path, *, index: int, base: str) -> dict[str, Any]:
    """The step's entry in the JSON file; its tensors and folders are written on the way."""
    name = registered_name(step)
    cls = type(step)
    entry: dict[str, Any] = (
        {"registry_name": name} if name else {"class": f"{cls.__module__}.{cls.__qualname__}"}
    )
    # Steps of other packages need not inherit from ProcessorStep, so the optional methods are asked for.
    config = {
        **getattr(step, "unread_config", {}),
        **(step.get_config() if hasattr(step, "get_config") else {}),
    }
    for argument, relative in getattr(step, "artifacts", {}).items():
        shutil.copytree(config[argument], folder / safe_path(relative), dirs_exist_ok=True)
        config[argument] = relative
        entry.setdefault("artifacts", {})[argument] = relative
    state = step.state_dict() if hasattr(step, "state_dict") else {}
    entry["config"] = config
    if state:
        entry["state_file"] = f"{base}_step_{index}{f'_{name}' if name else ''}.safetensors"
        # Cloned because tensors that share memory cannot be stored side by side.
        tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
        save_file(tensors, folder / entry["state_file"])
    return entry


# ---------------------------------------------------------------------------------- read
def read(
    source: str | Path,
    filename: str,
    *,
    overrides: Mapping[str, Mapping[str, Any]],
    revision: str | None = None,
    trusted_classes: Collection[str] = (),
) -> tuple[str, list[ProcessorStep]]:
    """Name and steps of a stored pipeline.

    A step that was stored by class instead of by registered name makes the file decide which Python code is
    imported and called. Files come from the internet, so that is refused unless the class is of this room, or
    it lives in an installed package and the caller lists its dotted name in `trusted_classes`.
    """
    folder = _find_folder(source, filename, revision)
    tree = _read_json(folder / filename)
    entries = tree.get("steps")
    if not isinstance(entries, list):
        raise CheckpointError(f"{folder / filename} holds no list of steps: it is not a pipeline file.")
    _check_overrides(overrides, entries, folder / filename)
    steps = []
    for index, entry in enumerate(entries):
        steps.append(_read_step(entry, folder, f"{filename}, step {index}", overrides, trusted_classes))
    return str(tree.get("name", Path(filename).stem)), steps


def has_pipeline(folder: Path, filename: str = f"{keys.PREPROCESSOR}.json") -> bool:
    """Whether a local folder holds that pipeline."""
    return (folder / filename).is_file()


def _find_folder(source: str | Path, filename: str, revision: str | None) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.exists() or str(source).count("/") != 1:
            raise CheckpointError(
                f"{source} is neither a folder nor a Hub id (user/name); {filename} cannot be read."
            )
        patterns = ("*.json", f"{Path(filename).stem}_step_*", "*tokenizer*/*")
        folder = Repo(repo_id=str(source)).snapshot(revision=revision, patterns=patterns)
    if (folder / filename).is_file():
        return folder
    others = sorted(path.name for path in folder.glob("*.json"))
    pipelines = [name for name in others if _is_pipeline(folder / name)]
    if pipelines:
        raise CheckpointError(
            f"{folder} holds no {filename}.{suggest(filename, pipelines)} It holds {', '.join(pipelines)}."
        )
    if keys.CONFIG_FILE in others:
        raise OldCheckpointError(
            f"{folder} holds {', '.join(others)} but no pipeline: it was written before LeRobot 0.4, when "
            "the statistics were stored inside model.safetensors. "
            f"Type: make_pre_post_processors(policy.config, pretrained_path={str(source)!r})"
        )
    raise CheckpointError(
        f"{folder} holds no {filename}; give the folder of a checkpoint (…/pretrained_model)."
    )


def _is_pipeline(path: Path) -> bool:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whatever it is, it is no pipeline
    return isinstance(tree, dict) and isinstance(tree.get("steps"), list)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} holds a {type(tree).__name__}, not an object with name and steps.")
    return tree


def _entry_names(entry: Mapping[str, Any]) -> list[str]:
    """What an override may call a step: its registered name, or its class with or without the module."""
    if entry.get("registry_name"):
        return [entry["registry_name"]]
    return [str(entry.get("class", "")), str(entry.get("class", "")).rpartition(".")[2]]


def _check_overrides(overrides: Mapping[str, Any], entries: list[dict], path: Path) -> None:
    known = [name for entry in entries for name in _entry_names(entry)]
    for name in overrides:
        if name not in known:
            raise ConfigError(
                f"The override {name!r} fits no step of {path}.{suggest(name, known)} Steps: "
                f"{', '.join(dict.fromkeys(known))}."
            )


def _read_step(
    entry: Mapping[str, Any],
    folder: Path,
    where: str,
    overrides: Mapping[str, Mapping[str, Any]],
    trusted_classes: Collection[str],
) -> ProcessorStep:
    """Build one step: class, config merged with its overrides, then its tensors."""
    cls = _step_class(entry, where, trusted_classes)
    chosen = {key: value for name in _entry_names(entry) for key, value in overrides.get(name, {}).items()}
    stored = dict(entry.get("config", {}))
    artifacts = {name: path for name, path in entry.get("artifacts", {}).items() if name not in chosen}
    for argument, relative in artifacts.items():
        stored[argument] = str(_existing(folder, relative, where))
    unread = _split_unread(cls, stored, chosen, where)
    try:
        step = cls(**(stored | chosen))
    except TypeError as error:
        raise ConfigError(f"{where}: {cls.__name__} cannot be built from its config: {error}") from error
    if unread:
        step.unread_config = unread
    if artifacts:
        step.artifacts = artifacts
    if entry.get("state_file"):
        step.load_state_dict(load_file(_existing(folder, entry["state_file"], where)))
    return step


def _step_class(entry: Mapping[str, Any], where: str, trusted_classes: Collection[str]) -> type:
    if entry.get("registry_name"):
        try:
            return ProcessorStepRegistry.get(entry["registry_name"])
        except ConfigError as error:
            raise CheckpointError(f"{where}: {error}") from error
    dotted = str(entry.get("class", ""))
    module, _, name = dotted.rpartition(".")
    if not module:
        raise CheckpointError(f"{where} names neither a registered step nor a class.")
    if not dotted.startswith(OWN_CLASSES) and dotted not in trusted_classes:
        raise CheckpointError(
            f"{where} names the class {dotted}, which is not a registered step. A file must not choose which "
            f"code runs here. If its package is installed and you trust it: trusted_classes={{{dotted!r}}}."
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{where}: {dotted} cannot be imported ({error}). Install its package."
        ) from error
    if not (isinstance(found, type) and "__call__" in dir(found)):
        raise CheckpointError(f"{where}: {dotted} is not a processor step.")
    return found


def _split_unread(cls: type, stored: dict[str, Any], chosen: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Take out of `stored` what the constructor does not take; files of newer releases hold such keys."""
    taken = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return {}
    for key in chosen:
        if key not in taken:
            raise ConfigError(f"{where}: {cls.__name__} takes no argument {key!r}.{suggest(key, taken)}")
    unread = {key: stored.pop(key) for key in list(stored) if key not in taken}
    if unread:
        logger.warning("%s: keys this release does not know are kept, not used: %s", where, ", ".join(unread))
    return unread


def safe_path(relative: str) -> PurePosixPath:
    """A path that stays inside the folder it is joined to.

    Raises:
        CheckpointError: it is absolute or climbs out.
    """
    path = PurePosixPath(str(relative).replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in str(path):
        raise CheckpointError(
            f"{relative!r} leads out of the checkpoint's folder; a pipeline may only name files in it."
        )
    return path


def _existing(folder: Path, relative: str, where: str) -> Path:
    path = folder / safe_path(relative)
    if not path.exists():
        raise CheckpointError(
            f"{where} needs {relative}, which is missing in {folder}. Copy or download it again."
        )
    return path
