"""Which frame of which video file shows each frame of the chosen episodes.

    mp4 --once, kept in the cache--> Timeline: pts by frame number
    episode's from_timestamp --nearest pts--> number of its first frame; the others follow one by one

Frames are addressed by number from then on. The times of all frames of an episode are compared with fps
when its file is first seen; the largest difference is kept with the timeline, so that opening again reads no
video.
Shapes: E episodes of the whole dataset, F frames of a file, B items, T window.
"""

import hashlib
import os
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core.errors import DatasetError
from lerobot.datasets.cache import Arrays, CacheFolder, Stored, identify, make_key
from lerobot.datasets.columns import Frames
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.timeline import Timeline, read_timeline

KIND = "videos"
UNKNOWN = -1  # number of the first frame of an episode whose file was not looked at


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera's files, and where every episode of the dataset is in them; arrays are (E,)."""

    names: list[str]  # paths relative to the root
    file: np.ndarray  # which of them
    start_s: np.ndarray  # from_timestamp
    first: np.ndarray  # number of the episode's first frame in the file, or UNKNOWN
    error_s: np.ndarray  # largest difference of a frame's time from what fps says; inf: frames are missing


class Footage:
    """Finds frames of the chosen episodes in the videos of every camera; safe for several threads.

    Files that are not on this machine are looked at when a frame of them is asked for.

    Raises:
        DatasetError: a file is no video, lacks frames, or shows one at another time than fps says.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        episodes: np.ndarray,
        *,
        tolerance_s: float,
        skip: Collection[str] = (),
    ) -> None:
        self.meta, self.tolerance_s, self.skip = meta, tolerance_s, frozenset(skip)
        self.episodes = np.asarray(episodes, dtype=np.int64)
        self.lengths = np.asarray(meta.episodes.column("length"), dtype=np.int64)  # (E,)
        self.timelines: dict[str, Timeline] = {}  # by name
        video_keys = meta.video_keys if len(self.lengths) else []  # an empty dataset has no columns of them
        self.cameras = {name: self._camera(name) for name in video_keys}
        self._lock = threading.Lock()
        if self.cameras:
            self._open()

    def __getstate__(self) -> dict[str, Any]:
        names = ("meta", "episodes", "tolerance_s", "skip")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The timelines are in the cache, so another process does not need them sent."""
        self.__init__(**state)  # type: ignore[misc]

    def place(self, key: str, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
        """For frames (B, [T]) of a camera, which of its files they are in and their numbers there.

        Raises:
            DatasetError: a file that was missing before still is, or is not as it should be.
        """
        camera, episode = self.cameras[key], self.episodes[frames.episode]
        if not (camera.error_s[episode] <= self.tolerance_s).all():  # a file that was not there at opening
            self._look_late(key, np.unique(episode))
        return camera.file[episode], camera.first[episode] + frames.offset

    def timeline(self, key: str, file: int) -> tuple[Path, Timeline]:
        """A file of a camera, and the times of its frames."""
        name = self.cameras[key].names[file]
        return self.meta.root / name, self.timelines[name]

    def _camera(self, key: str) -> Camera:
        count = len(self.lengths)
        paths, file = self.meta.files_of(np.arange(count), video_key=key)
        starts = self.meta.episodes.column(f"videos/{key}/from_timestamp") if count else []
        start_s = np.asarray(starts, dtype=np.float64)
        return Camera(
            names=[path.as_posix() for path in paths],
            file=file,
            start_s=start_s,
            first=np.full(count, UNKNOWN),
            error_s=np.full(count, np.inf),
        )

    # --- opening

    def _open(self) -> None:
        cache, key = CacheFolder(self.meta.root), make_key(KIND, self.meta.fps, self._described())
        entry = cache.find(KIND, key)
        kept = {} if entry is None else self._take(entry)
        needed = [
            camera.names[file]
            for camera in self.cameras.values()
            for file in np.unique(camera.file[self.episodes])
        ]
        now = {one[0]: one for one in identify(self.meta.root, needed)}
        fresh = [name for name in needed if now[name][1] >= 0 and kept.get(name) != now[name]]
        if fresh:
            others = identify(self.meta.root, [name for name in kept if name not in now])
            changed = {one[0] for one in others if kept[one[0]] != one}
            for camera in self.cameras.values():
                self._forget(camera, changed)
            self._read(fresh)
            sources = [one for one in (*now.values(), *others) if one[0] in self.timelines]
            layout, fill = self._entry(sources)
            cache.make(KIND, key, layout=layout, fill=fill, sources=sources)
        for name in self.cameras:
            self._check(name, self.episodes)

    def _described(self) -> list[Any]:
        """What first frames follow from, besides the files."""
        described = []
        for key, camera in self.cameras.items():
            digest = hashlib.sha256()
            for array in (self.lengths, camera.file, camera.start_s):
                digest.update(np.ascontiguousarray(array).tobytes())
            described.append([key, camera.names, digest.hexdigest()])
        return described

    def _take(self, entry: Stored) -> dict[str, tuple[str, int, int]]:
        """Use what the cache holds; the identities of the files that it was made of."""
        pts, is_key = entry.arrays["pts"], entry.arrays["is_key"]
        for name, begin, end, above, below in entry.about["timelines"]:
            self.timelines[name] = Timeline(
                pts=pts[begin:end], is_key=is_key[begin:end], time_base=Fraction(above, below)
            )
        for number, camera in enumerate(self.cameras.values()):
            camera.first[...] = entry.arrays["first"][number]
            camera.error_s[...] = entry.arrays["error_s"][number]
        return {one[0]: tuple(one) for one in entry.about["files"]}

    def _forget(self, camera: Camera, names: set[str]) -> None:
        stale = np.isin(camera.file, [k for k, name in enumerate(camera.names) if name in names])
        camera.first[stale] = UNKNOWN
        for name in names:
            self.timelines.pop(name, None)

    def _read(self, names: list[str]) -> None:
        """Read the timelines of these files and find every episode in them."""
        with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as threads:
            found = threads.map(read_timeline, [self.meta.root / name for name in names])
            self.timelines |= dict(zip(names, found, strict=True))
        for camera in self.cameras.values():
            number = {name: k for k, name in enumerate(camera.names)}
            for file in (number[name] for name in names if name in number):
                episode = np.flatnonzero(camera.file == file)
                camera.first[episode], camera.error_s[episode] = find_episodes(
                    self.timelines[camera.names[file]],
                    start_s=camera.start_s[episode],
                    lengths=self.lengths[episode],
                    fps=self.meta.fps,
                )

    def _entry(self, sources: list) -> tuple[dict, Any]:
        """What the cache keeps of all timelines and episodes."""
        timelines, lines, at = [self.timelines[one[0]] for one in sources], [], 0
        for (name, _, _), timeline in zip(sources, timelines, strict=True):
            base = timeline.time_base
            lines.append([name, at, at + len(timeline), base.numerator, base.denominator])
            at += len(timeline)
        grid = (len(self.cameras), len(self.lengths))
        layout = {
            "pts": (np.int64, (at,)),
            "is_key": (np.bool_, (at,)),
            "first": (np.int64, grid),
            "error_s": (np.float64, grid),
        }

        def fill(arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
            for (_, begin, end, _, _), timeline in zip(lines, timelines, strict=True):
                arrays["pts"][begin:end], arrays["is_key"][begin:end] = timeline.pts, timeline.is_key
            for number, camera in enumerate(self.cameras.values()):
                arrays["first"][number], arrays["error_s"][number] = camera.first, camera.error_s
            return {"timelines": lines, "files": sources}, {}

        return layout, fill

    def _look_late(self, key: str, episodes: np.ndarray) -> None:
        """Look at files that were not there when the dataset was opened."""
        camera = self.cameras[key]
        with self._lock:
            still = episodes[camera.first[episodes] == UNKNOWN]
            if len(still):
                self._read([camera.names[file] for file in np.unique(camera.file[still])])
        self._check(key, episodes)

    # --- what may be wrong

    def _check(self, key: str, episodes: np.ndarray) -> None:
        """No frame of these episodes may be missing or off by more than the tolerance."""
        camera = self.cameras[key]
        wrong = ~(camera.error_s[episodes] <= self.tolerance_s) & (camera.first[episodes] != UNKNOWN)
        found = episodes[wrong & (self.lengths[episodes] > 0)]
        if len(found):
            more = f" ({len(found)} episodes are like this.)" if len(found) > 1 else ""
            raise DatasetError(self._explain(key, int(found[0])) + more)

    def _explain(self, key: str, episode: int) -> str:
        """What is wrong with an episode's frames, and what to do about it."""
        camera, fps = self.cameras[key], self.meta.fps
        path, timeline = self.timeline(key, int(camera.file[episode]))
        numbers = camera.first[episode] + np.arange(self.lengths[episode])
        expected = camera.start_s[episode] + np.arange(len(numbers)) / fps
        there = numbers < len(timeline)
        shown = timeline.seconds[numbers[there]]
        off = np.flatnonzero(~(np.abs(shown - expected[there]) <= self.tolerance_s))
        remedy = f"Type: lerobot-doctor {self.meta.root}"
        if len(off) and (there.all() or off[0] < there.sum() - 1):
            k = int(off[0])
            return (
                f"{path}: frame {numbers[k]} is at {shown[k]:.6f} s, expected {expected[k]:.6f} s within "
                f"{self.tolerance_s} s (episode {episode}, frame_index {k}). Is fps={fps} in meta/info.json "
                f"right? {remedy}, or give a larger tolerance_s."
            )
        k = int(off[0]) if len(off) else int(there.sum())
        return (
            f"{path} has no frame at {expected[k]:.3f} s, where episode {episode}, frame_index {k} should "
            f"be: it ends after {len(timeline)} frames. {remedy}, or load the dataset with "
            "force_cache_sync=True to download the file again."
        )


def find_episodes(
    timeline: Timeline, *, start_s: np.ndarray, lengths: np.ndarray, fps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of episodes that begin at `start_s`: first frame's number, and the largest error of a frame's time, s.

    The error is inf where the file has fewer frames than the episode.
    """
    seconds = timeline.seconds
    after = np.clip(np.searchsorted(seconds, start_s), 1, max(1, len(seconds) - 1))
    before_is_nearer = start_s - seconds[after - 1] <= seconds[np.minimum(after, len(seconds) - 1)] - start_s
    first = after - before_is_nearer
    first = np.where(len(seconds) == 1, 0, first)
    borders = np.cumsum(lengths) - lengths
    within = np.arange(int(lengths.sum())) - np.repeat(borders, lengths)
    numbers = np.repeat(first, lengths) + within
    expected = np.repeat(start_s, lengths) + within / fps
    error = np.abs(seconds[np.minimum(numbers, len(seconds) - 1)] - expected)
    error[numbers >= len(seconds)] = np.inf
    largest, some = np.zeros(len(lengths)), np.flatnonzero(lengths)
    if len(some):
        largest[some] = np.maximum.reduceat(error, borders[some])
    return first, largest
