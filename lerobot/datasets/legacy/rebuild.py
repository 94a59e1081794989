"""The files of format v3.0 written from the view of an older layout, and compared with it.

    source files, one after the other = all frames -> episodes -> data files, videos, meta/

Shapes: T frames of an episode, C H W picture.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import compact, config, tables
from lerobot.datasets.join import join_videos, stream_kind
from lerobot.datasets.legacy import defaults
from lerobot.datasets.legacy.pieces import Piece, copied_packets, pieces_of, rows_of
from lerobot.datasets.legacy.recount import episode_stats
from lerobot.datasets.legacy.view import View, open_view, peek_info
from lerobot.datasets.metadata import (
    CODEBASE_VERSION,
    DATA_PATH,
    VIDEO_PATH,
    LeRobotDatasetMetadata,
    check_info,
)
from lerobot.datasets.schema import DEFAULT_FEATURES, IMAGE_DTYPES, data_features, frame_schema
from lerobot.datasets.stats import Stats, aggregate_stats

logger = logging.getLogger(__name__)

ROWS_PER_TABLE = 5000  # of meta/episodes
# In the order that LeRobot writes them.
INFO_ORDER = [
    *("codebase_version", "fps", "features", "total_episodes", "total_frames", "total_tasks", "chunks_size"),
    *("data_files_size_in_mb", "video_files_size_in_mb", "data_path", "video_path"),
]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset in an older layout, opened to be converted."""

    root: Path
    view: View
    info: dict[str, Any]

    @classmethod
    def open(cls, root: Path) -> "Source":
        """The dataset in this folder.

        Raises:
            DatasetError: it is in format v3.0 already, or damaged.
        """
        view = open_view(root, may_tear=True)
        if view is None:
            version = peek_info(root).get("codebase_version")
            raise DatasetError(
                f"{root} is in format {version} already; there is nothing to convert."
                if version
                else f"{root} holds no {keys.INFO_FILE} that can be read. Type: lerobot-doctor {root}"
            )
        source = cls(root=root, view=view, info=check_info(root / keys.INFO_FILE, view.info))
        if not source.lengths:
            raise DatasetError(f"{root} has no episodes, so there is nothing to convert.")
        return source

    @property
    def lengths(self) -> list[int]:
        """Frames of each episode."""
        return [int(length) for length in self.view.episodes["length"]]

    @property
    def cameras(self) -> list[str]:
        """Cameras stored as video, sorted."""
        return sorted(name for name in self.view.files if name != "data")

    def rows(self) -> Iterator[pa.Table]:
        """The rows of each episode, with all default columns.

        Raises:
            DatasetError: a file is damaged, lacks a column, or has other rows than its episodes.
        """
        names = [n for n in data_features(self.info["features"]) if n not in self.view.missing_columns]
        made = defaults.default_columns
        for episode, table in enumerate(rows_of(self.view.files["data"], names, self.lengths)):
            missing = self.view.missing_columns
            if missing:
                own = made(self.view.episodes, self.view.tasks, [episode], fps=self.info["fps"])
                for name in missing:
                    table = table.append_column(name, pa.array(own[name]))
            yield table

    def pieces(self, camera: str) -> list[list[Piece]]:
        """Where each episode's pictures are."""
        return pieces_of(self.view.files[camera], self.lengths)

    def __str__(self) -> str:
        return f"{len(self.lengths)} episodes, {sum(self.lengths)} frames, {len(self.cameras)} videos each"


def rebuild(
    source: Source, out: Path, *, repo_id: str, data_file_size_in_mb: float, video_file_size_in_mb: float
) -> None:
    """Write the dataset in format v3.0 into the folder `out`.

    Raises:
        DatasetError: the source is damaged.
    """
    info = _info(source, data_file_size_in_mb, video_file_size_in_mb)
    source.view.tasks.save(out)
    rows: list[dict[str, Any]] = [{keys.EPISODE_INDEX: k} for k in range(len(source.lengths))]
    _write_data(source, out, rows, info)
    for camera in source.cameras:
        _write_videos(source, out, rows, info, camera)
    _add_told(source, rows)
    _write_info(out, info)
    files.write_json(out / keys.STATS_FILE, {})
    _write_table(out, rows)
    stats = _all_stats(source, out, repo_id)
    for row, one in zip(rows, stats, strict=True):
        row |= tables.flatten_stats({k: _as_float(v) for k, v in one.items()})
    _write_table(out, rows)
    whole = aggregate_stats(stats)
    plain = {k: {stat: np.asarray(v).tolist() for stat, v in one.items()} for k, one in whole.items()}
    files.write_json(out / keys.STATS_FILE, plain)
    _compare_stats(source, whole)


def _info(source: Source, data_limit: float, video_limit: float) -> dict[str, Any]:
    """info.json in the words of v3.0; what somebody added to it is kept."""
    given = source.info
    fps = int(given["fps"]) if float(given["fps"]).is_integer() else given["fps"]
    features = {}
    for name, one in {**given["features"], **{k: given["features"][k] for k in DEFAULT_FEATURES}}.items():
        own = {**one, "shape": tuple(one["shape"])}
        own.setdefault("names", None)
        features[name] = own if own["dtype"] == "video" else {**own, "fps": fps}
    described = given | {
        "codebase_version": CODEBASE_VERSION,
        "fps": fps,
        "features": features,
        "total_episodes": len(source.lengths),
        "total_frames": sum(source.lengths),
        "total_tasks": len(source.view.tasks),
        "chunks_size": given.get("chunks_size") or config.CHUNKS_SIZE,
        "data_files_size_in_mb": data_limit,
        "video_files_size_in_mb": video_limit,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if source.cameras else None,
        "splits": given.get("splits") or {"train": f"0:{len(source.lengths)}"},
    }
    described.setdefault("robot_type", None)
    return {key: described[key] for key in (*INFO_ORDER, *described) if key in described}


def _write_info(out: Path, info: dict[str, Any]) -> None:
    shaped = {name: {**one, "shape": list(one["shape"])} for name, one in info["features"].items()}
    files.write_json(out / keys.INFO_FILE, {**info, "features": shaped})


def _write_data(source: Source, out: Path, rows: list[dict[str, Any]], info: dict[str, Any]) -> None:
    """Data files with one row group per episode, up to the limit of uncompressed size."""
    schema, limit = frame_schema(info["features"]), info["data_files_size_in_mb"] * compact.MIB
    place, size, renumbered, start = (0, 0), 0, 0, 0
    writer: pq.ParquetWriter | None = None
    for row, table in zip(rows, source.rows(), strict=True):
        table, changed = _renumbered(table, row[keys.EPISODE_INDEX], start)
        renumbered += changed
        if writer is not None and size + table.nbytes >= limit:
            writer.close()
            writer, place, size = None, compact.advance(place, info["chunks_size"]), 0
        if writer is None:
            path = out / info["data_path"].format(chunk_index=place[0], file_index=place[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(path, schema)
        writer.write_table(_cast(table, schema, row[keys.EPISODE_INDEX]), row_group_size=len(table))
        size, length = size + table.nbytes, len(table)
        row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
        row |= {"dataset_from_index": start, "dataset_to_index": start + length}
        start += length
    if writer is not None:
        writer.close()
    if renumbered:
        logger.warning("%d rows had another episode_index, frame_index or index; put right.", renumbered)


def _cast(table: pa.Table, schema: pa.Schema, episode: int) -> pa.Table:
    try:
        return table.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise DatasetError(
            f"Episode {episode} does not fit the features in {keys.INFO_FILE}: {error}"
        ) from error


def _renumbered(table: pa.Table, episode: int, start: int) -> tuple[pa.Table, int]:
    """The episode's rows with index columns that say where they are, and how many rows that changed."""
    frames = np.arange(len(table))
    right = {keys.EPISODE_INDEX: np.full(len(table), episode), keys.FRAME_INDEX: frames}
    right[keys.INDEX] = start + frames
    wrong = np.zeros(len(table), bool)
    for name, values in right.items():
        wrong |= table.column(name).to_numpy() != values
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))
    return table, int(wrong.sum())


def _write_videos(
    source: Source, out: Path, rows: list[dict[str, Any]], info: dict[str, Any], camera: str
) -> None:
    """One camera's videos, joined up to the limit; episodes of another codec or size begin a new file."""
    limit, chunks_size, fps = info["video_files_size_in_mb"] * compact.MIB, info["chunks_size"], info["fps"]
    place, size, at = (0, 0), 0.0, 0
    group: list[Piece] = []
    kinds = {path: stream_kind(path) for path in source.view.files[camera] if _is_there(path)}

    def write() -> None:
        path = out / info["video_path"].format(video_key=camera, chunk_index=place[0], file_index=place[1])
        segments = [piece.segment for piece in group]
        files.write_atomically(path, lambda part: join_videos(segments, part, fps=fps))

    for row, pieces in zip(rows, source.pieces(camera), strict=True):
        own = sum(piece.size for piece in pieces)
        if len({kinds[piece.path] for piece in pieces}) > 1:
            raise DatasetError(
                f"{pieces[0].path} and {pieces[-1].path} share an episode and differ in codec."
            )
        if group and (size + own >= limit or kinds[pieces[0].path] != kinds[group[-1].path]):
            write()
            place, size, at, group = compact.advance(place, chunks_size), 0.0, 0, []
        group += pieces
        length = sum(piece.length for piece in pieces)
        row |= {f"videos/{camera}/chunk_index": place[0], f"videos/{camera}/file_index": place[1]}
        row |= {
            f"videos/{camera}/from_timestamp": at / fps,
            f"videos/{camera}/to_timestamp": (at + length) / fps,
        }
        size, at = size + own, at + length
    write()


def _is_there(path: Path) -> bool:
    if not path.is_file():
        raise DatasetError(f"{path} is missing. Load the dataset with force_cache_sync=True to download it.")
    return True


def _add_told(source: Source, rows: list[dict[str, Any]]) -> None:
    """What meta/episodes.jsonl says about each episode, beside where it lies."""
    told = [n for n in source.view.episodes.columns if "/" not in n and not n.startswith("dataset_")]
    for row in rows:
        episode = row[keys.EPISODE_INDEX]
        row |= {name: source.view.episodes[name][episode] for name in told}


def _write_table(out: Path, rows: list[dict[str, Any]]) -> None:
    place = (0, 0)
    for start in range(0, len(rows), ROWS_PER_TABLE):
        some = rows[start : start + ROWS_PER_TABLE]
        for row in some:
            row |= {"meta/episodes/chunk_index": place[0], "meta/episodes/file_index": place[1]}
        path = out / tables.EPISODES_PATH.format(chunk_index=place[0], file_index=place[1])
        tables.write_episode_rows(path, some)
        place = compact.advance(place, config.CHUNKS_SIZE)


def _all_stats(source: Source, out: Path, repo_id: str) -> list[Stats]:
    """Statistics of every episode: carried over, or computed from the new files."""
    known = source.view.episodes.own_stats
    unknown = [k for k in range(len(source.lengths)) if k not in known]
    if unknown:
        logger.info("Computing the statistics of %d episodes.", len(unknown))
    computed = episode_stats(repo_id, out, unknown) if unknown else {}
    return [known[k] if k in known else computed[k] for k in range(len(source.lengths))]


def _as_float(stats: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As the episode table stores them: numbers, not flags."""
    return {k: v if k == "count" else np.asarray(v, dtype=np.float64) for k, v in stats.items()}


def _compare_stats(source: Source, whole: Stats) -> None:
    """Say when the old statistics of the whole dataset are not those of its frames."""
    if source.view.episodes.own_stats:
        return  # they are the sum of what was carried over
    features = source.info["features"]
    for name in set(source.view.stats) & set(whole):
        old, new = source.view.stats[name].get("mean"), whole[name]["mean"]
        slack = 0.02 if features[name]["dtype"] in IMAGE_DTYPES else 1e-3  # pixels were sampled otherwise
        room = slack + 0.05 * float(whole[name]["std"].max())
        if old is not None and (np.shape(old) != np.shape(new) or not np.allclose(old, new, 1e-3, room)):
            logger.warning("The mean of %s in %s was not that of the data.", name, keys.STATS_FILE)


def verify(source: Source, made: Path, *, repo_id: str) -> None:
    """Return when the folder `made` holds every row and every picture of the source.

    Raises:
        DatasetError: it does not; names the first difference.
    """
    meta = LeRobotDatasetMetadata(repo_id, made)
    episodes, lengths = range(len(source.lengths)), source.lengths
    schema, start = frame_schema(meta.features), 0
    paths = dict.fromkeys(made / meta.get_data_file_path(k) for k in episodes)
    written = rows_of(list(paths), schema.names, lengths)
    for episode, (old, new) in enumerate(zip(source.rows(), written, strict=True)):
        wanted = _cast(_renumbered(old, episode, start)[0], schema, episode)
        if not wanted.equals(new.cast(schema)):
            raise DatasetError(f"The rows of episode {episode} differ after writing; nothing was changed.")
        start += len(old)
    for camera in source.cameras:
        paths = dict.fromkeys(made / meta.get_video_file_path(k, camera) for k in episodes)
        before = copied_packets([one for pieces in source.pieces(camera) for one in pieces])
        after = copied_packets([one for pieces in pieces_of(list(paths), lengths) for one in pieces])
        for number, (old_packet, new_packet) in enumerate(zip(before, after, strict=True)):
            if old_packet != new_packet:
                raise DatasetError(
                    f"Picture {number} of {camera!r} differs after copying; nothing was changed."
                )
