"""Values of new features from files: what `--operation.features` says, as arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lerobot.core.errors import ConfigError, suggest
from lerobot.datasets.schema import is_numeric, numbers

KEYS = ("dtype", "shape", "names", "file", "column", "value")


def read_features(table: dict[str, Any], *, num_frames: int) -> dict[str, tuple[Any, dict]]:
    """name -> (values of every frame, declaration).

    Args:
        table: name -> {"dtype", "shape", "names"} with one of "file" (.npy, or .parquet with the column
            "column", by default the feature's name) and "value" (the same for every frame).

    Raises:
        ConfigError: a key is unknown or missing, or a file cannot be read.
    """
    return {name: _read_feature(name, given, num_frames) for name, given in table.items()}


def _read_feature(name: str, given: Any, num_frames: int) -> tuple[Any, dict]:
    where = f"--operation.features, {name!r}"
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected {{dtype: ..., shape: [...], file: ...}}, got {given!r}.")
    wrong = [key for key in given if key not in KEYS]
    if wrong:
        raise ConfigError(
            f"{where}: {wrong[0]!r} is unknown; one of {', '.join(KEYS)}.{suggest(wrong[0], KEYS)}"
        )
    if ("file" in given) == ("value" in given):
        raise ConfigError(f"{where}: give either 'file' (.npy or .parquet) or 'value'.")
    info: dict[str, Any] = {"dtype": given.get("dtype", "float32"), "shape": tuple(given.get("shape", (1,)))}
    info["names"] = given.get("names")
    if "value" in given:
        return _repeated(given["value"], info, num_frames, where), info
    path = Path(given["file"]).expanduser()
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {path}.")
    if path.suffix == ".npy":
        return _from_numpy(path, where), info
    if path.suffix == ".parquet":
        return _from_parquet(path, str(given.get("column", name)), info, where), info
    raise ConfigError(f"{where}: {path} is neither a .npy nor a .parquet file.")


def _repeated(value: Any, info: dict, num_frames: int, where: str) -> Any:
    if not is_numeric(info):
        return [value] * num_frames
    try:
        one = np.asarray(value, dtype=info["dtype"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: value={value!r} is no {info['dtype']} ({error}).") from error
    shape = info["shape"]
    one = np.broadcast_to(one, shape) if one.ndim == 0 else one
    return np.broadcast_to(one, (num_frames, *one.shape))


def _from_numpy(path: Path, where: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {path} is not an array that can be read ({error}).") from error


def _from_parquet(path: Path, column: str, info: dict, where: str) -> Any:
    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        if column not in names:
            raise ConfigError(f"{where}: {path} has no column {column!r}.{suggest(column, names)}")
        values = table.read(columns=[column]).column(0)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {path} cannot be read ({error}).") from error
    return numbers(values, info, where=f"{path}, {column}") if is_numeric(info) else values.to_pylist()
