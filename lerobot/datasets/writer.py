"""Episodes onto the disk: every saved episode is whole and durable, whatever happens afterwards.

    add_frame: checked -> numbers kept | pictures encoded by threads
    save_episode: videos -> data file -> tasks -> row in meta/episodes (the commit) -> info.json, stats.json
    finalize: small files joined up to the size limits (compact.py)

Every file is written aside, forced to disk and renamed. Until finalize each episode has files of its own.
What comes before the commit and is not followed by it is never looked at by readers; `repair` deletes it.
Shapes: T frames of the episode, C H W picture.
"""

import logging
import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.core.errors import DatasetError, FrameError
from lerobot.datasets import codec, compact, depth, disk, tables
from lerobot.datasets.capture import CaptureClock, Captured
from lerobot.datasets.config import DepthEncoderConfig, VideoEncoderConfig
from lerobot.datasets.depth import DepthScale
from lerobot.datasets.encoder import VideoEncoder
from lerobot.datasets.encoder_info import probe_info, recorded_encoder
from lerobot.datasets.frames import FrameCheck
from lerobot.datasets.ledger import EPISODES_PER_SAVE, Ledger, Summaries, stats_of
from lerobot.datasets.lock import WriterLock
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import column_array, frame_schema, is_depth, is_numeric
from lerobot.datasets.stats import Stats, aggregate_stats
from lerobot.datasets.summary import Summary
from lerobot.datasets.take import Prepare, Take

logger = logging.getLogger(__name__)

ROWS_PER_FILE = 64  # episodes in one file of meta/episodes while recording; the file is rewritten for each
OVERFLOWS = ("wait", "repeat")
AGAIN = "make room and call save_episode() again, or drop the episode with clear_episode()"
Position = tuple[int, int]  # chunk and file number


class EpisodeWriter:
    """Records episodes into one dataset, as its only writer.

    Args:
        queue_size: pictures per camera that may wait for the encoder.
        overflow: "wait" or "repeat": what happens to a picture when so many wait already.
        picture_threads: threads that encode pictures of image features; 0: one per core, at most four.
        lock: the right to write this dataset, if it is held already.

    Raises:
        DatasetError: another process records into the dataset, or an encoder cannot do what is asked of it.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        *,
        rgb_encoder: VideoEncoderConfig | None = None,
        depth_encoder: DepthEncoderConfig | None = None,
        queue_size: int = 30,
        overflow: str = "wait",
        encoder_threads: int | None = None,
        picture_threads: int = 0,
        lock: WriterLock | None = None,
    ) -> None:
        if overflow not in OVERFLOWS:
            raise DatasetError(f"encoder_overflow={overflow!r}: expected 'wait' or 'repeat'.")
        self.meta = meta
        self.rgb_encoder, self.depth_encoder = codec.settle_all(
            meta.features,
            fps=meta.fps,
            rgb_encoder=rgb_encoder,
            depth_encoder=depth_encoder,
            threads=encoder_threads,
        )
        self.queue_size, self.encoder_threads, self.overflow = queue_size, encoder_threads, overflow
        self.check = FrameCheck(meta.features)
        self.is_finalized = False
        self._lock = lock or WriterLock(meta.root)
        self._clock = CaptureClock()
        self.ledger = Ledger.open(meta)
        workers = picture_threads or min(4, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="picture")
        self._table: pa.Table | None = None  # the file of meta/episodes that is being filled
        self._table_at: Position = (0, 0)
        self._data_at: Position = (0, 0)
        self._video_at: dict[str, Position] = {}
        self._find_positions()
        self._first_new = meta.total_episodes  # what was there before keeps its files of meta/episodes
        self._counters_are_behind = False
        self._start_episode()

    @classmethod
    def for_new(cls, meta: LeRobotDatasetMetadata, **options: Any) -> "EpisodeWriter":
        """The writer of a dataset that was just made; its folder goes again when recording is impossible."""
        lock = WriterLock(meta.root)
        try:
            return cls(meta, lock=lock, **options)
        except BaseException:
            shutil.rmtree(meta.root)
            raise

    @classmethod
    def for_existing(cls, meta: LeRobotDatasetMetadata, **options: Any) -> "EpisodeWriter":
        """The writer of an existing dataset: what an interrupted recording left is put in order first.

        Without an encoder the cameras go on as they were recorded.
        """
        lock = WriterLock(meta.root)
        meta.reload()  # what another process did before it let the dataset go
        for name, of_depth in (("rgb_encoder", False), ("depth_encoder", True)):
            options[name] = options.get(name) or recorded_encoder(meta.features, of_depth=of_depth)
        self = cls(meta, lock=lock, **options)
        self.repair()
        return self

    def add_frame(self, frame: dict[str, Any], captured_at_s: Captured = None) -> None:
        """See `LeRobotDataset.add_frame`."""
        captured_s = self._take.captured.check(captured_at_s)  # first: now is when the frame was captured
        self._lock.take()
        values, task = self.check(frame)
        self._check_depth_units(values)
        self._take.add(values, task, captured_s)
        self.is_finalized = False

    @property
    def num_pending(self) -> int:
        """Frames of the episode being recorded."""
        return len(self._take)

    def clear(self) -> None:
        """Throw the episode being recorded away."""
        self._take.discard()
        self._start_episode()

    def save_episode(self) -> None:
        """See `LeRobotDataset.save_episode`."""
        if not len(self._take):
            raise DatasetError("There are no frames to save. Call add_frame() before save_episode().")
        self._lock.take()
        self._write_counters(if_behind=True)  # readers accept one episode that is not counted, not two
        undo: list[Callable[[], object]] = []
        try:
            row = self._write_files(undo)
            self._commit(row)
        except BaseException:
            for step in reversed(undo):
                step()
            if self._take.is_broken:
                self.clear()
            raise
        self._after_commit()

    def finalize(self) -> None:
        """Drop an unsaved episode, and join the small files of saved ones."""
        if self.is_finalized and not len(self._take):
            return
        self._lock.take()
        if len(self._take):
            logger.warning("%d frames of an episode that was not saved are dropped.", self.num_pending)
        self.clear()
        self._write_counters(if_behind=True)
        if not self.is_finalized and self.meta.total_episodes:
            try:
                with disk.told(self.meta.root, "make room and call finalize() again"):
                    compact.compact(self.meta, first_new=self._first_new)
                    self.ledger.save()
            finally:
                self._table = None
                self._find_positions()
        self.is_finalized = True
        self._lock.release()

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
        lengths = self.meta.episodes["length"]
        return bool(lengths) and counted == self.meta.total_frames - lengths[-1]

    # --- one episode

    def _find_positions(self) -> None:
        """Where the next file of each series goes."""
        self._table_at = next_table_position(self.meta)
        self._data_at = next_position(self.meta, "data")
        self._video_at = {key: next_position(self.meta, f"videos/{key}") for key in self.meta.video_keys}

    def _start_episode(self) -> None:
        self._units: dict[str, str] = {}
        self._take = Take(
            self.meta,
            open_encoder=self._open_encoder,
            levels=lambda picture: self._scale.quantize(picture[0]),
            threads=self._threads,
            clock=self._clock,
        )

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

    def _open_encoder(self, name: str, prepare: Prepare) -> VideoEncoder:
        path = self.meta.root / self.meta.video_file(name, *self._video_at[name])
        with disk.told(path, "make room and add the frame again"):
            return VideoEncoder(
                files.part_path(path),
                fps=self.meta.fps,
                config=self._encoder_config(name),
                queue_size=self.queue_size,
                threads=self.encoder_threads,
                overflow=self.overflow,
                prepare=prepare,
            )

    def _encoder_config(self, name: str) -> VideoEncoderConfig:
        return self.depth_encoder if is_depth(self.meta.features[name]) else self.rgb_encoder

    @property
    def _scale(self) -> DepthScale:
        names = ("depth_min", "depth_max", "shift", "use_log")
        return DepthScale(**{name: getattr(self.depth_encoder, name) for name in names})

    # --- onto the disk

    def _write_files(self, undo: list[Callable[[], object]]) -> dict[str, Any]:
        """Everything of the episode but its row in meta/episodes, which is returned.

        `undo` gets what takes the files back when something fails later; frames stay, to be saved again.
        """
        take, root, length = self._take, self.meta.root, len(self._take)
        take.end()
        tasks = self.meta.tasks.with_tasks(take.tasks)
        columns = take.columns(tasks)
        data_path = root / self.meta.data_file(*self._data_at)
        places = {files.part_path(data_path): data_path}
        undo.append(lambda: files.part_path(data_path).unlink(missing_ok=True))
        with disk.told(data_path, AGAIN):
            self._write_data(columns, files.part_path(data_path))
        for name, part in take.videos().items():  # encoders finished while the data was written
            places[part] = root / self.meta.video_file(name, *self._video_at[name])
        self._summaries = self._episode_summaries(columns)
        self._stats = stats_of(self._summaries, self.meta.features)
        row: dict[str, Any] = {
            "episode_index": len(self.meta.episodes),
            "tasks": list(dict.fromkeys(take.tasks)),
            "length": length,
            "data/chunk_index": self._data_at[0],
            "data/file_index": self._data_at[1],
            "dataset_from_index": self.meta.total_frames,
            "dataset_to_index": self.meta.total_frames + length,
        }
        for name in take.encoders:
            row |= self._video_place(name, length)
        with disk.told(data_path, AGAIN):
            if len(tasks) > len(self.meta.tasks):
                tasks.save(root)
            undo.append(lambda: files.take_back(places))
            files.place(places)
            self.ledger.note(self._summaries, episode=len(self.meta.episodes))
        self.meta.tasks = tasks
        return row | take.capture_columns() | tables.flatten_stats(self._stats)

    def _episode_summaries(self, columns: dict[str, Any]) -> Summaries:
        """What the statistics of the episode are made of."""
        found: Summaries = {}
        for name, feature in self.meta.features.items():
            if name in self._take.tallies:
                found[name] = self._take.tallies[name].summary()
            elif is_numeric(feature):
                stored = columns[name].astype(np.dtype(feature["dtype"]))  # timestamps are rounded
                found[name] = Summary.of_rows(stored)
        return found

    def _stats_with(self, episode: Stats) -> Stats:
        """The dataset's statistics after this episode: exact where all summaries are known."""
        exact = self.ledger.stats()
        known = [{k: v for k, v in one.items() if k not in exact} for one in (self.meta.stats, episode)]
        return aggregate_stats([one for one in known if one]) | exact

    def _write_data(self, columns: dict[str, Any], path: Path) -> None:
        """The episode's own data file, one row group."""
        schema, features = frame_schema(self.meta.features), self.meta.features
        columns = columns | {keys.TIMESTAMP: columns[keys.TIMESTAMP].astype(np.float32)}
        arrays = [column_array(columns[field.name], field, features[field.name]) for field in schema]
        table = pa.Table.from_arrays(arrays, schema=schema)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=len(table))

    def _video_place(self, name: str, length: int) -> dict[str, int | float]:
        """Where an episode of this camera lies, in the words of meta/episodes."""
        chunk, file = self._video_at[name]
        place = f"videos/{name}"
        return {
            f"{place}/chunk_index": chunk,
            f"{place}/file_index": file,
            f"{place}/from_timestamp": 0.0,
            f"{place}/to_timestamp": length / self.meta.fps,
        }

    def _commit(self, row: dict[str, Any]) -> None:
        """Add the episode's row, by one rename: with it the episode exists.

        Raises:
            DatasetError: the row could not be written, and the episode does not exist.
        """
        if len(self.meta.episodes) == 0:
            with disk.told(self.meta.root / keys.INFO_FILE, AGAIN):
                self._describe_cameras(row)
                self.meta.save_info()  # readers need the cameras' facts as soon as the row is there
        table, (chunk, file) = self._table, self._table_at
        if table is not None and len(table) >= ROWS_PER_FILE:
            table, (chunk, file) = None, compact.advance(self._table_at, self.meta.chunks_size)
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        path = self.meta.root / tables.EPISODES_PATH.format(chunk_index=chunk, file_index=file)
        grown = tables.episode_rows([row])
        if table is not None:
            grown = pa.concat_tables([table, grown], promote_options="permissive")
        before = identity(path)
        try:
            with disk.told(path, AGAIN):
                tables.write_episode_table(path, grown)
        except BaseException:
            if identity(path) == before:
                raise
            # The row is in place and only its folder may not be on the disk yet: the episode exists.
            logger.warning("%s was replaced, but the disk did not confirm it.", path, exc_info=True)
        self._table, self._table_at = grown, (chunk, file)
        self.meta.episodes.append(row, (path, len(grown) - 1))

    def _after_commit(self) -> None:
        """Begin the next episode, and bring counters and statistics up to date."""
        take, episode = self._take, len(self.meta.episodes) - 1
        self._data_at = compact.advance(self._data_at, self.meta.chunks_size)
        self._video_at = {k: compact.advance(at, self.meta.chunks_size) for k, at in self._video_at.items()}
        self._start_episode()
        self._counters_are_behind = True
        self.meta.set_totals()
        self.ledger.add(self._summaries)
        self.meta.stats = self._stats_with(self._stats)
        take.warn_of_overflow()
        cadence, fps = self.meta.cadence(episode), self.meta.fps
        # Converted data comes faster than its rate, simulated data at it to the last digit.
        is_made_up = cadence.fps is not None and (cadence.fps > 1.1 * fps or math.isclose(cadence.fps, fps))
        level, words = logging.DEBUG if is_made_up else logging.INFO, cadence.words(wanted_fps=fps)
        logger.log(level, "Episode %d: %d frames saved; %s.", episode, len(take), words)
        try:
            self._write_counters()
        except DatasetError as error:  # the episode is safe; `save_episode` and `finalize` try again
            logger.warning("The episode is saved. Its counters are not yet: %s", error)

    def _write_counters(self, *, if_behind: bool = False) -> None:
        """Write meta/info.json and meta/stats.json; readers count an episode that they lack."""
        if if_behind and not self._counters_are_behind:
            return
        with disk.told(self.meta.root / keys.INFO_FILE, "make room and try again"):
            self.meta.save_counters()
            if self._counters_are_behind and len(self.meta.episodes) % EPISODES_PER_SAVE == 0:
                self.ledger.save()
        self._counters_are_behind = False

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


def identity(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced by a rename."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def next_position(meta: LeRobotDatasetMetadata, series: str) -> Position:
    """Chunk and file number after all that a series, "data" or "videos/<camera>", ever had.

    Every episode had a file of its own before files were joined, so as many numbers as there are episodes may
    be known to somebody who reads the dataset as it was; a number that means other frames now would mislead.
    """
    columns = meta.episodes.columns
    chunks, numbers = (columns.get(f"{series}/{part}_index") or () for part in ("chunk", "file"))
    used = [(c, f) for c, f in zip(chunks, numbers, strict=True) if c is not None]
    if not used:
        return 0, 0
    return max(compact.advance(max(used), meta.chunks_size), divmod(len(meta.episodes), meta.chunks_size))


def next_table_position(meta: LeRobotDatasetMetadata) -> Position:
    """Chunk and file number after the last file of meta/episodes; by name, since some tables do not say."""
    used = {tables.position_of(path) for path, _ in meta.episodes.sources}
    return compact.advance(max(used), meta.chunks_size) if used else (0, 0)
