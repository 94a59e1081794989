"""The run that `--resume` continues: on this machine or on the Hub, and what the command line changes of it.

--resume=true --config_path=FILE, FOLDER or user/name   |
--resume=RUN                                            +-> checkpoint -> its train_config.json -> + flags
--resume=true --output_dir=RUN                          |
"""

import logging
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lerobot.core import keys
from lerobot.core.errors import CheckpointError, ConfigError
from lerobot.core.flags import find_config_file, merge
from lerobot.core.hub import Repo
from lerobot.core.text import BOOL_WORDS, FILE_SUFFIXES, NONE_WORDS, read_plain
from lerobot.policies.locate import is_hub_id, locate

logger = logging.getLogger(__name__)
Tree = dict[str, Any]

SWITCH_WORDS = (*BOOL_WORDS, *NONE_WORDS, "1", "0")
STEP_IN_REPO = re.compile(
    rf"{keys.CHECKPOINTS_FOLDER}/(\d+)/{keys.PRETRAINED_FOLDER}/{keys.TRAIN_CONFIG_FILE}"
)
SET_BY_RESUMING = ("resume", "checkpoint_path", "output_dir", "policy.pretrained_path", "policy.path")


def is_asked(resume: Any) -> bool:
    """Whether a value of `--resume` says yes, or names the run to continue."""
    return str(resume).lower() not in SWITCH_WORDS or read_plain(resume) in (True, 1)


def named_run(resume: Any) -> str | None:
    """The run that `--resume=RUN` names; None for yes and no."""
    return None if str(resume).lower() in SWITCH_WORDS else str(resume)


def find_config(name: str, flags: Tree) -> Path:
    """The file that `--config_path=NAME` means: a path, or a repository on the Hub.

    To resume from the Hub, the highest checkpoint there is copied into the run's folder on this machine:
    `--output_dir`, or else `outputs/train/<date>/<time>_resume`.

    Raises:
        ConfigError: there is no such file.
        HubError: the Hub was not reached, or has no such repository.
    """
    path = Path(name)
    if path.suffix in FILE_SUFFIXES or path.parent.is_dir() or not is_hub_id(name):
        return find_config_file(path)
    repo = Repo(repo_id=name)
    files = repo.contents()
    steps = {int(match[1]): file for file in files if (match := STEP_IN_REPO.fullmatch(file))}
    if not is_asked(flags.get("resume", False)):
        found = (
            keys.TRAIN_CONFIG_FILE if keys.TRAIN_CONFIG_FILE in files else steps.get(max(steps, default=0))
        )
        if found is None:
            raise ConfigError(f"--config_path={name}: the repository holds no {keys.TRAIN_CONFIG_FILE}.")
        return repo.file(found)
    if not steps:
        raise ConfigError(
            f"--config_path={name}: the repository holds no {keys.CHECKPOINTS_FOLDER}/ to resume from, at "
            f"most a policy. To start a new run from its weights, type: --policy.path={name}"
        )
    checkpoint = Path(steps[max(steps)]).parents[1]
    now = datetime.now().astimezone()
    flags.setdefault("output_dir", f"outputs/train/{now:%Y-%m-%d}/{now:%H-%M-%S}_resume")
    repo.snapshot(patterns=[f"{checkpoint.as_posix()}/*"], folder=Path(str(flags["output_dir"])))
    return Path(str(flags["output_dir"])) / steps[max(steps)]


def resumed(file: Tree, flags: Tree, *, config_path: str | None) -> tuple[Path, Tree]:
    """The `train_config.json` of the run to continue, and what goes on top of it.

    Args:
        file: the tree of `config_path`: the run's own config, or one that a person wrote.

    Raises:
        ConfigError: no run is named, or it has no checkpoint.
    """
    folder = Path(config_path).parent if config_path else None
    run = named_run(flags.get("resume", file.get("resume", False)))
    over = flags
    if run is not None or folder is None or folder.name != keys.PRETRAINED_FOLDER:
        run = run or flags.get("output_dir", file.get("output_dir"))
        if not run:
            raise ConfigError(
                "--resume=true needs the run to continue: give --output_dir=RUN, --resume=RUN or "
                "--config_path=RUN/checkpoints/last/pretrained_model/train_config.json."
            )
        folder = _pretrained_folder(str(run))
        over = merge(file, flags)
    checkpoint = folder.resolve().parent
    over = merge(over, {"resume": True, "checkpoint_path": str(checkpoint)})
    policy = over.get("policy", {})
    over["policy"] = (policy if isinstance(policy, dict) else {}) | {"pretrained_path": str(folder)}
    over["policy"].pop("path", None)
    # The run goes on in its own folder, also when it was moved.
    over.setdefault("output_dir", str(checkpoint.parent.parent))
    return folder / keys.TRAIN_CONFIG_FILE, over


def _pretrained_folder(run: str) -> Path:
    try:
        folder = locate(run) if Path(run).exists() else None
    except CheckpointError:
        folder = None
    if folder is None or folder.name != keys.PRETRAINED_FOLDER:
        raise ConfigError(
            f"--resume=true: {run} holds no checkpoint to continue from. Expected a run's folder (with "
            f"{keys.CHECKPOINTS_FOLDER}/ in it) or one of its checkpoints."
        )
    return folder


def say_changes(saved: Mapping[str, Any], over: Mapping[str, Any]) -> None:
    """Log one line with the settings that are other ones than in the run so far."""
    changes = _changes(saved, over, "")
    what = f"; changed: {', '.join(changes)}" if changes else ""
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        logger.info("Resuming from %s%s", over["checkpoint_path"], what)


def _changes(saved: Mapping[str, Any], over: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in over.items():
        name, old = f"{prefix}{key}", saved.get(key)
        if isinstance(value, Mapping):
            found += _changes(old if isinstance(old, Mapping) else {}, value, f"{name}.")
        elif name not in SET_BY_RESUMING and not _is_same(old, read_plain(value)):
            found.append(f"{name}={value} (was {'not set' if old is None else old})")
    return found


def _is_same(old: Any, new: Any) -> bool:
    return old == new or str(old) == str(new) or _is_same_place(old, new)


def _is_same_place(old: Any, new: Any) -> bool:
    return isinstance(old, str) and isinstance(new, str) and Path(old).resolve() == Path(new).resolve()
