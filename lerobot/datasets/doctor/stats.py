"""meta/stats.json and the episodes' own statistics: there, of the right shape, in order, true.

    rows of every file -> Moments per episode -> against stats/ columns -> joined -> against meta/stats.json

Shapes: E episodes, N rows of a file, D numbers per row (the last axis of the feature).
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lerobot.core import keys
from lerobot.datasets.doctor.finding import Finding, finding, numbered
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.rows import READ_ERRORS, Rows, is_default
from lerobot.datasets.schema import TEXT_DTYPES, is_depth
from lerobot.datasets.stats import MOMENTS, stats_shape
from lerobot.datasets.tables import STATS_PREFIX

FILE = keys.STATS_FILE
RECOMPUTE = "lerobot-edit-dataset --operation.type=recompute_stats, or --repair"
ROOM = 1e-3  # share of a number's range by which a mean may be off: sums in float32 are that coarse


class Moments:
    """min, max, mean and squared deviation per episode of every numeric column that was read whole."""

    def __init__(self, num_episodes: int) -> None:
        self.num_episodes = num_episodes
        self.is_read = np.zeros(num_episodes, dtype=bool)
        self.of: dict[str, dict[str, np.ndarray]] = {}  # feature -> stat -> (E, D)

    def add(self, rows: Rows) -> None:
        """Take in the rows of one data file whose places are known."""
        if rows.take is None or not len(rows.episodes):
            return
        begins = np.cumsum(rows.lengths) - rows.lengths
        is_whole = np.array_equal(rows.take, np.arange(len(rows)))
        for name, stored in rows.columns.items():
            values = (stored if is_whole else stored[rows.take]).astype(np.float64)
            values = values.reshape(len(values), -1, values.shape[-1] if values.ndim > 1 else 1)  # (N, A, D)
            parts = self.of.setdefault(name, self._empty(values.shape[-1]))
            counts = (rows.lengths * values.shape[1])[:, None]
            with np.errstate(invalid="ignore", over="ignore"):
                low = np.minimum.reduceat(values, begins, axis=0).min(axis=1)  # (E, D)
                high = np.maximum.reduceat(values, begins, axis=0).max(axis=1)
                mean = np.add.reduceat(values.sum(axis=1), begins, axis=0) / counts
                away = (values - np.repeat(mean, rows.lengths, axis=0)[:, None]) ** 2
                squares = np.add.reduceat(away.sum(axis=1), begins, axis=0)
            for stat, found in zip(
                ("min", "max", "mean", "squares"), (low, high, mean, squares), strict=True
            ):
                parts[stat][rows.episodes] = found
            parts["count"][rows.episodes] = counts
        self.is_read[rows.episodes] = True

    def _empty(self, size: int) -> dict[str, np.ndarray]:
        parts = {stat: np.zeros((self.num_episodes, size)) for stat in ("min", "max", "mean", "squares")}
        return parts | {"count": np.zeros((self.num_episodes, 1))}

    def joined(self, name: str, *, without_last: int = 0) -> dict[str, np.ndarray]:
        """min, max, mean, std (D,) and count of all episodes together."""
        some = slice(0, self.num_episodes - without_last)
        low, high, mean, squares, counts = (
            self.of[name][stat][some] for stat in ("min", "max", "mean", "squares", "count")
        )
        total = counts.sum()
        middle = (mean * counts).sum(axis=0) / total
        spread = (squares + counts * (mean - middle) ** 2).sum(axis=0) / total
        return {
            "min": low.min(axis=0),
            "max": high.max(axis=0),
            "mean": middle,
            "std": np.sqrt(spread),
            "count": np.array([total]),
        }


def read_stats(folder: Folder) -> tuple[dict[str, Any] | None, list[Finding]]:
    """meta/stats.json as it is, and whether it can be read."""
    path = folder.root / FILE
    if not path.is_file():
        if folder.episodes is not None and not len(folder.episodes):
            return None, []
        return None, [finding("stats.missing", FILE, found="no such file", expected="statistics per feature")]
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = f"{path.stat().st_size} bytes, {error}"
        return None, [finding("stats.unreadable", FILE, found=text, expected="JSON")]
    if not isinstance(plain, dict) or not all(isinstance(one, dict) for one in plain.values()):
        return None, [
            finding("stats.unreadable", FILE, found="other JSON", expected="{feature: {stat: list}}")
        ]
    return plain, []


def check_stats(folder: Folder, stats: dict[str, Any], moments: Moments | None) -> Iterator[Finding]:
    """Every feature's statistics by themselves, then against the rows that were read."""
    for name, feature in folder.features.items():
        if feature["dtype"] in TEXT_DTYPES:
            continue
        if name not in stats:
            text = f"nothing about {name!r}"
            yield finding(
                "stats.feature", FILE, found=text, expected=f"{', '.join(MOMENTS)}", remedy=RECOMPUTE
            )
            continue
        arrays, wrong = _arrays(name, feature, stats[name])
        if wrong is not None:
            yield wrong
            continue
        yield from _check_order(name, feature, arrays)
        if feature["dtype"] in ("image", "video"):
            yield from _check_picture_stats(folder, name, feature, arrays)
        elif moments is not None and moments.is_read.all() and name in moments.of:
            yield from _check_values(folder, name, arrays, moments)


def _arrays(name: str, feature: dict, one: dict[str, Any]) -> tuple[dict[str, np.ndarray], Finding | None]:
    """The statistics of a feature as arrays, or the first thing that is wrong with them."""
    arrays: dict[str, np.ndarray] = {}
    missing = [stat for stat in MOMENTS if stat not in one and stat != "count"]
    if missing:
        text = f"no {', '.join(missing)} of {name!r}"
        return {}, finding("stats.feature", FILE, found=text, expected=", ".join(MOMENTS), remedy=RECOMPUTE)
    for stat, value in one.items():
        try:
            array = np.atleast_1d(np.array(value, dtype=np.float64))
        except (TypeError, ValueError):
            text = f"{stat} of {name!r} is {str(value)[:60]}"
            return {}, finding("stats.shape", FILE, found=text, expected="numbers", remedy=RECOMPUTE)
        wanted = (1,) if stat == "count" else stats_shape(feature)
        if array.shape != wanted:
            text = f"{stat} of {name!r} has shape {list(array.shape)}"
            return {}, finding("stats.shape", FILE, found=text, expected=f"{list(wanted)}", remedy=RECOMPUTE)
        if not np.isfinite(array).all():
            text = f"{stat} of {name!r} is {array.tolist()}"
            return {}, finding(
                "stats.nan", FILE, found=text[:200], expected="finite numbers", remedy=RECOMPUTE
            )
        arrays[stat] = array
    return arrays, None


def _check_order(name: str, feature: dict, arrays: dict[str, np.ndarray]) -> Iterator[Finding]:
    low, high = arrays["min"], arrays["max"]
    room = 1e-6 + ROOM * (high - low)
    names = sorted(stat for stat in arrays if stat.startswith("q") and stat[1:].isdigit())
    middle = [low, *(arrays[stat] for stat in names), high]
    pairs = zip(["min", *names], [*names, "max"], middle[:-1], middle[1:], strict=True)
    wrong = [f"{a} > {b}" for a, b, one, other in pairs if (one > other + room).any()]
    wrong += ["mean < min"] if (arrays["mean"] < low - room).any() else []
    wrong += ["mean > max"] if (arrays["mean"] > high + room).any() else []
    wrong += ["std < 0"] if (arrays["std"] < 0).any() else []
    if not wrong:
        return
    if is_default(name):  # merged quantiles of index columns are known to be odd
        return
    yield finding(
        "stats.order",
        FILE,
        found=f"{', '.join(wrong)} of {name!r}",
        expected="min <= q01 <= ... <= max",
        remedy=RECOMPUTE,
    )


def _check_picture_stats(
    folder: Folder, name: str, feature: dict, arrays: dict[str, np.ndarray]
) -> Iterator[Finding]:
    if is_depth(feature):
        return
    if arrays["max"].max() > 1 + ROOM or arrays["min"].min() < -ROOM:
        text = f"{name!r} from {arrays['min'].min():g} to {arrays['max'].max():g}"
        yield finding("stats.values", FILE, found=text, expected="colours within 0 to 1", remedy=RECOMPUTE)
    if has_no_spread(arrays):
        text = f"std {arrays['std'].ravel().tolist()} of {name!r}"
        yield finding("stats.image_std", FILE, found=text, expected="more than 0", remedy=RECOMPUTE)
    frames = int(folder.episodes.lengths.sum()) if folder.episodes is not None else 0
    if "count" in arrays and arrays["count"][0] > max(frames, 1):
        text = f"count {arrays['count'][0]:.0f} of {name!r}: pixels were counted"
        yield finding("stats.count", FILE, found=text, expected=f"at most {frames} frames", remedy=RECOMPUTE)


def has_no_spread(arrays: dict[str, np.ndarray]) -> bool:
    """Whether std is almost 0 although colours differ: releases 0.4.0 to 0.5.1 let squares overflow."""
    return bool(((arrays["std"] < 1e-3) & (arrays["max"] - arrays["min"] > 0.1)).any())


def _check_values(
    folder: Folder, name: str, arrays: dict[str, np.ndarray], moments: Moments
) -> Iterator[Finding]:
    true, feature = moments.joined(name), folder.features[name]
    count = arrays.get("count", np.zeros(1))[0]
    rows = int(folder.episodes.lengths.sum()) if folder.episodes is not None else 0
    last = int(folder.episodes.lengths[-1]) if folder.episodes is not None and rows else 0
    if "count" in arrays and count == rows - last and count > 0:
        if name == keys.INDEX:
            text = f"count {count:.0f}"
            yield finding("stats.behind", FILE, found=text, expected=f"{rows}", remedy=RECOMPUTE)
        true = moments.joined(name, without_last=1)
    elif "count" in arrays and count not in (rows, true["count"][0]):
        text = f"count {count:.0f} of {name!r}"
        yield finding("stats.count", FILE, found=text, expected=f"{rows} rows", remedy=RECOMPUTE)
    for code, stats in (("stats.values", ("min", "max", "mean")), ("stats.std", ("std",))):
        wrong = [stat for stat in stats if _differs(arrays[stat], true[stat], true, stat)]
        if wrong:
            d = int(np.argmax(np.abs(arrays[wrong[0]] - true[wrong[0]])))
            yield finding(
                "stats.numbering" if is_default(name) else code,
                FILE,
                found=f"{wrong[0]} {arrays[wrong[0]][d]:.6g} of {name!r}{_part(feature, d)}",
                expected=f"{true[wrong[0]][d]:.6g}, which the rows have",
                remedy=RECOMPUTE,
            )


def _part(feature: dict, d: int) -> str:
    names = feature.get("names")
    if feature["shape"][-1] == 1:
        return ""
    return f" ({names[d]})" if isinstance(names, list) and len(names) > d else f" (number {d})"


def _differs(said: np.ndarray, true: np.ndarray, moments: dict[str, np.ndarray], stat: str) -> bool:
    """Whether a statistic is further from the truth than sums in float32 explain."""
    reach = np.maximum(np.abs(moments["min"]), np.abs(moments["max"]))
    share = ROOM if stat in ("mean", "std") else 1e-6
    room = share * (moments["max"] - moments["min"]) + 1e-6 * reach + 1e-9
    if stat == "std":  # the releases' E[x^2] - E[x]^2 in float32 cannot see less than this
        room = room + 1e-3 * reach
    return bool((np.abs(said - true) > room).any())


def check_episode_stats(folder: Folder, moments: Moments) -> Iterator[Finding]:
    """The stats/ columns of meta/episodes against the rows of each episode."""
    table = folder.episodes
    if table is None or folder.is_old:
        return
    for number, name in enumerate(table.table_files):
        here = np.flatnonzero((table.table_file == number) & moments.is_read)
        try:
            file = pq.ParquetFile(folder.root / name)
            wanted = [
                (feature, stat)
                for feature in moments.of
                for stat in ("min", "max", "mean")
                if f"{STATS_PREFIX}{feature}/{stat}" in file.schema_arrow.names and not is_default(feature)
            ]
            columns = [f"{STATS_PREFIX}{feature}/{stat}" for feature, stat in wanted]
            rows = file.read(columns=["episode_index", *columns])
        except READ_ERRORS:
            continue  # said where the table is read
        position = np.searchsorted(rows["episode_index"].to_numpy(), table.number[here])
        for (feature, stat), column in zip(wanted, columns, strict=True):
            yield from _check_column(folder, moments, feature, stat, rows[column], here, position, name)


def _check_column(
    folder: Folder,
    moments: Moments,
    feature: str,
    stat: str,
    column: Any,
    here: np.ndarray,
    position: np.ndarray,
    name: str,
) -> Iterator[Finding]:
    table = folder.episodes
    assert table is not None
    true = moments.of[feature][stat][here]  # (E, D)
    flat = column.combine_chunks()
    if flat.null_count:
        return  # an episode without statistics is allowed
    values = np.asarray(flat.flatten(), dtype=np.float64)
    if values.size != len(flat) * true.shape[1]:
        text = f"{stat} of {feature!r} has {values.size} numbers in {len(flat)} rows"
        yield finding(
            "stats.episode", name, found=text, expected=f"{true.shape[1]} per row", remedy=RECOMPUTE
        )
        return
    said = values.reshape(len(flat), -1)[np.clip(position, 0, len(flat) - 1)]
    low, high = moments.of[feature]["min"][here], moments.of[feature]["max"][here]
    room = (ROOM if stat == "mean" else 1e-6) * (high - low) + 1e-6 * np.maximum(abs(low), abs(high)) + 1e-9
    wrong = np.flatnonzero((np.abs(said - true) > room).any(axis=1))
    if len(wrong):
        k = int(wrong[0])
        text = f"{stat} {said[k].tolist()} of {feature!r} in {numbered(table.number[here][wrong])}"
        yield finding(
            "stats.episode",
            name,
            found=text[:300],
            expected=f"{true[k].tolist()}"[:200],
            remedy=RECOMPUTE,
            episodes=table.number[here][wrong],
        )


def check_constant(folder: Folder, moments: Moments) -> Iterator[Finding]:
    """Numbers of states and actions that never change."""
    if not moments.is_read.all() or not moments.num_episodes:
        return
    for name in moments.of:
        if not name.startswith((keys.OBSERVATION_PREFIX, keys.ACTION)):
            continue
        true, feature = moments.joined(name), folder.features[name]
        still = np.flatnonzero(true["min"] == true["max"])
        if len(still) and true["count"][0] > 1:
            parts = ", ".join(_part(feature, int(d)).strip(" ()") or "its value" for d in still[:8])
            yield finding(
                "data.constant",
                FILE,
                found=f"{len(still)} of {len(true['min'])} numbers of {name!r} never change: {parts}",
                expected="numbers that vary",
                remedy="nothing must be done if that is so in the world; else look at that motor or sensor",
            )
