"""What may be recorded: one frame against the declared features, turned into the arrays that are stored.

{"observation.state": list | array | tensor, "observation.images.top": picture, ..., "task": str}
    -> numbers with the declared dtype and shape, pictures (C, H, W) uint8, depth (1, H, W)
"""

from typing import Any

import numpy as np

from lerobot.core import keys
from lerobot.core.errors import FrameError, suggest
from lerobot.core.types import image_shape
from lerobot.datasets.schema import DEFAULT_FEATURES, IMAGE_DTYPES, is_depth


class FrameCheck:
    """Checks frames against a dataset's features; the arrays that come out are copies."""

    def __init__(self, features: dict[str, dict]) -> None:
        self.features = {
            name: feature
            for name, feature in features.items()
            if name not in DEFAULT_FEATURES and feature["dtype"] != "language"
        }

    def __call__(self, frame: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The values to store, by feature, and the task.

        Raises:
            FrameError: says which feature, what came and what was expected.
        """
        self._check_names(frame)
        task = frame[keys.TASK]
        if not isinstance(task, str):
            raise FrameError(
                f"Frame: 'task' is {_words(task)}; expected a str that says what the robot is to do."
            )
        if not task.strip():
            raise FrameError(f"Frame: 'task' is empty ({task!r}); say what the robot is to do.")
        return {name: self._value(name, one, frame[name]) for name, one in self.features.items()}, task

    def _check_names(self, frame: dict[str, Any]) -> None:
        if keys.TASK not in frame:
            raise FrameError(
                "Frame: 'task' is missing; add frame['task'] = '...' that says what the robot is to do."
            )
        missing = [name for name in self.features if name not in frame]
        if missing:
            raise FrameError(
                f"Frame: {', '.join(missing)} missing; the dataset declares {', '.join(self.features)}."
            )
        given = [name for name in frame if name in DEFAULT_FEATURES]
        if given:
            raise FrameError(
                f"Frame: {', '.join(given)} must not be given; the dataset fills these in itself."
            )
        unknown = [name for name in frame if name not in self.features and name != keys.TASK]
        if unknown:
            raise FrameError(
                f"Frame: {unknown[0]!r} is not a feature of this dataset, which has "
                f"{', '.join(self.features)}."
                f"{suggest(unknown[0], self.features)}"
            )

    def _value(self, name: str, feature: dict, value: Any) -> Any:
        if feature["dtype"] == "string":
            if not isinstance(value, str):
                raise FrameError(f"Frame: {name!r} is {_words(value)}; expected a str.")
            return value
        if feature["dtype"] in IMAGE_DTYPES:
            return _depth(name, feature, value) if is_depth(feature) else _picture(name, feature, value)
        return _numbers(name, feature, value)


def _numbers(name: str, feature: dict, value: Any) -> np.ndarray:
    array, wanted, shape = _array(name, value), np.dtype(feature["dtype"]), tuple(feature["shape"])
    expected = f"expected {feature['dtype']} of shape {shape}"
    if array.shape != shape and not (shape == (1,) and array.shape == ()):
        raise FrameError(f"Frame: {name!r} is {_words(value)}; {expected}.")
    accepted = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[wanted.kind]
    if array.dtype.kind not in accepted:
        raise FrameError(f"Frame: {name!r} is {_words(value)}; {expected}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FrameError(
            f"Frame: {name!r} holds NaN or infinity: {array.tolist()}; {expected} and finite numbers."
        )
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise FrameError(
                f"Frame: {name!r} is {array.tolist()}; {expected}: {limits.min} to {limits.max}."
            )
    with np.errstate(over="ignore"):
        stored = array.astype(wanted).reshape(shape)
    if wanted.kind == "f" and not np.isfinite(stored).all():
        raise FrameError(f"Frame: {name!r} is too large for {feature['dtype']}: {array.tolist()}.")
    return stored


def _picture(name: str, feature: dict, value: Any) -> np.ndarray:
    """A colour picture as (C, H, W) uint8."""
    array = _channels_first(_array(name, value), feature)
    expected = f"expected uint8, or floats in 0..1, of shape {_shapes(feature)}"
    if array is None or array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.dtype != np.uint8):
        raise FrameError(f"Frame: {name!r} is {_words(value)}; {expected}.")
    if array.dtype == np.uint8:
        return np.array(array, order="K")  # a copy in the caller's own layout costs a fifth of a C, H, W one
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise FrameError(f"Frame: {name!r} has values from {array.min()} to {array.max()}; {expected}.")
    return np.ascontiguousarray(np.rint(array * 255).astype(np.uint8))


def _depth(name: str, feature: dict, value: Any) -> np.ndarray:
    """A depth picture as (1, H, W), uint16 millimetres or float32 metres."""
    given = _array(name, value)
    array = _channels_first(given[None] if given.ndim == 2 else given, feature)
    shapes = f"{_shapes(feature)} or {image_shape(feature)[1:]}"
    expected = f"expected uint16 millimetres or float metres of shape {shapes}"
    if array is None or not (array.dtype == np.uint16 or array.dtype.kind == "f"):
        raise FrameError(f"Frame: {name!r} is {_words(value)}; {expected}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FrameError(
            f"Frame: {name!r} holds NaN or infinity; {expected}. Store 0 where nothing was measured."
        )
    return np.array(array, dtype=np.uint16 if array.dtype == np.uint16 else np.float32, order="C")


def _channels_first(array: np.ndarray, feature: dict) -> np.ndarray | None:
    """The picture as (C, H, W), or None when its shape is neither the declared one nor its other order."""
    wanted = image_shape(feature)
    channels, height, width = wanted
    declared_last = tuple(feature["shape"]) != wanted
    orders = [((height, width, channels), True), (wanted, False)]
    for shape, is_last in orders if declared_last else orders[::-1]:
        if array.shape == shape:
            return array.transpose(2, 0, 1) if is_last else array
    return None


def _shapes(feature: dict) -> str:
    channels, height, width = image_shape(feature)
    return f"{(height, width, channels)} or {(channels, height, width)}"


def _array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, wherever it lives
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise FrameError(f"Frame: {name!r} is {_words(value)}, not an array: {error}.") from error
    if array.dtype.kind not in "fiub":
        raise FrameError(f"Frame: {name!r} is {_words(value)}, not numbers.")
    return array


def _words(value: Any) -> str:
    """What came, for a message."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        try:
            return f"a {type(value).__name__} of shape {np.shape(value)} ({np.asarray(value).dtype})"
        except ValueError:
            return f"a {type(value).__name__} of uneven length"
    if hasattr(value, "size") and hasattr(value, "mode"):  # a PIL picture: (width, height)
        return f"a {value.mode} picture {value.size[0]} wide and {value.size[1]} high"
    return f"{value!r} ({type(value).__name__})"[:200]
