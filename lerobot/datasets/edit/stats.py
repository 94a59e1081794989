"""A dataset's statistics made anew from what it holds.

    rows of each episode, sampled pictures -> columns of meta/episodes -> sketches -> meta/stats.json (last)

Whoever reads meanwhile, or after the process was killed, finds the old statistics or, of some episodes, the
new ones; running it again finishes the work.
Shapes: T frames of an episode, B frames decoded together, C H W picture.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import tables
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.change import silent
from lerobot.datasets.edit.recount import Recount
from lerobot.datasets.edit.rowstats import StatsColumns, stored_stats
from lerobot.datasets.edit.target import new_target
from lerobot.datasets.ledger import (
    NOT_ALL,
    Ledger,
    Summaries,
    matching,
    rows_of_episode,
    stats_of,
    stored_cameras,
    summaries_of,
    tell_approximate,
    write_cameras,
)
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import is_numeric, numbers
from lerobot.datasets.stats import (
    Stats,
    aggregate_stats,
    compute_relative_action_stats,
    sample_indices,
    thin_picture,
)
from lerobot.datasets.tally import count_levels, summary_of_depth, summary_of_levels

ABSOLUTE_JOINTS = ("gripper",)  # joints whose actions stay absolute unless others are named
FRAMES_AT_ONCE = 16


def recompute_stats(
    dataset: LeRobotDataset,
    *,
    skip_image_video: bool = True,
    relative_action: bool = False,
    relative_exclude_joints: Sequence[str] | None = None,
    chunk_size: int = 50,
    num_workers: int = 0,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
    all_frames: bool = False,
) -> LeRobotDataset:
    """The dataset with statistics that follow from its data.

    It is changed in place unless `output_dir` or `repo_id` is given.

    Args:
        skip_image_video: cameras keep the statistics that they have.
        relative_action: in meta/stats.json, statistics of actions are those of action[t + k] - state[t] in
            windows of `chunk_size` frames.
        relative_exclude_joints: actions of joints whose name contains one of these stay absolute; by default
            "gripper".
        num_workers: threads that decode pictures; 0 is one thread.
        output_dir: folder of a copy that is given the statistics instead.
        repo_id: name of the copy; it is in the local home of datasets when only this is given.
        all_frames: take every frame of every camera instead of a sample.

    Raises:
        DatasetError: numbers are missing, NaN or infinite; the folder exists; the dataset is in an older
            format, or only in the download cache and no other folder is given.
    """
    is_copy = output_dir is not None or repo_id is not None
    _check(dataset, in_place=not is_copy, relative_action=relative_action)
    if is_copy:
        options = {
            "skip_image_video": skip_image_video,
            "relative_action": relative_action,
            "relative_exclude_joints": relative_exclude_joints,
            "chunk_size": chunk_size,
            "num_workers": num_workers,
            "all_frames": all_frames,
        }
        return Recount(dataset.meta, new_target(repo_id or dataset.repo_id, output_dir), options).run(silent)
    excluded = ABSOLUTE_JOINTS if relative_exclude_joints is None else tuple(relative_exclude_joints)
    _recompute(
        LeRobotDatasetMetadata(dataset.repo_id, dataset.root),
        with_cameras=not skip_image_video,
        num_workers=num_workers,
        all_frames=all_frames,
        relative=(chunk_size, excluded) if relative_action else None,
    )
    return LeRobotDataset(dataset.repo_id, root=dataset.root)


def _check(dataset: LeRobotDataset, *, in_place: bool, relative_action: bool) -> None:
    if dataset.writer is not None and not dataset.writer.is_finalized:
        raise DatasetError("This dataset is being recorded. Call finalize() before recomputing statistics.")
    dataset.meta.check_writable()
    if in_place and dataset.meta.location.revision is not None:
        raise DatasetError(
            f"{dataset.repo_id!r} is only in the download cache, which is not changed. Give output_dir or "
            "another repo_id."
        )
    needed = [name for name in (keys.ACTION, keys.STATE) if name not in dataset.features]
    if relative_action and needed:
        raise DatasetError(
            f"relative_action needs the feature {needed[0]!r}, which {dataset.repo_id!r} lacks."
        )


def _recompute(
    meta: LeRobotDatasetMetadata,
    *,
    with_cameras: bool,
    num_workers: int,
    all_frames: bool,
    relative: tuple[int, tuple[str, ...]] | None,
) -> None:
    root = meta.root
    ledger, columns = Ledger(meta.root, meta.features), StatsColumns(len(meta.episodes))
    windows: dict[str, list[np.ndarray]] = {name: [] for name in RELATIVE_COLUMNS} if relative else {}
    lines: list[tuple[int, Summaries]] = []
    reading = Cameras(meta, num_workers=num_workers, all_frames=all_frames) if with_cameras else nullcontext()
    with reading as cameras:
        pictures = cameras.summaries() if cameras else _kept_pictures(meta)
        for episode, (table, seen) in enumerate(zip(_episode_tables(meta), pictures, strict=True)):
            try:
                found = summaries_of(table, meta.features, is_strict=True)
            except DatasetError as error:
                raise DatasetError(f"{root}, episode {episode}. {error}") from error
            ledger.add(found | seen)
            columns.put(episode, stats_of(found | (seen if with_cameras else {}), meta.features))
            lines.append((episode, seen))
            for name, parts in windows.items():
                parts.append(numbers(table.column(name), meta.features[name], where=f"Feature {name!r}"))
    stats = _dataset_stats(meta, ledger)
    if relative:
        joined = {name: np.concatenate(parts) for name, parts in windows.items()}
        stats[keys.ACTION] = compute_relative_action_stats(joined, meta.features, *relative)
    old = [(episode, one) for episode, several in stored_cameras(meta).items() for one in several]
    write_cameras(root, [*old, *lines])  # in between, each row finds the sketches that it belongs to
    columns.write(root)
    write_cameras(root, lines)
    ledger.save()
    meta.stats = stats
    meta.save_stats()


RELATIVE_COLUMNS = (keys.ACTION, keys.STATE, keys.EPISODE_INDEX)


def _dataset_stats(meta: LeRobotDatasetMetadata, ledger: Ledger) -> Stats:
    """Exact statistics; cameras of which there are no sketches keep those that are stored."""
    exact = ledger.stats()
    lost = [name for name in meta.camera_keys if name not in exact]
    unknown = [name for name in lost if name not in meta.stats]
    rest: Stats = {}
    if unknown:
        kept = list(stored_stats(meta.root, unknown).values())
        rest = aggregate_stats(kept) if len(kept) == len(meta.episodes) else {}
    if lost:
        tell_approximate(meta.root, NOT_ALL, what=", ".join(lost), repo_id=meta.repo_id)
    found = rest | meta.stats | exact
    return {name: found[name] for name in meta.features if name in found}


def _episode_tables(meta: LeRobotDatasetMetadata) -> Iterator[pa.Table]:
    """The columns of numbers of each episode; a data file is read once for all of its episodes."""
    names = [name for name, feature in meta.features.items() if is_numeric(feature)]
    last: tuple[Path, pa.Table] | None = None
    for episode in range(len(meta.episodes)):
        path = meta.root / meta.get_data_file_path(episode)
        if last is None or last[0] != path:
            last = (path, tables.read_parquet(path, names))
        yield rows_of_episode(last[1], meta.episodes[episode])


def _kept_pictures(meta: LeRobotDatasetMetadata) -> Iterator[Summaries]:
    """The sketches of pictures that each episode has already."""
    known = stored_cameras(meta)
    rows = stored_stats(meta.root, meta.camera_keys) if known else {}
    for episode in range(len(meta.episodes)):
        yield matching(known.get(episode, []), rows.get(episode, {}), meta.features)


class Cameras:
    """Summaries of the pictures of a dataset, decoded by threads."""

    def __init__(self, meta: LeRobotDatasetMetadata, *, num_workers: int, all_frames: bool) -> None:
        self.meta, self.all_frames = meta, all_frames
        self._threads = ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="stats")
        self._units = {name: self._unit(name) for name in meta.depth_keys}
        self._readers = {
            unit: LeRobotDataset(meta.repo_id, root=meta.root, return_uint8=True, depth_output_unit=unit)
            for unit in sorted(set(self._units.values())) or ["mm"]
        }

    def __enter__(self) -> "Cameras":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for reader in self._readers.values():
            reader.reader.close()

    def summaries(self) -> Iterator[Summaries]:
        """Of each episode in turn, all cameras."""
        return self._threads.map(self._episode, range(len(self.meta.episodes)))

    def _episode(self, episode: int) -> Summaries:
        if not self.meta.camera_keys:
            return {}
        row = self.meta.episodes[episode]
        frames = range(row["length"]) if self.all_frames else sample_indices(row["length"])
        kept: dict[str, list[np.ndarray]] = {name: [] for name in self.meta.camera_keys}
        for start in range(0, len(frames), FRAMES_AT_ONCE):
            rows = [row["dataset_from_index"] + frame for frame in frames[start : start + FRAMES_AT_ONCE]]
            self._count(rows, kept)
        return {
            name: summary_of_depth(one) if name in self._units else summary_of_levels(one)
            for name, one in kept.items()
        }

    def _count(self, rows: list[int], kept: dict[str, list[np.ndarray]]) -> None:
        """Add what the summaries are made of, for the pictures of these rows."""
        first = next(iter(self._readers))
        for unit, reader in self._readers.items():
            batch = reader.batch(rows)
            for name in self.meta.camera_keys:
                if self._units.get(name, first) != unit:
                    continue
                pictures = batch[name].numpy()  # (B, C, H, W)
                if name in self._units:
                    pictures = pictures.astype(np.uint16 if unit == "mm" else np.float32)
                    kept[name] += [thin_picture(picture).copy() for picture in pictures]
                else:
                    if pictures.dtype != np.uint8:
                        pictures = np.rint(pictures * 255).astype(np.uint8)
                    kept[name] += [count_levels(thin_picture(picture)) for picture in pictures]

    def _unit(self, name: str) -> str:
        return (self.meta.features[name].get("info") or {}).get("depth_unit") or "mm"
