"""The study on disk: an SQLite file that survives `kill -9`, and the right of one process to continue it.

study.db            every trial: values tried, intermediate results, state; Optuna's tables
tune_config.json    what is searched and how
.lock               held by the search that runs; the system frees it when that process ends
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lerobot.core.config import encode
from lerobot.core.errors import ConfigError
from lerobot.core.files import write_json
from lerobot.core.optional import require
from lerobot.core.text import read_file
from lerobot.search.config import CONFIG_FILE, IDENTITY, TuneConfig, saved_form

if TYPE_CHECKING:
    import optuna

STUDY_FILE = "study.db"
LOCK_FILE = ".lock"
# Notes on a trial, stored with it.
REASON, REFUSED, INTERRUPTED, SAME_AS, PLACE = "reason", "refused", "interrupted", "same_as", "place"


def claim_folder(cfg: TuneConfig, folder: Path) -> None:
    """Make the folder of a search, or check that it holds the same one.

    Raises:
        ConfigError: it holds something else, or a search for something else.
    """
    path = folder / CONFIG_FILE
    if path.is_file():
        check_same(cfg, read_file(path), folder=folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output_dir={folder} exists already and holds no search. Give another folder.")
    try:
        write_json(path, saved_form(cfg))
    except OSError as error:
        raise ConfigError(
            f"--output_dir={folder} cannot be written: {error.strerror}. Give another."
        ) from error


def check_same(cfg: TuneConfig, saved: dict[str, Any], *, folder: Path) -> None:
    """Nothing, if results of the saved search and of this one can be compared.

    Raises:
        ConfigError: they cannot; names what differs.
    """
    now = encode(cfg)
    changed = [name for name in IDENTITY if saved.get(name) != now[name]]
    if not changed:
        return
    pairs = ", ".join(f"{name} was {saved.get(name)}, now {now[name]}" for name in changed)
    raise ConfigError(
        f"{folder} holds another search: {pairs}. Give another --output_dir, or continue that one with "
        f"--resume=true --output_dir={folder}."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A span in which no other search works in the folder.

    Raises:
        ConfigError: another one does.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _lock(descriptor):
            raise ConfigError(
                f"{folder}: a search is running there already. Stop it first, or give another --output_dir."
            )
        yield
    finally:
        os.close(descriptor)  # which frees the lock


def _lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def open_study(
    cfg: TuneConfig,
    folder: Path,
    *,
    sampler: "optuna.samplers.BaseSampler | None" = None,
    pruner: "optuna.pruners.BasePruner | None" = None,
) -> "optuna.Study":
    """The study in its storage, made if it is not there.

    Raises:
        ConfigError: the storage cannot be opened, or its study goes the other way.
    """
    optuna = require("optuna", extra="tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = "minimize" if cfg.is_minimized else "maximize"
    url = storage_url(cfg, folder)
    try:
        study = optuna.create_study(
            storage=url,
            study_name=cfg.study_name,
            direction=direction,
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
    except Exception as error:  # whatever a database driver raises
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"--storage={cfg.storage or url}: the study cannot be opened: {said}") from error
    if study.direction.name.lower() != direction:
        raise ConfigError(
            f"The study {cfg.study_name!r} in {url} was made to {study.direction.name.lower()}, and this is "
            f"to {direction}. Give another --study_name."
        )
    return study


def storage_url(cfg: TuneConfig, folder: Path) -> str:
    """The address of the study's database."""
    if cfg.storage is not None and "://" in cfg.storage:
        return cfg.storage
    path = Path(cfg.storage) if cfg.storage is not None else folder / STUDY_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path.absolute()}"
