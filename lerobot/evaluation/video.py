"""Episodes as mp4 files that every browser plays, with what happens written above each picture.

render() (H, W, 3) uint8 -> large enough to read -> lines of text above -> even size -> H.264 yuv420p
"""

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lerobot.datasets.config import RGBEncoderConfig
from lerobot.datasets.encoder import VideoEncoder

QUEUE_SIZE = 64  # pictures that may wait for the encoder
SMALLEST_SIDE = 256  # pixels; a smaller picture is enlarged, else its text could not be read
LETTERS = 27  # in the height of a picture
SMALLEST_LETTER = 11  # pixels
PAPER, INK, SOFT = (16, 20, 28), (255, 255, 255), (170, 182, 198)


class EpisodeVideo:
    """The video of one episode; encoded in a thread of its own while the episode runs.

    Args:
        title: stands above every picture, such as the task.
    """

    def __init__(self, path: Path, *, fps: float, title: str = "") -> None:
        config = RGBEncoderConfig(vcodec="h264", crf=26, preset="veryfast", g=30)
        self.path, self.title = path, title
        self._encoder = VideoEncoder(path, fps=fps, config=config, queue_size=QUEUE_SIZE, threads=1)

    def add(self, picture: np.ndarray, text: str) -> None:
        """Append a picture (H, W, 3) uint8 below a line of text."""
        lines = [text, self.title] if self.title else [text]
        self._encoder.add(even(captioned(picture, lines)).transpose(2, 0, 1))  # (C, H, W)

    def finish(self) -> Path:
        """The path of the complete file."""
        return self._encoder.finish()

    def abort(self) -> None:
        """Delete the unfinished file."""
        self._encoder.abort()


def captioned(picture: np.ndarray, lines: list[str]) -> np.ndarray:
    """The picture (H, W, 3), all of it, below a dark strip with these lines of text."""
    picture = enlarged(picture)
    height, width = picture.shape[:2]
    size = max(SMALLEST_LETTER, round(height / LETTERS))
    line_height = round(size * 1.6)
    strip = Image.new("RGB", (width, line_height * len(lines)), PAPER)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        text, font = fitting(line, width - size, size)
        place = (size // 2, line_height * (number + 0.5))
        draw.text(place, text, fill=SOFT if number else INK, font=font, anchor="lm")
    return np.concatenate([np.asarray(strip), picture])


def enlarged(picture: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3), every pixel repeated so often that no side is too short for text."""
    times = -(-SMALLEST_SIDE // min(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else picture


@functools.lru_cache(maxsize=64)
def fitting(text: str, width: int, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text in letters of that size, or in smaller ones where it is too wide; its end cut off at last."""
    for smaller in range(size, SMALLEST_LETTER - 2, -1):
        font = letters(smaller)
        if font.getlength(text) <= width:
            return text, font
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…", font


@functools.cache
def letters(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own letters, so many pixels high."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def even(picture: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) with even sides, as yuv420p wants: an odd one repeats its last row or column."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
