"""When pictures were really taken, for recordings that say so: the rate, repeats, drift between cameras.

Shapes: T rows of an episode.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq

from lerobot.datasets.doctor.episodes import CAPTURE_PREFIX
from lerobot.datasets.doctor.finding import Finding, finding, numbered
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.rows import READ_ERRORS

SLOW = 0.95  # share of the declared fps below which the rate was not held
DRIFT = 0.5  # periods by which the distance of two cameras may change within an episode
TIMES, REPEATED = "/times_s", "/repeated"
RECORD_AGAIN = "nothing can be mended afterwards; record with fewer or smaller cameras, or a lower fps"


def check_capture(folder: Folder) -> Iterator[Finding]:
    """The capture columns of meta/episodes; nothing where there are none."""
    for name in folder.episodes.table_files if folder.episodes is not None else []:
        path = folder.root / name
        try:
            file = pq.ParquetFile(path)
            names = [c for c in file.schema_arrow.names if c.startswith(CAPTURE_PREFIX)]
            if not names:
                continue
            table = file.read(columns=["episode_index", *names])
        except READ_ERRORS:
            continue  # said where the table is read
        numbers = table["episode_index"].to_numpy()
        columns = {c.removeprefix(CAPTURE_PREFIX): table[c].combine_chunks() for c in names}
        yield from _cadence(folder, name, numbers, columns)
        yield from _repeats(name, numbers, columns)
        yield from _drift(folder, name, numbers, columns)


def _cadence(folder: Folder, name: str, numbers: np.ndarray, columns: dict) -> Iterator[Finding]:
    if "fps" not in columns or folder.fps is None:
        return
    held = columns["fps"].fill_null(float("nan")).to_numpy(zero_copy_only=False).astype(float)
    slow = np.flatnonzero(held < SLOW * folder.fps)
    if len(slow):
        text = f"{numbered(numbers[slow])}: {held[slow].min():.2f} frames per second at worst"
        yield finding(
            "sync.cadence",
            name,
            found=text,
            expected=f"{folder.fps:g}",
            remedy=RECORD_AGAIN,
            episodes=numbers[slow],
        )


def _repeats(name: str, numbers: np.ndarray, columns: dict) -> Iterator[Finding]:
    for column, values in columns.items():
        if not column.endswith(REPEATED):
            continue
        counts = values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        some = np.flatnonzero(counts)
        if len(some):
            text = (
                f"{counts.sum()} pictures of {column.removesuffix(REPEATED)!r} in {numbered(numbers[some])}"
            )
            yield finding(
                "sync.repeated",
                name,
                found=text,
                expected="no repeated picture",
                remedy=RECORD_AGAIN,
                episodes=numbers[some],
            )


def _drift(folder: Folder, name: str, numbers: np.ndarray, columns: dict) -> Iterator[Finding]:
    """Cameras whose distance in time changes by more than half a period within an episode."""
    cameras = [column for column in columns if column.endswith(TIMES)]
    if len(cameras) < 2 or folder.fps is None:
        return
    one = columns[cameras[0]]
    for camera in cameras[1:]:
        touched, worst = [], 0.0
        for k, number in enumerate(numbers):
            if not (one[k].is_valid and columns[camera][k].is_valid):
                continue
            here, there = (np.asarray(c[k].values, dtype=np.float64) for c in (one, columns[camera]))
            if len(here) != len(there) or not len(here):
                touched.append(number)
                continue
            apart = there - here  # (T,)
            change = float(apart.max() - apart.min())
            if change > DRIFT / folder.fps:
                touched.append(number)
                worst = max(worst, change)
        if touched:
            pair = f"{cameras[0].removesuffix(TIMES)!r} and {camera.removesuffix(TIMES)!r}"
            yield finding(
                "sync.drift",
                name,
                found=f"{pair} drift by up to {1000 * worst:.1f} ms in {numbered(touched)}",
                expected=f"less than half a period, {500 / folder.fps:.1f} ms",
                remedy=RECORD_AGAIN,
                episodes=touched,
            )
