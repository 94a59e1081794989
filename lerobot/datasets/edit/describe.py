"""What an edit will read, write, encode and leave out, in lines for a person: the text of `--dry_run`."""

from collections.abc import Sequence
from pathlib import Path

from lerobot.datasets.compact import MIB
from lerobot.datasets.edit.copying import Copy
from lerobot.datasets.edit.extras import unknown_files
from lerobot.datasets.edit.videos import NewFile
from lerobot.datasets.metadata import LeRobotDatasetMetadata

MAX_LISTED = 20


def describe(job: Copy) -> list[str]:
    """The plan of a copy; sizes are those of the source files, shared out by frames."""
    total = sum(job.lengths)
    lines = [f"makes {job.target.repo_id!r} in {job.target.root}: {len(job.picks)} episodes, {total} frames"]
    if job.target.replaces:
        lines.append(f"keeps what is there now as {job.target.backup()}")
    for meta in {id(meta): meta for meta, _ in job.picks}.values():
        lines += _about_source(job, meta)
    lines += job.change.lines()
    lines += [f"renames {old!r} to {new!r}" for old, new in job.renamed.items()]
    lines += [f"sets {name} to {value}" for name, value in job.info.items()]
    lines.append(f"writes rows of {len(job.picks)} episodes, about {readable(_row_bytes(job))}")
    encoded = 0
    for key, pieces in job.pieces.items():
        made = job.group(pieces)
        lines += _about_camera(job, key, made)
        encoded += sum(one.segment.length for one in pieces if one.encodes)
    lines.append(f"encodes {encoded} frames again" if encoded else "encodes no stored video again")
    return lines


def _about_source(job: Copy, meta: LeRobotDatasetMetadata) -> list[str]:
    """What is read of one dataset, and what of it is not in the result."""
    chosen = {episode for other, episode in job.picks if other is meta}
    data = {meta.root / meta.get_data_file_path(episode) for episode in chosen}
    lines = [f"reads {meta.root}: {_files(data, 'data file')}"]
    left = [episode for episode in range(meta.total_episodes) if episode not in chosen]
    if left:
        lines.append(f"leaves out {_listed(left)} ({len(left)} of {meta.total_episodes} episodes)")
    known = {job.renamed.get(name, name) for name in meta.features}
    gone = [name for name in meta.features if job.renamed.get(name, name) not in job.features]
    lines += [f"leaves out the feature {name!r}" for name in gone]
    lines += [f"adds the feature {name!r}" for name in job.features if name not in known]
    others = unknown_files(meta.root)
    lines += [f"carries along {', '.join(map(str, others[:MAX_LISTED]))}"] if others else []
    return lines


def _about_camera(job: Copy, key: str, made: Sequence[NewFile]) -> list[str]:
    whole = [new for new in made if new.copied_from]
    joined = [new for new in made if not new.copied_from and not any(one.encodes for one in new.pieces)]
    anew = [new for new in made if any(one.encodes for one in new.pieces)]
    how = "links" if job.target.replaces else "copies"
    lines = []
    if whole:
        what = "1 file as it is" if len(whole) == 1 else f"{len(whole)} files as they are"
        lines.append(f"{key}: {how} {what}, {readable(sum(new.size for new in whole))}")
    if joined:
        what = f"{len(joined)} file{'' if len(joined) == 1 else 's'} of copied packets"
        lines.append(f"{key}: writes {what}, about {readable(sum(new.size for new in joined))}")
    for new in anew:
        episodes = [job.picks[k] for one in new.pieces if one.encodes for k in one.episodes]
        numbers = [episode for _, episode in episodes]
        frames = sum(one.segment.length for one in new.pieces if one.encodes)
        lines.append(
            f"{key}: encodes {_listed(numbers)} of {episodes[0][0].repo_id!r} again, {frames} frames"
        )
    return lines


def _row_bytes(job: Copy) -> float:
    """The picked episodes' share of their data files."""
    frames: dict[Path, int] = {}
    for (meta, episode), length in zip(job.picks, job.lengths, strict=True):
        path = meta.root / meta.get_data_file_path(episode)
        frames[path] = frames.get(path, 0) + length
    whole: dict[Path, int] = {}
    for meta in {id(meta): meta for meta, _ in job.picks}.values():
        for episode, length in enumerate(meta.episodes["length"]):
            path = meta.root / meta.get_data_file_path(episode)
            whole[path] = whole.get(path, 0) + int(length)
    return sum(path.stat().st_size * count / whole[path] for path, count in frames.items())


def _files(paths: set[Path], noun: str) -> str:
    size = sum(path.stat().st_size for path in paths)
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}, {readable(size)}"


def _listed(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, numbers[:MAX_LISTED]))
    more = f" and {len(numbers) - MAX_LISTED} more" if len(numbers) > MAX_LISTED else ""
    return f"episode{'' if len(numbers) == 1 else 's'} {named}{more}"


def readable(size: float) -> str:
    """A number of bytes for a person."""
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / 1024:.1f} KiB"
