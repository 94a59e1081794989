"""When each frame was really captured, and how well an episode held its rate.

Kept in columns of meta/episodes that begin with `capture/`, which other readers pass over:

    capture/times_s             list<double>   seconds of each row
    capture/<camera>/times_s    list<double>   seconds of each picture
    capture/<camera>/repeated   list<int64>    rows that show the picture of the row before
    capture/fps, capture/worst_gap_s, capture/late_frames, capture/repeated_frames     the cadence

Shapes: T frames of the episode.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from lerobot.core.errors import DatasetError, FrameError, suggest
from lerobot.datasets.tables import CAPTURE_PREFIX as PREFIX

LATE = 1.5  # a gap of so many periods means that a frame came late

Captured = float | Mapping[str, float] | None  # what `add_frame` takes


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How well an episode held its rate."""

    fps: float | None  # frames per second from the first row to the last; None for one row
    worst_gap_s: float  # longest time between two rows
    late_frames: int  # rows that came more than half a period late
    repeated_frames: int  # pictures, of all cameras, that repeat the one before

    @classmethod
    def of(cls, times_s: Sequence[float], *, fps: float, repeated_frames: int = 0) -> "Cadence":
        """The cadence of rows captured at these times (T,)."""
        gaps_s = np.diff(np.asarray(times_s, dtype=np.float64))  # (T - 1,)
        total_s = float(gaps_s.sum())
        return cls(
            fps=len(gaps_s) / total_s if total_s > 0 else None,
            worst_gap_s=float(gaps_s.max(initial=0.0)),
            late_frames=int((gaps_s > LATE / fps).sum()),
            repeated_frames=repeated_frames,
        )

    def words(self, *, wanted_fps: float) -> str:
        """One line for the log."""
        held = "one row" if self.fps is None else f"{self.fps:.2f} fps held of {wanted_fps:g}"
        return (
            f"{held}, worst gap {1000 * self.worst_gap_s:.0f} ms, {self.late_frames} late, "
            f"{self.repeated_frames} pictures repeated"
        )


class CaptureClock:
    """The wall clock, from a clock that never jumps: seconds since 1970 that only rise."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.perf_counter()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._offset_s + time.perf_counter()


class CaptureTimes:
    """The times of the episode that is being recorded."""

    def __init__(self, cameras: Sequence[str], clock: CaptureClock) -> None:
        self.rows: list[float] = []
        self.cameras: dict[str, list[float]] = {name: [] for name in cameras}
        self._clock = clock

    def check(self, captured_at_s: Captured) -> tuple[float, dict[str, float]]:
        """Seconds of the row and of each camera; what is not given is now.

        Raises:
            FrameError: a time is no finite number, or is given for something that is no camera.
        """
        now = self._clock.now()
        if captured_at_s is None:
            return now, dict.fromkeys(self.cameras, now)
        if not isinstance(captured_at_s, Mapping):
            at = _seconds("captured_at_s", captured_at_s)
            return at, dict.fromkeys(self.cameras, at)
        for name in captured_at_s:
            if name not in self.cameras:
                raise FrameError(
                    f"captured_at_s: {name!r} is no camera of this dataset, which has "
                    f"{', '.join(self.cameras) or 'none'}.{suggest(name, self.cameras)}"
                )
        given = {name: _seconds(f"captured_at_s[{name!r}]", at) for name, at in captured_at_s.items()}
        return now, dict.fromkeys(self.cameras, now) | given

    def add(self, row_s: float, cameras_s: dict[str, float]) -> None:
        """Keep the times of the next frame, as `check` gave them."""
        self.rows.append(row_s)
        for name, at in cameras_s.items():
            self.cameras[name].append(at)

    def columns(self, *, fps: float, repeated: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The episode's columns; `repeated` lists the repeated rows of each camera that is a video."""
        cadence = Cadence.of(self.rows, fps=fps, repeated_frames=sum(map(len, repeated.values())))
        row: dict[str, Any] = {
            f"{PREFIX}fps": cadence.fps,
            f"{PREFIX}worst_gap_s": cadence.worst_gap_s,
            f"{PREFIX}late_frames": cadence.late_frames,
            f"{PREFIX}repeated_frames": cadence.repeated_frames,
            f"{PREFIX}times_s": list(self.rows),
        }
        row |= {f"{PREFIX}{name}/times_s": list(times) for name, times in self.cameras.items()}
        return row | {f"{PREFIX}{name}/repeated": list(rows) for name, rows in repeated.items()}


def _seconds(label: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, np.number)) or not math.isfinite(value):
        raise FrameError(f"{label} is {value!r}; expected seconds, such as time.time() gives.")
    return float(value)


def cadence(row: Mapping[str, Any], *, where: str) -> Cadence:
    """The cadence stored in an episode's `capture/` columns.

    Raises:
        DatasetError: the episode was recorded by something that does not keep it.
    """
    if row.get(f"{PREFIX}worst_gap_s") is None:
        raise DatasetError(f"{where} has no capture times; only recordings of this lerobot keep them.")
    names = ("fps", "worst_gap_s", "late_frames", "repeated_frames")
    return Cadence(**{name: row[PREFIX + name] for name in names})


def times(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{"": seconds of the rows (T,), camera: seconds of its pictures (T,)}; empty when nothing was kept."""
    return {
        name.removeprefix(PREFIX).removesuffix("times_s").removesuffix("/"): np.asarray(value, np.float64)
        for name, value in row.items()
        if name.startswith(PREFIX) and name.endswith("times_s") and value is not None
    }


def repeated(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{camera: rows of the episode, counted from 0, that show the picture of the row before}."""
    return {
        name.removeprefix(PREFIX).removesuffix("/repeated"): np.asarray(value, np.int64)
        for name, value in row.items()
        if name.startswith(PREFIX) and name.endswith("/repeated") and value is not None
    }
