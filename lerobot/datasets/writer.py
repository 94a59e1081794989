"""Episodes onto the disk: every saved episode is whole and durable, whatever happens afterwards.

    add_frame: checked -> numbers kept | pictures encoded by threads
    save_episode: videos -> data file -> tasks -> row in meta/episodes (the commit) -> info.json, stats.json
    finalize: small files joined up to the size limits (compact.py)

Every file is written aside, forced to disk and renamed. Until finalize each episode has files of its own.
What comes before the commit and is not followed by it is never looked at by readers; `repair` deletes it.
Shapes: T frames of the episode, C H W picture.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.core.errors import DatasetError, FrameError
from lerobot.datasets import compact, depth, images, tables
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig, VideoEncoderConfig
from lerobot.datasets.depth import DepthScale
from lerobot.datasets.encoder import VideoEncoder, probe_info
from lerobot.datasets.frames import FrameCheck
from lerobot.datasets.ledger import EPISODES_PER_SAVE, Ledger, Summaries, stats_of
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import (
    DEFAULT_FEATURES,
    column_array,
    data_features,
    frame_schema,
    is_depth,
    is_numeric,
)
from lerobot.datasets.stats import Stats, aggregate_stats
from lerobot.datasets.summary import Summary
from lerobot.datasets.tally import PictureTally

logger = logging.getLogger(__name__)

ROWS_PER_FILE = 64  # episodes in one file of meta/episodes while recording; the file is rewritten for each
Position = tuple[int, int]  # chunk and file number


class EpisodeWriter:
    """Records episodes into one dataset.

    Args:
        queue_size: frames per camera that may wait for the encoder.
        picture_threads: threads that encode pictures of image features.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        *,
        rgb_encoder: VideoEncoderConfig | None = None,
        depth_encoder: DepthEncoderConfig | None = None,
        queue_size: int = 30,
        encoder_threads: int | None = None,
        picture_threads: int = 0,
    ) -> None:
        self.meta = meta
        self.rgb_encoder = rgb_encoder or RGBEncoderConfig()
        self.depth_encoder = depth_encoder or DepthEncoderConfig()
        self.queue_size, self.encoder_threads = queue_size, encoder_threads
        self.check = FrameCheck(meta.features)
        self.is_finalized = False
        self.ledger = Ledger.open(meta)
        self._threads = ThreadPoolExecutor(max_workers=max(1, picture_threads), thread_name_prefix="picture")
        self._table_rows: list[dict[str, Any]] = []  # rows of the file of meta/episodes that is being filled
        self._table_at: Position = (0, 0)
        self._data_at: Position = (0, 0)
        self._video_at: dict[str, Position] = {}
        self._find_positions()
        self._first_new = meta.total_episodes  # what was there before keeps its files of meta/episodes
        self._start_episode()

    def add_frame(self, frame: dict[str, Any]) -> None:
        """See `LeRobotDataset.add_frame`."""
        values, task = self.check(frame)
        self._check_depth_units(values)
        self.is_finalized = False
        for name, value in values.items():
            feature = self.meta.features[name]
            if feature["dtype"] == "video":
                self._tallies[name].add(value)
                self._encoder(name).add(self._video_levels(name, value))
            elif feature["dtype"] == "image":
                self._tallies[name].add(value)
                self._columns[name].append(self._threads.submit(images.encode, value))
            else:
                self._columns[name].append(value)
        self._tasks.append(task)

    @property
    def num_pending(self) -> int:
        """Frames of the episode being recorded."""
        return len(self._tasks)

    def clear(self) -> None:
        """Throw the episode being recorded away."""
        for encoder in self._encoders.values():
            encoder.abort()
        for column in self._columns.values():
            for value in column:
                if isinstance(value, Future):
                    value.cancel()
        self._start_episode()

    def save_episode(self) -> None:
        """See `LeRobotDataset.save_episode`."""
        if not self._tasks:
            raise DatasetError("There are no frames to save. Call add_frame() before save_episode().")
        written: list[Path] = []
        try:
            row = self._write_files(written)
        except BaseException:
            self.clear()
            for path in written:
                path.unlink(missing_ok=True)
            raise
        try:
            self._commit(row)
        finally:  # the row may be on disk even if something after it failed, so its files stay
            self._data_at = compact.advance(self._data_at, self.meta.chunks_size)
            self._video_at = {
                k: compact.advance(at, self.meta.chunks_size) for k, at in self._video_at.items()
            }
            self._start_episode()

    def finalize(self) -> None:
        """Drop an unsaved episode, and join the small files of saved ones."""
        if self._tasks:
            logger.warning("%d frames of an episode that was not saved are dropped.", self.num_pending)
        self.clear()
        if not self.is_finalized and self.meta.total_episodes:
            compact.compact(self.meta, first_new=self._first_new)
            self._table_rows = []
            self._find_positions()
            self.ledger.save()
        self.is_finalized = True

    def repair(self) -> None:
        """Delete what an interrupted recording left, and bring counters and statistics up to date."""
        removed = compact.remove_leftovers(self.meta)
        for path in removed:
            logger.warning("Removed %s, left by an interrupted recording.", path)
        if self.meta.is_behind or self._stats_are_behind():
            last = self.meta.episodes.stats(self.meta.total_episodes - 1)
            if self._stats_are_behind():
                self.meta.stats = self._stats_with(last)
            self.meta.save_info()
            self.meta.save_stats()

    def _stats_are_behind(self) -> bool:
        """Whether the last episode is missing in meta/stats.json."""
        counted = int(np.ravel(self.meta.stats.get(keys.INDEX, {}).get("count", 0))[0])
        lengths = self.meta.episodes.columns.get("length", [])
        return bool(lengths) and counted == self.meta.total_frames - lengths[-1]

    # --- one episode

    def _find_positions(self) -> None:
        """Where the next file of each series goes."""
        self._table_at = next_table_position(self.meta)
        self._data_at = next_position(self.meta, "data")
        self._video_at = {key: next_position(self.meta, f"videos/{key}") for key in self.meta.video_keys}

    def _start_episode(self) -> None:
        features = self.meta.features
        self._columns: dict[str, list] = {
            name: [] for name in data_features(features) if name not in DEFAULT_FEATURES
        }
        self._tallies = {
            name: PictureTally(is_depth=is_depth(features[name])) for name in self.meta.camera_keys
        }
        self._encoders: dict[str, VideoEncoder] = {}
        self._units: dict[str, str] = {}
        self._tasks: list[str] = []

    def _check_depth_units(self, values: dict[str, Any]) -> None:
        """A depth camera's frames are all millimetres or all metres, through the whole dataset."""
        for name in self.meta.depth_keys:
            stored = (self.meta.features[name].get("info") or {}).get("depth_unit")
            unit = depth.unit_of(values[name].dtype)
            known = self._units.setdefault(name, stored or unit)
            if unit != known:
                raise FrameError(
                    f"Frame: {name!r} is {values[name].dtype} ({unit}) and earlier frames are in {known}. "
                    f"Give {'uint16 millimetres' if known == 'mm' else 'float32 metres'} as before."
                )

    def _encoder(self, name: str) -> VideoEncoder:
        if name not in self._encoders:
            path = self.meta.root / self.meta.video_file(name, *self._video_at[name])
            self._encoders[name] = VideoEncoder(
                files.part_path(path),
                fps=self.meta.fps,
                config=self._encoder_config(name),
                queue_size=self.queue_size,
                threads=self.encoder_threads,
            )
        return self._encoders[name]

    def _encoder_config(self, name: str) -> VideoEncoderConfig:
        return self.depth_encoder if is_depth(self.meta.features[name]) else self.rgb_encoder

    def _video_levels(self, name: str, picture: np.ndarray) -> np.ndarray:
        """What the encoder is given: colours as they are, depth as 12-bit levels (H, W)."""
        if not is_depth(self.meta.features[name]):
            return picture
        config = self.depth_encoder
        scale = DepthScale(
            depth_min=config.depth_min, depth_max=config.depth_max, shift=config.shift, use_log=config.use_log
        )
        return scale.quantize(picture[0])

    # --- onto the disk

    def _write_files(self, written: list[Path]) -> dict[str, Any]:
        """Everything of the episode but its row in meta/episodes, which is returned."""
        length, episode = len(self._tasks), len(self.meta.episodes)
        parts = {name: encoder.finish() for name, encoder in self._encoders.items()}
        tasks = self.meta.tasks.with_tasks(self._tasks)
        columns = self._episode_columns(tasks)
        summaries = self._episode_summaries(columns)
        self._summaries, self._stats = summaries, stats_of(summaries, self.meta.features)
        row: dict[str, Any] = {
            "episode_index": episode,
            "tasks": list(dict.fromkeys(self._tasks)),
            "length": length,
        }
        row |= self._write_data(columns, written)
        row |= {
            "dataset_from_index": self.meta.total_frames,
            "dataset_to_index": self.meta.total_frames + length,
        }
        for name, part in parts.items():
            row |= self._move_video(name, part, written)
        if len(tasks) > len(self.meta.tasks):
            tasks.save(self.meta.root)
        self.meta.tasks = tasks
        row |= tables.flatten_stats(self._stats)
        self.ledger.note(summaries, episode=episode)
        return row

    def _episode_columns(self, tasks: tables.TaskTable) -> dict[str, Any]:
        """Every column of the data file: arrays (T, ...), lists for texts and pictures."""
        length = len(self._tasks)
        columns: dict[str, Any] = {}
        frames = np.arange(length, dtype=np.int64)
        for name, values in self._columns.items():
            feature = self.meta.features[name]
            if feature["dtype"] == "image":
                has_depth = is_depth(feature)
                columns[name] = [
                    {"bytes": value.result(), "path": images.file_name(k, is_depth=has_depth)}
                    for k, value in enumerate(values)
                ]
            else:
                columns[name] = np.stack(values) if is_numeric(feature) else values
        columns[keys.TIMESTAMP] = frames / self.meta.fps
        columns[keys.FRAME_INDEX] = frames
        columns[keys.EPISODE_INDEX] = np.full(length, len(self.meta.episodes), dtype=np.int64)
        columns[keys.INDEX] = frames + self.meta.total_frames
        columns[keys.TASK_INDEX] = np.array([tasks.index(task) for task in self._tasks], dtype=np.int64)
        return columns

    def _episode_summaries(self, columns: dict[str, Any]) -> Summaries:
        found: Summaries = {}
        for name, feature in self.meta.features.items():
            if name in self._tallies:
                found[name] = self._tallies[name].summary()
            elif is_numeric(feature):
                stored = columns[name].astype(np.dtype(feature["dtype"]))  # timestamps are rounded
                found[name] = Summary.of_rows(stored)
        return found

    def _write_data(self, columns: dict[str, Any], written: list[Path]) -> dict[str, int]:
        """The episode's own data file, one row group."""
        schema, features = frame_schema(self.meta.features), self.meta.features
        columns[keys.TIMESTAMP] = columns[keys.TIMESTAMP].astype(np.float32)
        arrays = [column_array(columns[field.name], field, features[field.name]) for field in schema]
        table = pa.Table.from_arrays(arrays, schema=schema)
        chunk, file = self._data_at
        path = self.meta.root / self.meta.data_file(chunk, file)
        written.append(path)
        files.write_atomically(path, lambda part: pq.write_table(table, part, row_group_size=len(table)))
        return {"data/chunk_index": chunk, "data/file_index": file}

    def _move_video(self, name: str, part: Path, written: list[Path]) -> dict[str, int | float]:
        """Put a camera's encoded episode in its place, and note the camera's facts when it is the first."""
        chunk, file = self._video_at[name]
        path, length = self.meta.root / self.meta.video_file(name, chunk, file), len(self._tasks)
        if self._encoders[name].num_frames != length:
            raise DatasetError(
                f"{part} has {self._encoders[name].num_frames} frames, the episode has {length}."
            )
        written.append(path)
        files.move_into_place(part, path)
        place = f"videos/{name}"
        return {
            f"{place}/chunk_index": chunk,
            f"{place}/file_index": file,
            f"{place}/from_timestamp": 0.0,
            f"{place}/to_timestamp": length / self.meta.fps,
        }

    def _commit(self, row: dict[str, Any]) -> None:
        """Add the episode's row, by one rename; then bring counters and statistics up to date."""
        if len(self.meta.episodes) == 0:
            self._describe_cameras(row)
            self.meta.save_info()  # readers need the cameras' facts as soon as the row is there
        if len(self._table_rows) >= ROWS_PER_FILE:
            self._table_rows, self._table_at = [], compact.advance(self._table_at, self.meta.chunks_size)
        chunk, file = self._table_at
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        path = self.meta.root / tables.EPISODES_PATH.format(chunk_index=chunk, file_index=file)
        tables.write_episode_rows(path, [*self._table_rows, row])
        self._table_rows.append(row)
        self.meta.episodes.append(row, (path, len(self._table_rows) - 1))
        self.ledger.add(self._summaries)
        self.meta.stats = self._stats_with(self._stats)
        self.meta.set_totals()
        self.meta.save_info()
        self.meta.save_stats()
        if len(self.meta.episodes) % EPISODES_PER_SAVE == 0:
            self.ledger.save()

    def _stats_with(self, episode: Stats) -> Stats:
        """The dataset's statistics after this episode: exact where all summaries are known."""
        exact = self.ledger.stats()
        known = [{k: v for k, v in one.items() if k not in exact} for one in (self.meta.stats, episode)]
        return aggregate_stats([one for one in known if one]) | exact

    def _describe_cameras(self, row: dict[str, Any]) -> None:
        """What info.json says about each camera once there is a picture of it."""
        for name in self.meta.camera_keys:
            feature = self.meta.features[name]
            if feature["dtype"] == "image" and not is_depth(feature):
                continue
            info: dict[str, Any] = {**(feature.get("info") or {}), "is_depth_map": is_depth(feature)}
            if is_depth(feature):
                info["depth_unit"] = self._units[name]
            if feature["dtype"] == "video":
                place = (row[f"videos/{name}/chunk_index"], row[f"videos/{name}/file_index"])
                path = self.meta.root / self.meta.video_file(name, *place)
                info |= probe_info(path, self._encoder_config(name))
            feature["info"] = info


def next_position(meta: LeRobotDatasetMetadata, series: str) -> Position:
    """Chunk and file number after the last one of a series: "data" or "videos/<camera>"."""
    chunks = meta.episodes.columns.get(f"{series}/chunk_index", [])
    numbers = meta.episodes.columns.get(f"{series}/file_index", [])
    used = [(c, f) for c, f in zip(chunks, numbers, strict=True) if c is not None]
    return compact.advance(max(used), meta.chunks_size) if used else (0, 0)


def next_table_position(meta: LeRobotDatasetMetadata) -> Position:
    """Chunk and file number after the last file of meta/episodes; by name, since some tables do not say."""
    used = {tables.position_of(path) for path, _ in meta.episodes.sources}
    return compact.advance(max(used), meta.chunks_size) if used else (0, 0)
