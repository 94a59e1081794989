"""Chosen episodes into a new dataset: rows renumbered, videos cut and joined without encoding.

    picks [(dataset, episode), ...] -> data files -> videos -> tasks, meta/episodes, info, stats -> verified

Everything is written into a hidden folder, which takes the new dataset's name when it was read back whole.
Letters: k number of an episode in the new dataset.
"""

import copy
import logging
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core import files, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.config import VideoEncoderConfig
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit import extras, videos
from lerobot.datasets.edit.carry import CarriedStats
from lerobot.datasets.edit.change import Change, Tell, silent
from lerobot.datasets.edit.encoding import encode_segment
from lerobot.datasets.edit.episodes import CarriedColumns, Pick, stats_of, with_stats, write_block
from lerobot.datasets.edit.rows import RowReader, RowWriter, output_schema, stored_schema
from lerobot.datasets.edit.target import Target, staged
from lerobot.datasets.edit.verify import verify
from lerobot.datasets.encoder_info import probe_info, stored_encoder
from lerobot.datasets.join import Segment
from lerobot.datasets.metadata import CODEBASE_VERSION, DATA_PATH, VIDEO_PATH, LeRobotDatasetMetadata
from lerobot.datasets.schema import data_features, is_depth
from lerobot.datasets.stats import Stats, aggregate_stats
from lerobot.datasets.tables import EPISODES_FOLDER, TaskTable

logger = logging.getLogger(__name__)

WORK = ".work"  # inside the hidden folder: files that are needed until the dataset is complete


def check_episodes(meta: LeRobotDatasetMetadata, episodes: Iterable[int]) -> list[int]:
    """The episodes without repetitions, ascending.

    Raises:
        DatasetError: there are none, or one does not exist.
    """
    chosen = sorted({int(episode) for episode in episodes})
    wrong = [episode for episode in chosen if not 0 <= episode < meta.total_episodes]
    if wrong or not chosen:
        raise DatasetError(
            f"Episodes {chosen}: {f'{wrong[0]} does not exist' if wrong else 'none chosen'}; "
            f"{meta.repo_id!r} has {meta.total_episodes} (0 to {meta.total_episodes - 1})."
        )
    return chosen


def all_episodes(meta: LeRobotDatasetMetadata) -> list[Pick]:
    """Every episode of a dataset.

    Raises:
        DatasetError: it has none.
    """
    if not meta.total_episodes:
        raise DatasetError(f"{meta.repo_id!r} has no episodes, so there is nothing to edit.")
    return [(meta, episode) for episode in range(meta.total_episodes)]


def dataset_stats(blocks: Iterable[list[Stats]]) -> Stats:
    """Statistics of a whole dataset, from those of its episodes as they come, some thousand at a time."""
    merged: Stats = {}
    for block in blocks:
        merged = aggregate_stats([merged, *block] if merged else block)
    return merged


@dataclass(kw_only=True)
class Copy:
    """One new dataset made of episodes of others; `lines` says what `run` will do.

    Raises:
        DatasetError: the folder exists, the sources are damaged, or a video cannot be cut.
    """

    target: Target
    picks: list[Pick]
    features: dict[str, dict]
    renamed: dict[str, str] = field(default_factory=dict)  # old feature name -> new
    change: Change = field(default_factory=Change)
    stats: Stats | None = None  # of the new dataset; what is not here is put together from the episodes'
    info: dict[str, Any] = field(default_factory=dict)  # keys of info.json that are other than the first's
    joins_data: bool = True  # rows of different source files may share a file
    joins_videos: bool = True  # so may videos
    scatters: bool = False  # fill new files to the limit, wherever their episodes were
    may_encode: bool = False  # episodes whose videos cannot be cut out are encoded again
    encoders: dict[str, VideoEncoderConfig] = field(default_factory=dict)  # cameras to be encoded anew
    num_workers: int = 0  # threads that encode
    encoder_threads: int | None = None

    def __post_init__(self) -> None:
        self.target.check()
        for meta in {id(meta): meta for meta, _ in self.picks}.values():
            if not any((meta.root / EPISODES_FOLDER).glob("*/*.parquet")):
                raise DatasetError(
                    f"{meta.root} is in format {meta.info['codebase_version']}. Convert it first: "
                    f"lerobot-edit-dataset --repo_id={meta.repo_id} --operation.type=convert"
                )
        self.features = copy.deepcopy(self.features)
        self.rows: list[dict[str, Any]] = []  # what meta/episodes says anew
        self.tasks: dict[str, int] = {}
        self.done = 0

    # --- the plan

    @property
    def first(self) -> LeRobotDatasetMetadata:
        """The dataset whose settings the new one inherits."""
        return self.picks[0][0]

    @property
    def video_keys(self) -> list[str]:
        """Cameras of the new dataset that are videos."""
        return [name for name, feature in self.features.items() if feature["dtype"] == "video"]

    @cached_property
    def lengths(self) -> list[int]:
        """Frames of each episode."""
        columns = {id(meta): meta.episodes["length"] for meta, _ in self.picks}
        return [int(columns[id(meta)][episode]) for meta, episode in self.picks]

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the new data files."""
        paths = dict.fromkeys(m.root / m.get_data_file_path(e) for m, e in self.picks)
        stored = [stored_schema(path) for path in paths]
        kept = data_features(self.features)
        declared = {name for meta, _ in self.picks[:1] for name in meta.features}
        schema = output_schema(self.features, stored, self.renamed, gone=declared - set(kept))
        lost = {name for one in stored for name in one.names} - declared - set(schema.names)
        if lost:
            logger.warning("Columns that not every data file has stay behind: %s.", ", ".join(sorted(lost)))
        return schema

    @cached_property
    def pieces(self) -> dict[str, list[videos.Piece]]:
        """What is taken out of the source videos, by camera."""
        old = {new: name for name, new in self.renamed.items()}
        found = {}
        for key in self.video_keys:
            if key in self.change.makes_videos:
                continue
            segments = videos.source_segments(self.picks, old.get(key, key))
            if key in self.encoders:
                found[key] = videos.encoded_pieces(segments)
            else:
                found[key] = videos.cut_pieces(segments, single=self.scatters)
        if not self.may_encode:
            videos.refuse_encoding({k: v for k, v in found.items() if k not in self.encoders}, self.picks)
        return found

    def group(self, pieces: list[videos.Piece]) -> list[videos.NewFile]:
        """Pieces as the files they will be."""
        limit = self.setting("video_files_size_in_mb")
        return videos.group_pieces(pieces, limit_mb=limit, joins=self.joins_videos, scatters=self.scatters)

    def setting(self, name: str) -> Any:
        """A size limit of the new dataset."""
        return self.info.get(name, getattr(self.first, name))

    @property
    def total(self) -> int:
        """Frames of all series: what progress is counted in. Everything is planned when it is known."""
        _ = self.schema
        encoded = sum(one.segment.length for some in self.pieces.values() for one in some if one.encodes)
        return sum(self.lengths) * (1 + len(self.video_keys)) + encoded

    def lines(self) -> list[str]:
        """What `run` will read, write, encode and leave out."""
        from lerobot.datasets.edit.describe import describe  # it reads this class

        return describe(self)

    # --- the work

    def run(self, tell: Tell = silent) -> LeRobotDataset:
        """Make the new dataset; `tell` hears how many of `total` frames are done."""
        total, self.done = self.total, 0

        def advance(frames: int) -> None:
            self.done += frames
            tell(self.done, total)

        with staged(self.target) as folder:
            work = folder / WORK
            work.mkdir()
            try:
                self.change.start(work)
                self._write_rows(folder, advance)
                for key in self.video_keys:
                    self._write_videos(folder, key, advance)
            finally:
                self.change.stop()
            shutil.rmtree(work)
            self._write_meta(folder)
            for line in extras.carry(folder, self.picks, self.rows):
                logger.warning("%s", line)
            verify(self.target.repo_id, folder)
        return LeRobotDataset(self.target.repo_id, root=self.target.root)

    def _write_rows(self, folder: Path, advance: Any) -> None:
        reader, start = RowReader(), 0
        writer = RowWriter(
            folder,
            schema=self.schema,
            limit_mb=self.setting("data_files_size_in_mb"),
            chunks_size=self.first.chunks_size,
            joins=self.joins_data,
        )
        self.new_stats: list[Stats] = []
        self.carried_stats = CarriedStats(
            folder,
            self.target.repo_id,
            features=self.features,
            sources=[source for source, _ in self.picks],
            renamed=self.renamed,
        )
        for k, (source, episode) in enumerate(self.picks):
            table = self.change.rows(k, self._rename_columns(reader.episode(source, episode)))
            row: dict[str, Any] = {"episode_index": k, "tasks": [], "length": len(table)}
            row |= {"data/chunk_index": 0, "data/file_index": 0}
            row |= {"dataset_from_index": start, "dataset_to_index": start + len(table)}
            table = self._numbered(k, table, row)
            place = writer.write(table, source.root / source.get_data_file_path(episode))
            row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
            self.new_stats.append(self.change.stats(k, table) | self.carried_stats.rows(table))
            self.rows.append(row)
            start += len(table)
            advance(len(table))
        writer.close()

    def _rename_columns(self, table: pa.Table) -> pa.Table:
        return table.rename_columns([self.renamed.get(name, name) for name in table.column_names])

    def _numbered(self, k: int, table: pa.Table, row: dict[str, Any]) -> pa.Table:
        """The episode's rows under their new numbers; tasks get numbers in the order they appear."""
        source = self.picks[k][0]
        old, first, where = np.unique(
            table.column(keys.TASK_INDEX).to_numpy(), return_index=True, return_inverse=True
        )
        names = [self.change.task(k, source.tasks.name(int(index))) for index in old]
        for name in (names[i] for i in np.argsort(first)):
            self.tasks.setdefault(name, len(self.tasks))
            row["tasks"] = list(dict.fromkeys([*row["tasks"], name]))
        columns = {
            keys.EPISODE_INDEX: np.full(len(table), k),
            keys.INDEX: np.arange(row["dataset_from_index"], row["dataset_to_index"]),
            keys.TASK_INDEX: np.array([self.tasks[name] for name in names])[where.reshape(-1)],
        }
        for name, values in columns.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))
        return table

    def _write_videos(self, folder: Path, key: str, advance: Any) -> None:
        if key in self.change.makes_videos:
            pieces = videos.cut_pieces(self.change.segments(key), single=True)
        else:
            pieces = self._encode(folder / WORK, key, advance)
        made = self.group(pieces)
        videos.write_videos(
            folder,
            key,
            made,
            rows=self.rows,
            fps=self.first.fps,
            chunks_size=self.first.chunks_size,
            copy=self._copy_file,
            tell=advance,
        )
        if key in self.encoders:
            path = folder / VIDEO_PATH.format(video_key=key, chunk_index=0, file_index=0)
            info = self.features[key].get("info") or {}
            self.features[key]["info"] = info | probe_info(path, self.encoders[key])

    def _encode(self, work: Path, key: str, advance: Any) -> list[videos.Piece]:
        """The pieces of a camera, those that must be encoded as files of their own."""
        pieces = [copy.copy(piece) for piece in self.pieces[key]]
        jobs = [piece for piece in pieces if piece.encodes]
        if not jobs:
            return pieces
        config = self.encoders.get(key) or stored_encoder(self.features[key], key)

        def encode(piece: videos.Piece) -> int:
            out = work / f"{key}-{piece.episodes[0]}.mp4"
            encode_segment(
                piece.segment, out, fps=self.first.fps, config=config, threads=self.encoder_threads
            )
            piece.segment = Segment(path=out, start=0, length=piece.segment.length)
            piece.size, piece.encodes = float(out.stat().st_size), False
            return piece.segment.length

        with ThreadPoolExecutor(max(1, self.num_workers)) as pool:
            for length in pool.map(encode, jobs):
                advance(length)
        return pieces

    def _copy_file(self, source: Path, out: Path) -> None:
        """A file as it is; an in-place edit shares it with the backup, which saves the space."""
        if self.target.replaces and source.is_relative_to(self.target.root):
            try:
                os.link(source, out)
                return
            except OSError:
                logger.debug("%s cannot be linked and is copied.", source)
        shutil.copyfile(source, out)

    def _write_meta(self, folder: Path) -> None:
        """Tasks, table of episodes, statistics; then info.json, which makes the folder a dataset."""
        carried = CarriedColumns(self.picks, features=self.features, renamed=self.renamed)
        # What is given was read for use, where distances are expressed in the unit that was asked for.
        given = {k: v for k, v in (self.stats or {}).items() if not is_depth(self.features.get(k, {}))}
        at, all_stats = 0, []
        for number, block in enumerate(carried.blocks()):
            rows = self.rows[at : at + len(block)]
            if any(self.new_stats[at : at + len(block)]):
                block = with_stats(block, self.new_stats[at : at + len(block)])
            write_block(folder, number, block, rows=rows, chunks_size=self.first.chunks_size)
            stored = stats_of(block)
            for (source, episode), one in zip(self.picks[at : at + len(block)], stored, strict=True):
                self.carried_stats.pictures(source, episode, one)
            all_stats.append(dataset_stats([stored]))
            at += len(block)
        TaskTable(list(self.tasks)).save(folder)
        stats = dataset_stats([all_stats]) | given | self.carried_stats.finish()
        plain = {
            name: {stat: np.asarray(value).tolist() for stat, value in one.items()}
            for name, one in stats.items()
            if name in self.features
        }
        files.write_json(folder / keys.STATS_FILE, plain)
        files.write_json(folder / keys.INFO_FILE, self._info())

    def _info(self) -> dict[str, Any]:
        """The first source's info.json, unknown keys included, with what is new."""
        shaped = {name: {**one, "shape": list(one["shape"])} for name, one in self.features.items()}
        return {
            **self.first.info,
            "codebase_version": CODEBASE_VERSION,
            "features": shaped,
            "total_episodes": len(self.rows),
            "total_frames": sum(row["length"] for row in self.rows),
            "total_tasks": len(self.tasks),
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.video_keys else None,
            "splits": {"train": f"0:{len(self.rows)}"},
            **self.info,
        }
