"""What meta/info.json should say where it does not: from the files' schemas, timestamps and videos.

parquet schema -> columns     videos/KEY/ -> cameras     timestamps, video times -> fps
"""

import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import config
from lerobot.datasets.doctor.episodes import read_episodes
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.rows import fitting_fps
from lerobot.datasets.doctor.videos import VIDEO_ERRORS
from lerobot.datasets.schema import DEFAULT_FEATURES
from lerobot.datasets.timeline import read_timeline

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def complete_info(folder: Folder, sources: dict[str, Path], done: list[str]) -> None:
    """Fill in features, fps and paths of the folder, from the files; says in `done` what was filled in.

    Raises:
        DatasetError: features or fps cannot be told.
    """
    is_new = folder.info is None
    info = folder.info = dict(folder.info or {"codebase_version": "v3.0", "robot_type": None})
    if not folder.features:
        folder.features = _features(folder.root, sources)
        done.append(f"{keys.INFO_FILE}: features taken from the schemas of the files; their names are lost")
    rate = _rate(folder, sources)
    if folder.fps is None or (rate is not None and rate != folder.fps):
        if rate is None:
            raise DatasetError(
                f"{folder.root / keys.INFO_FILE}: fps={info.get('fps')!r}, and the files do not say it. "
                "Write the frames per second there, and type the command again."
            )
        done.append(f"{keys.INFO_FILE}: fps={rate:g}, as the timestamps say, instead of {info.get('fps')!r}")
        folder.fps = info["fps"] = rate
    for name, template in (("data_path", DATA_PATH), ("video_path", VIDEO_PATH)):
        text = info.get(name)
        if is_new or not isinstance(text, str) or "{chunk_index" not in text or "{file_index" not in text:
            info[name] = template if name == "data_path" or folder.video_keys else None
    for name, default in (
        ("chunks_size", config.CHUNKS_SIZE),
        ("data_files_size_in_mb", config.DATA_FILES_SIZE_IN_MB),
        ("video_files_size_in_mb", config.VIDEO_FILES_SIZE_IN_MB),
    ):
        if not isinstance(info.get(name), (int, float)) or not info[name] > 0:
            info[name] = default
    read_episodes(folder)  # again: places follow from features, fps and paths


def _rate(folder: Folder, sources: dict[str, Path]) -> float | None:
    """The fps that all timestamps fit, unless they fit what is declared or the videos fit that instead."""
    fitting = {_file_rate(path) for path in sources.values()} - {-1.0}
    if len(fitting) != 1 or None in fitting:
        return folder.fps
    rate = fitting.pop()
    if folder.fps is None or rate is None:
        return rate
    shown = {_video_rate(path, folder.fps, rate) for path in _videos(folder)} - {None}
    return folder.fps if shown == {folder.fps} else rate


def _file_rate(path: Path) -> float | None:
    """The fps that a data file's timestamps fit; -1 where every fps would."""
    try:
        table = pq.ParquetFile(path).read(columns=[keys.FRAME_INDEX, keys.TIMESTAMP])
        frame, times = (table[name].to_numpy().astype(np.float64) for name in table.column_names)
    except (pa.ArrowException, OSError, ValueError):
        return -1.0
    return fitting_fps(times, frame) if frame.size and frame.max() > 0 else -1.0


def _videos(folder: Folder) -> list[Path]:
    return sorted(folder.root.glob("videos/*/*/*.mp4"))[:3]  # all are alike in this


def _video_rate(path: Path, *rates: float) -> float | None:
    """Which of the rates a video's frames are shown at."""
    try:
        timeline = read_timeline(path)
    except DatasetError:
        return None
    fits = [rate for rate in rates if not len(timeline.off_beat(fps=rate, tolerance_s=1e-4))]
    return fits[0] if fits and len(timeline) > 1 else None


def _features(root: Path, sources: dict[str, Path]) -> dict[str, dict]:
    """Features from the first data file's schema, and a camera for every folder of videos."""
    if not sources:
        raise DatasetError(
            f"{root / keys.INFO_FILE} cannot be read, and no data file shows the dataset's schema. Fetch "
            "meta/info.json again from where the dataset came from."
        )
    first = next(iter(sources.values()))
    schema, found = pq.read_schema(first), {}
    for folder in sorted((root / "videos").glob("*")):
        camera = next((one for path in sorted(folder.glob("*/*.mp4")) if (one := _camera(path))), None)
        if camera is None:
            raise DatasetError(f"{root / keys.INFO_FILE} is lost, and no video in {folder} can be opened.")
        found[folder.name] = camera
    for field in schema:
        if field.name not in DEFAULT_FEATURES:
            found[field.name] = _column(field, first)
    return found | {name: dict(one) for name, one in DEFAULT_FEATURES.items()}


def _camera(path: Path) -> dict | None:
    try:
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            size = (context.height, context.width)
    except VIDEO_ERRORS:
        return None
    return {"dtype": "video", "shape": (*size, 3), "names": ["height", "width", "channels"]}


def _column(field: pa.Field, path: Path) -> dict:
    """A column's declaration, from its type and its first value."""
    kind, shape = field.type, []
    if pa.types.is_struct(kind):
        return _pictures(field.name, path)
    cell = pq.ParquetFile(path).read_row_group(0, columns=[field.name]).column(0)[0].as_py()
    while hasattr(kind, "value_type") or isinstance(kind, pa.BaseExtensionType):
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
            continue
        shape.append(len(cell))
        kind, cell = kind.value_type, cell[0]
    dtype = {"float": "float32", "double": "float64"}.get(str(kind), str(kind))
    return {"dtype": dtype, "shape": tuple(shape) or (1,), "names": None}


def _pictures(name: str, path: Path) -> dict:
    """The declaration of an image column, from its first picture."""
    cell = pq.ParquetFile(path).read_row_group(0, columns=[name]).column(0)[0].as_py()
    with Image.open(io.BytesIO(cell["bytes"])) as picture:
        is_depth = picture.format == "TIFF"
        shape = (picture.height, picture.width, 1 if is_depth else 3)
    feature = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
    return feature | {"info": {"is_depth_map": True}} if is_depth else feature
