"""Statistics of dataset features: of arrays, of episodes, of pictures, and of many episodes together.

    an episode --compute_episode_stats--> {feature: {stat: array}} --aggregate_stats--> meta/stats.json

Shapes: T frames, N rows, D numbers per row, C H W picture.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import images
from lerobot.datasets.histogram import QUANTILES, RunningQuantileStats, quantile_name
from lerobot.datasets.schema import IMAGE_DTYPES, TEXT_DTYPES, is_depth

__all__ = ["RunningQuantileStats"]  # found here under its old name

Stats = dict[str, dict[str, np.ndarray]]

MOMENTS = ("min", "max", "mean", "std", "count")
QUANTILE_NAMES = tuple(quantile_name(quantile) for quantile in QUANTILES)
STAT_NAMES = (*MOMENTS, *QUANTILE_NAMES)
LARGE_SIDE, TARGET_SIDE = 300, 150  # pictures with a side of 300 or more are thinned to about 150


def estimate_num_samples(num_frames: int, *, low: int = 100, high: int = 10_000, power: float = 0.75) -> int:
    """How many frames of an episode stand for its pictures: all of a short one, T^0.75 of a long one."""
    return max(min(low, num_frames), min(int(num_frames**power), high))


def sample_indices(num_frames: int) -> list[int]:
    """The frames, spread evenly from first to last, whose pictures enter the statistics."""
    count = estimate_num_samples(num_frames)
    return np.round(np.linspace(0, num_frames - 1, count)).astype(int).tolist()


def thin_picture(picture: np.ndarray) -> np.ndarray:
    """Every n-th pixel of a large picture (C, H, W); small ones as they are."""
    height, width = picture.shape[-2:]
    if max(height, width) < LARGE_SIDE:
        return picture
    step = max(1, (width if width > height else height) // TARGET_SIDE)
    return picture[:, ::step, ::step]


def sample_images(paths: Sequence[str | Path]) -> np.ndarray:
    """The thinned pictures (N, C, H, W) of the sampled files."""
    chosen = [images.load(Path(paths[i])) for i in sample_indices(len(paths))]
    return np.stack([thin_picture(picture) for picture in chosen])


def get_feature_stats(
    array: np.ndarray,
    axis: int | tuple[int, ...] | None,
    keepdims: bool,
    quantile_list: list[float] | None = None,
) -> dict[str, np.ndarray]:
    """min, max, mean, std, count and quantiles of an array over the given axes.

    `axis=0` treats the array as rows of its last dimension. `axis=None` takes all numbers together. Results
    have the shape of the axes that are left, at least one, with reduced axes kept as 1 when `keepdims`; count
    is (1,).
    """
    rows, shape = _as_rows(np.asarray(array), axis=axis, keepdims=keepdims)  # (N, D)
    running = RunningQuantileStats(quantile_list)
    running.update(rows)
    stats = {
        name: value.reshape(shape) for name, value in running.get_statistics().items() if name != "count"
    }
    counted = array.shape[axis[0] if isinstance(axis, tuple) else axis or 0] if array.ndim else 1
    return stats | {"count": np.array([counted])}


def _as_rows(array: np.ndarray, *, axis: int | tuple[int, ...] | None, keepdims: bool) -> tuple:
    """The array as (N, D) and the shape that results of size D take."""
    if axis is None:
        return array.reshape(-1, 1), (1,) * array.ndim if keepdims else (1,)
    axes = tuple(a % array.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    if axes == (0,):
        size = array.shape[-1] if array.ndim > 1 else 1
        return array.reshape(-1, size), (1, size) if keepdims and array.ndim > 1 else (size,)
    left = tuple(a for a in range(array.ndim) if a not in axes)
    rows = array.transpose(*axes, *left).reshape(-1, int(np.prod([array.shape[a] for a in left])))
    kept = tuple(1 if a in axes else array.shape[a] for a in range(array.ndim))
    return rows, kept if keepdims else tuple(array.shape[a] for a in left) or (1,)


def compute_episode_stats(
    episode_data: dict[str, Any], features: dict[str, dict], quantile_list: list[float] | None = None
) -> Stats:
    """Statistics of one episode: columns are arrays (T, ...), cameras lists of picture files.

    Vectors give (D,), scalars (1,), pictures (C, 1, 1): colours in 0..1, depth in its own unit.
    """
    found: Stats = {}
    for name, data in episode_data.items():
        feature = features[name]
        if feature["dtype"] in TEXT_DTYPES:
            continue
        if feature["dtype"] in IMAGE_DTYPES:
            pictures = sample_images(data)  # (N, C, H, W)
            stats = get_feature_stats(pictures, (0, 2, 3), True, quantile_list)
            found[name] = picture_stats(stats, is_colour=not is_depth(feature))
        else:
            data = np.asarray(data)
            found[name] = get_feature_stats(data, 0, data.ndim == 1, quantile_list)
    return found


def picture_stats(stats: dict[str, np.ndarray], *, is_colour: bool) -> dict[str, np.ndarray]:
    """Statistics of pixels as they are stored: (C, 1, 1), and bytes 0..255 as 0..1."""
    scale = 255.0 if is_colour else 1.0
    return {k: v if k == "count" else (v / scale).reshape(-1, 1, 1) for k, v in stats.items()}


def aggregate_stats(stats_list: Sequence[Stats]) -> Stats:
    """Statistics of all inputs together; a feature is taken from the inputs that have it.

    Mean and std are those of the union. Quantiles are the count-weighted means of the inputs' quantiles, as
    LeRobot's releases store them; they are dropped when an input has none.
    """
    names = list(dict.fromkeys(name for stats in stats_list for name in stats))
    return {name: _aggregate([stats[name] for stats in stats_list if name in stats], name) for name in names}


def _aggregate(parts: list[dict[str, np.ndarray]], name: str) -> dict[str, np.ndarray]:
    for part in parts:
        missing = [stat for stat in MOMENTS if stat not in part]
        if missing:
            raise DatasetError(f"Statistics of {name!r} lack {', '.join(missing)}; recompute them.")
    counts = np.array([int(np.ravel(part["count"])[0]) for part in parts], dtype=np.float64)
    stack = {stat: np.stack([np.asarray(part[stat]) for part in parts]) for stat in MOMENTS[:-1]}
    weights = counts.reshape(-1, *[1] * (stack["mean"].ndim - 1))
    total = counts.sum()
    means = stack["mean"].astype(np.float64)
    mean = (means * weights).sum(axis=0) / total
    variance = ((stack["std"].astype(np.float64) ** 2 + (means - mean) ** 2) * weights).sum(axis=0) / total
    merged = {
        "min": stack["min"].min(axis=0),
        "max": stack["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(total)]),
    }
    for stat in parts[0]:
        if stat not in MOMENTS and all(stat in part for part in parts):
            values = np.stack([np.asarray(part[stat], dtype=np.float64) for part in parts])
            merged[stat] = (values * weights).sum(axis=0) / total
    return merged


def compute_relative_action_stats(
    columns: dict[str, Any],
    features: dict[str, dict],
    chunk_size: int,
    exclude_joints: Iterable[str] = ("gripper",),
) -> dict[str, np.ndarray]:
    """Statistics of action[t+k] - state[t] over every window of `chunk_size` frames inside one episode.

    Joints whose name contains one of `exclude_joints` stay absolute. `columns` needs action (T, D),
    observation.state (T, D) and episode_index (T,).
    """
    actions, states = np.asarray(columns[keys.ACTION]), np.asarray(columns[keys.STATE])
    episodes = np.asarray(columns[keys.EPISODE_INDEX])
    joints = _joint_names(features[keys.ACTION].get("names"), actions.shape[1])
    is_relative = np.array([not any(word in joint for word in exclude_joints) for joint in joints])
    starts = np.arange(len(actions) - chunk_size + 1)
    starts = starts[episodes[starts] == episodes[starts + chunk_size - 1]]
    if not len(starts):
        raise DatasetError(f"No episode has {chunk_size} frames; choose a smaller chunk_size.")
    running = RunningQuantileStats()
    for block in np.array_split(starts, max(1, len(starts) // 4096)):
        windows = actions[block[:, None] + np.arange(chunk_size)]  # (N, T, D)
        windows = windows - np.where(is_relative, states[block], 0)[:, None].astype(windows.dtype)
        running.update(windows.reshape(-1, windows.shape[-1]))
    return running.get_statistics()


def _joint_names(names: Any, size: int) -> list[str]:
    """One name per joint; older datasets keep them in a dict of lists, such as {"motors": [...]}."""
    if isinstance(names, dict):
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    return [str(name) for name in names] if names and len(names) == size else [""] * size


def lack_quantiles(stats: Stats, features: dict[str, dict]) -> list[str]:
    """The features that ought to have quantiles and lack some."""
    return [
        name
        for name, feature in features.items()
        if feature["dtype"] not in TEXT_DTYPES and set(QUANTILE_NAMES) - set(stats.get(name, {}))
    ]


def stats_shape(feature: dict) -> tuple[int, ...]:
    """The shape of a feature's statistics: its last axis, or (C, 1, 1) for pictures."""
    shape = tuple(feature["shape"])
    if feature["dtype"] not in ("image", "video"):
        return shape[-1:]
    names = feature.get("names")
    is_first = isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel")
    if is_depth(feature):
        return (1, 1, 1)
    channels = shape[0] if is_first or (shape[2] not in (1, 3) and shape[0] in (1, 3)) else shape[2]
    return (3 if channels == 1 else channels, 1, 1)  # grey pictures are stored as colours


def check_shapes(stats: Stats, features: dict[str, dict], *, root: Path) -> None:
    """Return when a dataset's statistics have the shapes of its features.

    Older formats keep one number per element of a feature with several axes; that fits, too.

    Raises:
        DatasetError: some have another; names the file, both shapes, and how to compute them anew.
    """
    for name, feature in features.items():
        for stat, value in stats.get(name, {}).items():
            fitting = [(1,)] if stat == "count" else [stats_shape(feature), tuple(feature["shape"])]
            if np.shape(value) not in fitting:
                raise DatasetError(
                    f"{root / keys.STATS_FILE}: {stat} of {name!r} has shape {list(np.shape(value))}, "
                    f"expected {list(fitting[0])}. Type: lerobot-edit-dataset --root={root} "
                    "--operation.type=recompute_stats --operation.skip_image_video=false "
                    "--operation.overwrite=true"
                )
