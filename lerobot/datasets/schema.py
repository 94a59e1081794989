"""The feature table of a dataset, and the Arrow schema of the files that hold it.

    info.json "features"  ->  Arrow type per column  +  `huggingface` schema metadata

Shapes: T frames of an episode, C H W image.
"""

import copy
import json
import uuid
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core import keys
from lerobot.core.errors import DatasetError, suggest

DEFAULT_FEATURES: dict[str, dict[str, Any]] = {
    keys.TIMESTAMP: {"dtype": "float32", "shape": (1,), "names": None},
    keys.FRAME_INDEX: {"dtype": "int64", "shape": (1,), "names": None},
    keys.EPISODE_INDEX: {"dtype": "int64", "shape": (1,), "names": None},
    keys.INDEX: {"dtype": "int64", "shape": (1,), "names": None},
    keys.TASK_INDEX: {"dtype": "int64", "shape": (1,), "names": None},
}
IMAGE_DTYPES = ("image", "video")
TEXT_DTYPES = ("string", "language")
EXTENSION_NAME = "datasets.features.features.Array{}DExtensionType"
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def declared_features(features: dict[str, dict], *, use_videos: bool) -> dict[str, dict]:
    """The full feature table of a new dataset: the user's features, checked, then the five default columns.

    Raises:
        DatasetError: a name holds '/', a dtype is unknown, a shape is not made of positive integers.
    """
    table = {}
    for name, feature in features.items():
        if name in DEFAULT_FEATURES:
            continue
        _check_declaration(name, feature)
        if feature["dtype"] == "video" and not use_videos:
            raise DatasetError(
                f"Feature {name!r} is a video and use_videos is False. Declare its dtype as 'image'."
            )
        table[name] = {**copy.deepcopy(feature), "shape": tuple(feature["shape"])}
        table[name].setdefault("names", None)
    return table | copy.deepcopy(DEFAULT_FEATURES)


def _check_declaration(name: str, feature: dict) -> None:
    if "/" in name:
        raise DatasetError(f"Feature name {name!r} contains '/'. Use '.' to separate the parts of a name.")
    if not isinstance(feature, dict) or "dtype" not in feature or "shape" not in feature:
        raise DatasetError(f"Feature {name!r} needs 'dtype' and 'shape', got {feature!r}.")
    dtype, shape = feature["dtype"], feature["shape"]
    if dtype not in (*IMAGE_DTYPES, *TEXT_DTYPES):
        try:
            known = np.dtype(dtype).kind in "fiub"
        except TypeError:
            known = False
        if not known:
            raise DatasetError(
                f"Feature {name!r}: dtype {dtype!r} is not known; image, video, string, or a number type "
                "such as "
                "float32, int64, "
                f"bool.{suggest(str(dtype), ['float32', 'int64', 'video', 'image', 'string'])}"
            )
    if not len(shape) or any(not isinstance(size, (int, np.integer)) or size < 1 for size in shape):
        raise DatasetError(f"Feature {name!r}: shape {shape!r} must be positive whole numbers, such as (6,).")
    if dtype in IMAGE_DTYPES and len(shape) != 3:
        raise DatasetError(
            f"Feature {name!r}: an {dtype} has shape (height, width, channels), got {tuple(shape)}."
        )


def is_depth(feature: dict) -> bool:
    """Whether a camera feature holds distances, under any of the flags that releases have used."""
    info, old = feature.get("info") or {}, feature.get("video_info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map") or old.get("video.is_depth_map"))


def is_numeric(feature: dict) -> bool:
    """Whether the column holds numbers (or flags)."""
    return feature["dtype"] not in (*IMAGE_DTYPES, *TEXT_DTYPES)


def data_features(features: dict[str, dict]) -> dict[str, dict]:
    """The features that are columns of the data files: all but videos."""
    return {name: feature for name, feature in features.items() if feature["dtype"] != "video"}


def frame_schema(features: dict[str, dict]) -> pa.Schema:
    """Schema of `data/*.parquet`, with the metadata by which the `datasets` package knows the columns."""
    columns = data_features(features)
    fields = [_field(name, feature) for name, feature in columns.items()]
    described = {name: _described(feature) for name, feature in columns.items()}
    metadata = {"info": {"features": described}, "fingerprint": uuid.uuid4().hex[:16]}
    return pa.schema(fields, metadata={"huggingface": json.dumps(metadata)})


def _field(name: str, feature: dict) -> pa.Field:
    dtype, shape = feature["dtype"], tuple(feature["shape"])
    if dtype == "image":
        return pa.field(name, IMAGE_TYPE)
    if dtype == "string":
        return pa.field(name, pa.string())
    if dtype == "language":
        raise DatasetError(f"Feature {name!r}: writing language columns is not supported yet.")
    scalar = pa.from_numpy_dtype(np.dtype(dtype))
    if shape == (1,):
        return pa.field(name, scalar)
    if len(shape) == 1:
        return pa.field(name, pa.list_(scalar, shape[0]))
    nested = scalar
    for _ in shape:
        nested = pa.list_(nested)
    extension = {
        "ARROW:extension:name": EXTENSION_NAME.format(len(shape)),
        "ARROW:extension:metadata": json.dumps([list(shape), dtype]),
    }
    return pa.field(name, nested, metadata=extension)


def _described(feature: dict) -> dict:
    """The column in the words of the `datasets` package."""
    dtype, shape = feature["dtype"], tuple(feature["shape"])
    if dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": dtype, "_type": "Value"}
    if dtype == "string" or shape == (1,):
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0], "_type": "List"}
    return {"shape": list(shape), "dtype": dtype, "_type": f"Array{len(shape)}D"}


def column_array(values: Any, field: pa.Field, feature: dict) -> pa.Array:
    """One column of an episode as an Arrow array; `values` is (T, *shape), or a list for text and images."""
    if feature["dtype"] in (*TEXT_DTYPES, "image"):
        return pa.array(values, type=field.type)
    values = np.ascontiguousarray(values)
    flat = pa.array(values.reshape(-1), type=pa.from_numpy_dtype(values.dtype))
    shape = tuple(feature["shape"])
    if shape == (1,):
        return flat
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, shape[0])
    for size in reversed(shape):  # innermost axis first
        flat = pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, size, dtype=np.int32), flat)
    return flat


def numbers(column: pa.ChunkedArray, feature: dict, *, where: str) -> np.ndarray:
    """A numeric column as a contiguous array (T, *shape), () for shape (1,).

    Accepts scalars, fixed and variable lists and nested lists; anything else, or missing values, is an error
    that names `where` (file and column).
    """
    shape = tuple(feature["shape"])
    rows = len(column)
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    while not (pa.types.is_primitive(values.type) or pa.types.is_boolean(values.type)):
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        elif pa.types.is_nested(values.type) and hasattr(values, "flatten"):
            if values.null_count:
                raise DatasetError(f"{where}: {values.null_count} values are missing.")
            values = values.flatten()
        else:
            raise DatasetError(
                f"{where}: a {column.type} column cannot be read as {feature['dtype']} {shape}."
            )
    if values.null_count:
        raise DatasetError(f"{where}: {values.null_count} values are missing.")
    size = int(np.prod(shape))
    if len(values) != rows * size:
        raise DatasetError(
            f"{where}: {len(values)} numbers in {rows} rows, expected {size} per row (shape {shape} in "
            "meta/info.json)."
        )
    flat = values.to_numpy(zero_copy_only=False)
    return flat.reshape(rows) if shape == (1,) else flat.reshape(rows, *shape)
