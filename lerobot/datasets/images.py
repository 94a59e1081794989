"""Pictures as bytes: PNG for colour, TIFF for depth, and whatever other datasets hold.

Shapes: C H W picture. Colour is uint8; depth is uint16 millimetres or float32 metres with C = 1.
"""

import io
from pathlib import Path

import numpy as np

from lerobot.core.errors import DatasetError

PNG_LEVEL = 6  # zlib effort


def encode(picture: np.ndarray) -> bytes:
    """A picture (C, H, W) as PNG (uint8) or as uncompressed TIFF (depth)."""
    from PIL import Image

    data = io.BytesIO()
    if picture.dtype == np.uint8:
        pixels = picture[0] if picture.shape[0] == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
        Image.fromarray(pixels).save(data, format="PNG", compress_level=PNG_LEVEL)
    else:
        Image.fromarray(np.ascontiguousarray(picture[0])).save(data, format="TIFF")
    return data.getvalue()


def decode(data: bytes, *, where: str, is_depth: bool = False) -> np.ndarray:
    """The picture (C, H, W) in encoded bytes: uint8 RGB, or depth in the unit it was stored in.

    Raises:
        DatasetError: the bytes are no picture; names `where`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if is_depth:
                pixels = np.asarray(opened)
                return pixels.reshape(1, *pixels.shape[:2])
            return np.asarray(opened.convert("RGB")).transpose(2, 0, 1)
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(f"{where}: the picture cannot be read ({error}).") from error


def load(path: Path) -> np.ndarray:
    """The picture (C, H, W) in a file; .tiff files are depth."""
    return decode(path.read_bytes(), where=str(path), is_depth=path.suffix in (".tiff", ".tif"))


def file_name(frame_index: int, *, is_depth: bool) -> str:
    """The name that an image cell carries next to its bytes."""
    return f"frame-{frame_index:06d}.{'tiff' if is_depth else 'png'}"
