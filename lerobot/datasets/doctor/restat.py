"""Statistics of the sound copy: numbers from the rows, pictures from the old table where it has them.

    per piece -> {feature: {stat: array}} -> joined, or the old meta/stats.json where nothing has changed

Shapes: T rows of an episode, C H W picture.
"""

import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.datasets import images
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.depth import DepthScale
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.infer import VIDEO_PATH
from lerobot.datasets.doctor.report import Report
from lerobot.datasets.doctor.salvage import Piece
from lerobot.datasets.doctor.stats import has_no_spread
from lerobot.datasets.schema import IMAGE_DTYPES, is_depth, is_numeric
from lerobot.datasets.stats import (
    MOMENTS,
    Stats,
    aggregate_stats,
    get_feature_stats,
    picture_stats,
    sample_indices,
    stats_shape,
    thin_picture,
)
from lerobot.datasets.tables import STATS_PREFIX, unflatten_stats
from lerobot.datasets.timeline import read_timeline


def episode_stats(
    folder: Folder,
    pieces: list[Piece],
    rows: list[dict[str, Any]],
    old_rows: dict[int, dict[str, Any]],
    *,
    out: Path,
) -> list[Stats]:
    """The statistics of every piece."""
    found = []
    for piece, row in zip(pieces, rows, strict=True):
        old = old_rows.get(piece.number, {})
        stored = unflatten_stats({k: v for k, v in old.items() if k.startswith(STATS_PREFIX)})
        one: Stats = {}
        for name, feature in folder.features.items():
            if feature["dtype"] in IMAGE_DTYPES:
                one[name] = _picture_stats(name, feature, row, stored.get(name, {}), out)
            elif is_numeric(feature):
                values = _values(folder, name, piece, row)
                one[name] = get_feature_stats(values, 0, values.ndim == 1)
        found.append(one)
    return found


def _values(folder: Folder, name: str, piece: Piece, row: dict[str, Any]) -> np.ndarray:
    """A numeric column as the copy holds it."""
    frame, length = np.arange(len(piece)), len(piece)
    anew = {
        keys.TIMESTAMP: frame / (folder.fps or 1),
        keys.FRAME_INDEX: frame,
        keys.EPISODE_INDEX: np.full(length, row["episode_index"]),
        keys.INDEX: frame + row["dataset_from_index"],
    }
    return anew.get(name, piece.columns[name])


def _picture_stats(
    name: str, feature: dict, row: dict[str, Any], stored: dict[str, np.ndarray], out: Path
) -> dict[str, np.ndarray]:
    shape = stats_shape(feature)
    arrays = {stat: np.asarray(value, dtype=np.float64) for stat, value in stored.items()}
    is_usable = all(stat in arrays for stat in MOMENTS) and all(
        np.isfinite(value).all() and (stat == "count" or value.reshape(-1).shape == shape[:1])
        for stat, value in arrays.items()
    )
    if is_usable and not has_no_spread(arrays):
        return {
            stat: value.astype(np.int64) if stat == "count" else value.reshape(shape)
            for stat, value in arrays.items()
        }
    chosen = sample_indices(row["length"])
    decode = _video_frames if feature["dtype"] == "video" else _image_cells
    pictures = np.stack([thin_picture(picture) for picture in decode(name, feature, row, chosen, out)])
    stats = get_feature_stats(pictures, (0, 2, 3), True)
    stats["count"] = np.array([len(pictures)])
    return picture_stats(stats, is_colour=not is_depth(feature))


def _video_frames(name: str, feature: dict, row: dict[str, Any], chosen: list[int], out: Path) -> list:
    """Decoded pictures (C, H, W) of the chosen frames."""
    path = out / VIDEO_PATH.format(
        video_key=name,
        chunk_index=row[f"videos/{name}/chunk_index"],
        file_index=row[f"videos/{name}/file_index"],
    )
    timeline = read_timeline(path)
    first = int(np.argmin(np.abs(timeline.seconds - row[f"videos/{name}/from_timestamp"])))
    wanted, found = set(timeline.pts[[first + k for k in chosen]].tolist()), []
    layout, convert = "gray12le" if is_depth(feature) else "rgb24", FrameConverter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(int(timeline.pts[first]), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts in wanted:
                pixels = convert(frame, layout).to_ndarray()
                found.append(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
            if len(found) == len(wanted):
                break
    if not is_depth(feature):
        return found
    info = feature.get("info") or {}
    scale = DepthScale.from_info(info, name=name)
    return [scale.dequantize(picture, unit=info.get("depth_unit") or "mm") for picture in found]


def _image_cells(name: str, feature: dict, row: dict[str, Any], chosen: list[int], out: Path) -> list:
    """Decoded pictures (C, H, W) of the chosen rows."""
    path = out / f"data/chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet"
    table = pq.ParquetFile(path).read(columns=[keys.EPISODE_INDEX, name])
    cells = table.filter(np.asarray(table[keys.EPISODE_INDEX]) == row["episode_index"])[name]
    return [
        images.decode(cells[k].as_py()["bytes"], where=str(path), is_depth=is_depth(feature)) for k in chosen
    ]


def write_stats(folder: Folder, before: Report, stats: list[Stats], *, lost: bool, out: Path) -> None:
    """meta/stats.json: the old one where nothing was wrong and no episode is gone, else joined anew."""
    is_true = not lost and not any(code.startswith("stats.") for code in before.codes)
    if is_true and "rows" in before.checked and before.num_episodes == len(stats):
        path = out / keys.STATS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.root / keys.STATS_FILE, path)
        return
    joined = aggregate_stats(stats)
    plain = {
        name: {stat: np.asarray(value).tolist() for stat, value in one.items()}
        for name, one in joined.items()
    }
    files.write_json(out / keys.STATS_FILE, plain)
