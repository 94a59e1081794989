"""Which checkpoints stay: the newest ones, and the best by a metric, to which the link `best` points.

metrics.jsonl, names of the checkpoints -> best -> link -> the others beyond `keep_last`: renamed, removed

The best one follows from files alone, so that a run that was killed or resumed finds the same one. A
checkpoint is renamed before it is removed: no half of one is ever found under its own name.
"""

import logging
import math
import shutil
from collections.abc import Collection
from pathlib import Path

from lerobot.core import keys
from lerobot.core.files import is_being_read, sync_folders
from lerobot.training.checkpoints.checkpoint import (
    TRASH_SUFFIX,
    is_complete,
    linked_name,
    point,
    read_progress,
)
from lerobot.training.contradictions import is_better_lower
from lerobot.training.logs.metrics import read_metrics

logger = logging.getLogger(__name__)


def keep_best(checkpoints: Path, metrics_file: Path, metric: str) -> str | None:
    """Move the link `best`; gives the folder name of the best checkpoint, None while nothing was measured."""
    best = find_best(checkpoints, metrics_file, metric)
    if best is None:
        logger.warning("--keep_best=%s: no such metric was logged so far.%s", metric, _known(metrics_file))
        return linked_name(checkpoints, keys.BEST_LINK)
    if linked_name(checkpoints, keys.BEST_LINK) != best:
        point(checkpoints, keys.BEST_LINK, best)
    return best


def find_best(checkpoints: Path, metrics_file: Path, metric: str) -> str | None:
    """Folder name of the checkpoint with the best last value of a metric at or before its step.

    Of checkpoints with the same value the first counts: it is the one that was measured.
    """
    measured = [
        (int(row["step"]), float(row[metric])) for row in read_metrics(metrics_file) if _has(row, metric)
    ]
    sign = -1 if is_better_lower(metric) else 1
    best: tuple[float, str] | None = None
    for step, folder in sorted((read_progress(folder).step, folder) for folder in complete_ones(checkpoints)):
        values = [value for at, value in measured if at <= step]
        if values and (best is None or sign * values[-1] > best[0]):
            best = (sign * values[-1], folder.name)
    return best[1] if best is not None else None


def prune(checkpoints: Path, *, keep_last: int, keep: Collection[str] = ()) -> list[str]:
    """Remove all but the newest checkpoints; gives the names of what was removed.

    What stays besides: the targets of `last` and `best`, the names in `keep`, what another process reads,
    and every folder that is no complete checkpoint.
    """
    steps = sorted((read_progress(folder).step, folder) for folder in complete_ones(checkpoints))
    kept = {*keep, linked_name(checkpoints, keys.LAST_LINK), linked_name(checkpoints, keys.BEST_LINK)}
    removed = []
    for _, folder in steps[: max(0, len(steps) - keep_last)]:
        if folder.name in kept or is_being_read(folder / keys.PRETRAINED_FOLDER / keys.CONFIG_FILE):
            continue
        trash = folder.with_name(f".{folder.name}{TRASH_SUFFIX}")
        try:
            folder.rename(trash)
        except OSError as error:  # Windows refuses while a file in it is open; the next save tries again
            logger.info("%s stays for now: %s", folder, error)
            continue
        sync_folders(checkpoints, levels=1)
        shutil.rmtree(trash)
        removed.append(folder.name)
    return removed


def complete_ones(checkpoints: Path) -> list[Path]:
    """The complete checkpoints in a folder, without links and hidden ones."""
    return [
        folder
        for folder in checkpoints.iterdir()
        if folder.name.isdigit() and not folder.is_symlink() and is_complete(folder)
    ]


def _has(row: dict, metric: str) -> bool:
    value = row.get(metric)
    return isinstance(value, (int, float)) and math.isfinite(value)


def _known(metrics_file: Path) -> str:
    names = sorted({name for row in read_metrics(metrics_file) for name in row} - {"step"})
    return f" Logged are: {', '.join(names)}." if names else ""
