"""The episode that is being recorded: its numbers are kept, its pictures are encoded while it grows.

    add -> numbers: a list per column | pictures: PNG by a thread | videos: an encoder thread per camera
        -> times of capture

Shapes: T frames of the episode, C H W picture.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import images
from lerobot.datasets.capture import CaptureClock, CaptureTimes
from lerobot.datasets.encoder import VideoEncoder
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import DEFAULT_FEATURES, data_features, is_depth, is_numeric
from lerobot.datasets.tables import TaskTable
from lerobot.datasets.tally import PictureTally

logger = logging.getLogger(__name__)

MAX_PICTURES = 120  # of image features, that may wait to be encoded; at 480x640 they take 110 MB
Prepare = Callable[[np.ndarray], np.ndarray]


class Take:
    """One episode between its first frame and the moment it is saved or thrown away.

    Args:
        open_encoder: starts the encoder of a camera; what it is given is called with every picture of the
            camera, in the encoder's thread, and gives what is encoded.
        levels: what the encoder of a depth camera is given for a picture.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        *,
        open_encoder: Callable[[str, Prepare], VideoEncoder],
        levels: Prepare,
        threads: ThreadPoolExecutor,
        clock: CaptureClock,
    ) -> None:
        self.meta = meta
        self.tasks: list[str] = []
        self.tallies = {
            name: PictureTally(is_depth=is_depth(meta.features[name])) for name in meta.camera_keys
        }
        self.encoders: dict[str, VideoEncoder] = {}
        self.captured = CaptureTimes(meta.camera_keys, clock)
        self.is_ended = False
        self.num_waits, self.waited_s = 0, 0.0  # for threads that encode pictures
        self._began_s: float | None = None  # when the first frame was added
        self._unfinished: deque[Future] = deque()
        self._columns: dict[str, list] = {
            name: [] for name in data_features(meta.features) if name not in DEFAULT_FEATURES
        }
        self._open_encoder, self._levels, self._threads = open_encoder, levels, threads

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def is_broken(self) -> bool:
        """Whether an encoder failed, so that the episode cannot be saved any more."""
        return any(encoder.is_broken for encoder in self.encoders.values())

    def add(self, values: dict[str, Any], task: str, captured_s: tuple[float, dict[str, float]]) -> None:
        """Add one frame, as `FrameCheck` and `CaptureTimes.check` gave it.

        Raises:
            DatasetError: an encoder failed, or the episode was ended by a `save_episode` that failed.
        """
        if self.is_ended:
            raise DatasetError(
                f"The {len(self)} frames of the last episode could not be saved and are still here. Call "
                "save_episode() to try again, or clear_episode() to drop them."
            )
        self._began_s = time.perf_counter() if self._began_s is None else self._began_s
        for encoder in self.encoders.values():
            encoder.ready()  # nothing may interrupt between the cameras of one frame
        for name, value in values.items():
            dtype = self.meta.features[name]["dtype"]
            if dtype == "video":
                self._encoder(name).add(value)
            elif dtype == "image":
                self.tallies[name].add(value)
                self._columns[name].append(self._submit(value))
            else:
                self._columns[name].append(value)
        self.captured.add(*captured_s)
        self.tasks.append(task)
        self._took_s = time.perf_counter() - self._began_s

    def _submit(self, picture: np.ndarray) -> Future:
        """Encode a picture in a thread; waits when too many wait already."""
        while len(self._unfinished) >= MAX_PICTURES:
            first = self._unfinished.popleft()
            if not first.done():
                began = time.perf_counter()
                first.exception()  # returns when it is done; what went wrong is raised by `columns`
                self.num_waits, self.waited_s = (
                    self.num_waits + 1,
                    self.waited_s + time.perf_counter() - began,
                )
        self._unfinished.append(self._threads.submit(images.encode, picture))
        return self._unfinished[-1]

    def _encoder(self, name: str) -> VideoEncoder:
        if name not in self.encoders:
            tally, has_depth = self.tallies[name], is_depth(self.meta.features[name])

            def prepare(picture: np.ndarray) -> np.ndarray:
                tally.add(picture)
                return self._levels(picture) if has_depth else picture

            self.encoders[name] = self._open_encoder(name, prepare)
        return self.encoders[name]

    def end(self) -> None:
        """Say that no frame follows: encoders and PNG threads finish while other work is done."""
        self.is_ended = True
        for encoder in self.encoders.values():
            encoder.end()

    def videos(self) -> dict[str, Path]:
        """The finished file of each camera, when all frames are in it and on the disk.

        Raises:
            DatasetError: an encoder failed, or a file lacks frames.
        """
        for name, encoder in self.encoders.items():
            if encoder.num_frames != len(self):
                raise DatasetError(
                    f"{name!r} was given {encoder.num_frames} pictures in {len(self)} frames. Discard the "
                    "episode with clear_episode()."
                )
        return {name: encoder.finish() for name, encoder in self.encoders.items()}

    def columns(self, tasks: TaskTable) -> dict[str, Any]:
        """Every column of the data file: arrays (T, ...), lists for texts and pictures."""
        length = len(self)
        columns: dict[str, Any] = {}
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
        frames = np.arange(length, dtype=np.int64)
        columns[keys.TIMESTAMP] = frames / self.meta.fps
        columns[keys.FRAME_INDEX] = frames
        columns[keys.EPISODE_INDEX] = np.full(length, len(self.meta.episodes), dtype=np.int64)
        columns[keys.INDEX] = frames + self.meta.total_frames
        columns[keys.TASK_INDEX] = np.array([tasks.index(task) for task in self.tasks], dtype=np.int64)
        return columns

    def capture_columns(self) -> dict[str, Any]:
        """What the episode's row says about times and repeated pictures."""
        repeated = {name: encoder.repeated for name, encoder in self.encoders.items()}
        return self.captured.columns(fps=self.meta.fps, repeated=repeated)

    @property
    def outran_time(self) -> bool:
        """Whether frames came faster than their rate says: they are converted or simulated, not recorded."""
        return self._took_s < 0.9 * (len(self) - 1) / self.meta.fps

    def warn_of_overflow(self) -> None:
        """Say, once per episode and camera, that an encoder did not keep up.

        Frames that come faster than their rate, as in a conversion, wait as a matter of course.
        """
        level = logging.DEBUG if self.outran_time else logging.WARNING
        if self.num_waits:
            logger.log(
                level,
                "Pictures of image features were not encoded fast enough; add_frame waited %d times, %.1f s "
                "in all. No frame was lost. More image_writer_threads, or features of dtype video, avoid it.",
                *(self.num_waits, self.waited_s),
            )
        for name, encoder in self.encoders.items():
            if encoder.num_waits:
                logger.log(
                    level,
                    "Camera %r: the encoder did not keep up; add_frame waited %d times, %.1f s in all. "
                    "No frame was lost. A faster vcodec or preset, or vcodec='auto', avoids it.",
                    *(name, encoder.num_waits, encoder.waited_s),
                )
            if encoder.repeated:
                logger.warning(
                    "Camera %r: the encoder did not keep up; %d OF %d PICTURES REPEAT THE ONE BEFORE. "
                    "dataset.meta.repeated_frames(episode) tells which. A faster vcodec or preset, "
                    "vcodec='auto', or encoder_overflow='wait' avoids it.",
                    *(name, len(encoder.repeated), encoder.num_frames),
                )

    def discard(self) -> None:
        """Throw it away, with what it left on the disk."""
        for encoder in self.encoders.values():
            encoder.abort()
        for column in self._columns.values():
            for value in column:
                if isinstance(value, Future):
                    value.cancel()
