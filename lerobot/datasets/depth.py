"""Distances as 12-bit video levels and back: finer steps near the camera when `use_log` is on.

    level = rint(4095 * (f(d) - f(min)) / (f(max) - f(min))),   f(d) = ln(d + shift), or d itself

Shapes: any; distances are float32 metres or uint16 millimetres.
"""

from dataclasses import dataclass

import numpy as np

from lerobot.core.errors import DatasetError

MAX_LEVEL = 4095
MILLIMETRES = 1000.0


@dataclass(frozen=True, kw_only=True)
class DepthScale:
    """Which distances the levels 0 and 4095 stand for (metres), and how those between are spread."""

    depth_min: float = 0.01
    depth_max: float = 10.0
    shift: float = 3.5
    use_log: bool = True

    @classmethod
    def from_info(cls, info: dict, *, name: str) -> "DepthScale":
        """The scale stored in a feature's `info`.

        Raises:
            DatasetError: the feature does not say how its levels are to be read.
        """
        wanted = ("depth_min", "depth_max", "shift", "use_log")
        missing = [f"video.{key}" for key in wanted if info.get(f"video.{key}") is None]
        if missing:
            raise DatasetError(
                f"Depth camera {name!r}: meta/info.json lacks {', '.join(missing)} under "
                f"features.{name}.info, "
                "so its video cannot be turned back into distances."
            )
        return cls(**{key: info[f"video.{key}"] for key in wanted})

    def quantize(self, depth: np.ndarray) -> np.ndarray:
        """Levels (uint16, 0..4095) of distances; whole numbers are millimetres, floats metres."""
        unit = MILLIMETRES if np.issubdtype(depth.dtype, np.integer) else 1.0
        low, high, shift = (np.float32(v * unit) for v in (self.depth_min, self.depth_max, self.shift))
        values = depth.astype(np.float32)
        if self.use_log:
            values = np.log(np.maximum(values + shift, np.finfo(np.float32).tiny))
            low, high = np.log(low + shift), np.log(high + shift)
        levels = np.rint(MAX_LEVEL * (values - low) / (high - low))
        return np.clip(levels, 0, MAX_LEVEL).astype(np.uint16)

    def dequantize(self, levels: np.ndarray, *, unit: str) -> np.ndarray:
        """Distances (float32) in `unit`, "mm" or "m", of levels."""
        low, high = np.float32(self.depth_min), np.float32(self.depth_max)
        start, end = (np.log(low + self.shift), np.log(high + self.shift)) if self.use_log else (low, high)
        values = levels.astype(np.float32) * np.float32((end - start) / MAX_LEVEL) + np.float32(start)
        if self.use_log:
            values = np.exp(values) - np.float32(self.shift)
        metres = np.clip(values, low, high)
        if unit == "m":
            return metres
        return np.clip(np.rint(metres * np.float32(MILLIMETRES)), 0, 65535)


def unit_of(dtype: np.dtype) -> str:
    """The unit that recorded frames are in: floats are metres, whole numbers millimetres."""
    return "m" if np.issubdtype(dtype, np.floating) else "mm"


def factor(stored: str | None, wanted: str) -> float:
    """What values in the stored unit are multiplied by; 1 when the stored unit is unknown."""
    if stored is None or stored == wanted:
        return 1.0
    return MILLIMETRES if wanted == "mm" else 1 / MILLIMETRES
