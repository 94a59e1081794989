"""A sound copy of a damaged dataset: every episode that is whole, under new numbers where some are gone.

    salvage (rows) -> footage (videos) -> data files, videos, tables, statistics -> examined -> renamed

The original is only read. The copy is written beside it, under a hidden name until it has passed the doctor.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lerobot.core import files
from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor import footage, infer, writing
from lerobot.datasets.doctor.examination import examine, read_folder
from lerobot.datasets.doctor.finding import CODES, Finding, numbered
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.footer import mend_footer
from lerobot.datasets.doctor.report import Report
from lerobot.datasets.doctor.rows import whole_groups
from lerobot.datasets.doctor.salvage import Salvage, salvage

SUFFIX = "_repaired"
TABLE_FAULTS = {"episodes.missing", "episodes.unreadable", "episodes.column", "episodes.order"}
Progress = Callable[[str, int, int], None]


@dataclass(kw_only=True)
class Outcome:
    """What a repair did."""

    root: Path
    output: Path | None  # the sound copy; None: nothing was written
    report: Report  # of the copy, or of the original when nothing was written
    kept: dict[int, int] = field(default_factory=dict)  # episode -> its number in the copy
    lost: dict[int, str] = field(default_factory=dict)  # episode -> why it is not there
    done: list[str] = field(default_factory=list)  # what else was put right, in words
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """The outcome as JSON holds it."""
        return {
            "output": None if self.output is None else str(self.output),
            "kept": {str(old): new for old, new in self.kept.items()},
            "lost": {str(number): reason for number, reason in sorted(self.lost.items())},
            "done": self.done,
            "seconds": round(self.seconds, 3),
            "report": self.report.plain(),
        }

    def lines(self) -> list[str]:
        """The outcome for people."""
        said = [f"left out: episode {number}: {reason}" for number, reason in sorted(self.lost.items())]
        moved = {old: new for old, new in self.kept.items() if old != new}
        if moved:
            old, new = next(iter(moved.items()))
            said.append(f"renumbered: {numbered(moved)} to fill the gaps; episode {old} is {new} now")
        said += [f"put right: {text}" for text in self.done]
        if self.output is None:
            reason = "nothing to repair" if self.report.is_sound else "no sound copy can be made; see above"
            return [*said, f"{self.root}: {reason}. Nothing was written."]
        return [
            *said,
            f"kept {len(self.kept)} of {len(self.kept) + len(self.lost)} episodes ({self.seconds:.1f} s)",
            f"{self.root} is as it was; the sound copy is {self.output}",
            self.report.verdict(),
        ]


def repair(
    root: str | Path,
    output_dir: str | Path | None = None,
    *,
    decode: str = "none",
    on_progress: Progress | None = None,
) -> Outcome:
    """A sound copy with every unharmed episode, in `output_dir` or beside the folder as NAME_repaired.

    Args:
        decode: as for `examine`; episodes with pictures that cannot be decoded are left out.

    Raises:
        DatasetError: the output exists already, the format is v2.x or newer than v3, or the schema is lost.
    """
    began, root = time.perf_counter(), Path(root).expanduser()
    output = Path(output_dir).expanduser() if output_dir is not None else root.with_name(root.name + SUFFIX)
    before = examine(root, decode=decode, on_progress=on_progress)
    if not any(CODES[code].repair for code in before.codes):
        return Outcome(root=root, output=None, report=before)
    if output.exists():
        raise DatasetError(f"{output} exists already. Give another folder: --output_dir=FOLDER.")
    folder, found = read_folder(root)
    _refuse(folder, found)
    outcome = Outcome(root=root, output=output, report=before)
    part = output.with_name(f".{output.name}{files.PART_SUFFIX}")
    shutil.rmtree(part, ignore_errors=True)  # of a repair that was interrupted
    try:
        _write_copy(folder, before, part, outcome, decode)
        if outcome.output is not None:
            outcome.report = examine(part, decode=decode, on_progress=on_progress)
            outcome.report.root = output
            if outcome.report.is_sound:
                part.rename(output)
                files.sync_folders(output)
            else:
                outcome.output = None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    outcome.seconds = time.perf_counter() - began
    return outcome


def _refuse(folder: Folder, found: list[Finding]) -> None:
    if folder.is_old:
        raise DatasetError(
            f"{folder.root} is in format v2.x, which is only read. Convert it first: "
            "lerobot-edit-dataset --operation.type=convert"
        )
    wrong = [one for one in found if one.code in ("info.future", "info.version")]
    if wrong:
        raise DatasetError(f"{folder.root}/{wrong[0].file}: {wrong[0].found}; {wrong[0].remedy}.")


def _write_copy(folder: Folder, before: Report, part: Path, outcome: Outcome, decode: str) -> None:
    mended = part / "mended"
    sources = _sources(folder, mended, outcome)
    infer.complete_info(folder, sources, outcome.done)
    result = _whole_episodes(folder, before, sources, decode)
    outcome.lost = result.lost
    pieces = sorted(result.pieces, key=lambda piece: piece.number)
    if not pieces:
        outcome.output = None
        return
    opened = result.opened
    outcome.kept = {piece.number: new for new, piece in enumerate(pieces)}
    writing.write_dataset(folder, before, pieces, opened, sources=sources, out=part, outcome=outcome)
    shutil.rmtree(mended, ignore_errors=True)


@dataclass(kw_only=True)
class _Found(Salvage):
    opened: footage.Videos = field(default_factory=dict)


def _whole_episodes(folder: Folder, before: Report, sources: dict[str, Path], decode: str) -> _Found:
    trusts_table = folder.episodes is not None and not before.codes & TABLE_FAULTS
    _sort_table(folder)
    rows = salvage(folder, sources=sources, trusts_table=trusts_table, how=decode)
    result = _Found(pieces=_distinct(rows), lost=rows.lost)
    result.opened = footage.find_footage(folder, result, how=decode)
    if folder.episodes is not None:
        have = {piece.number for piece in result.pieces} | set(result.lost)
        gone = [int(number) for number in folder.episodes.number if int(number) not in have]
        result.lose(gone, "its rows were not found")
    return result


def _distinct(result: Salvage) -> list:
    """Pieces with different numbers: of two alike the first file's stays."""
    kept: dict[int, Any] = {}
    for piece in result.pieces:
        kept.setdefault(piece.number, piece)
    return list(kept.values())


def _sort_table(folder: Folder) -> None:
    """The episode table in the order of its numbers, each once."""
    table = folder.episodes
    if table is None:
        return
    _, order = np.unique(table.number, return_index=True)
    if np.array_equal(order, np.arange(len(table))):
        return
    for places in (table.data, *table.videos.values()):
        places.file = places.file[order]
        if len(places.start_s):
            places.start_s, places.end_s = places.start_s[order], places.end_s[order]
    for name in ("length", "start", "end", "table_file", "number"):
        setattr(table, name, getattr(table, name)[order])
    table.tasks = None if table.tasks is None else [table.tasks[k] for k in order]
    for name in ("starts", "lengths", "_has_ranges"):
        table.__dict__.pop(name, None)  # computed from the old order


def _sources(folder: Folder, mended: Path, outcome: Outcome) -> dict[str, Path]:
    """The file to read for every data file that can be read; a mended copy where only parts of it can."""
    sources = {}
    for path in sorted((folder.root / "data").glob("*/*.parquet")):
        name = path.relative_to(folder.root).as_posix()
        if path.name.startswith("."):
            continue
        source, text = _source(folder, path, mended / name)
        if source is not None:
            sources[name] = source
        if text:
            outcome.done.append(f"{name}: {text}")
    return sources


def _source(folder: Folder, path: Path, copy: Path) -> tuple[Path | None, str]:
    """The file that a data file is read from, and what was done to it."""
    whole = whole_groups(path)
    if whole is not None and len(whole) == pq.read_metadata(path).num_row_groups:
        return path, ""
    if not whole:
        if folder.features and mend_footer(path, copy, features=folder.features):
            return copy, "its footer was lost and is written again from its pages"
        return None, "damaged, and no pages of it could be read; nothing is taken from it"
    file = pq.ParquetFile(path)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(copy, file.schema_arrow) as writer:
        for group in whole:
            writer.write_table(file.read_row_group(group))
    return copy, f"{file.metadata.num_row_groups - len(whole)} damaged row groups are left out"
