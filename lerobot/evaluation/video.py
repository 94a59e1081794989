"""Episodes as mp4 files that every browser plays, with a line of text on each picture.

render() (H, W, 3) uint8 -> line of text -> even size -> H.264 yuv420p at the environment's rate
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lerobot.datasets.config import RGBEncoderConfig
from lerobot.datasets.encoder import VideoEncoder

QUEUE_SIZE = 64  # pictures that may wait for the encoder
LINE_HEIGHT = 1 / 18  # of the picture's height


class EpisodeVideo:
    """The video of one episode; encoded in a thread of its own while the episode runs."""

    def __init__(self, path: Path, *, fps: float) -> None:
        config = RGBEncoderConfig(vcodec="h264", crf=26, preset="veryfast", g=30)
        self.path = path
        self._encoder = VideoEncoder(path, fps=fps, config=config, queue_size=QUEUE_SIZE, threads=1)

    def add(self, picture: np.ndarray, text: str) -> None:
        """Append a picture (H, W, 3) uint8 with a line of text on it."""
        self._encoder.add(even(caption(picture, text)).transpose(2, 0, 1))  # (C, H, W)

    def finish(self) -> Path:
        """The path of the complete file."""
        return self._encoder.finish()

    def abort(self) -> None:
        """Delete the unfinished file."""
        self._encoder.abort()


def caption(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture (H, W, 3) with a line of text on a dark bar along its lower edge."""
    image = Image.fromarray(picture)
    size = max(9, round(image.height * LINE_HEIGHT * 0.66))
    bar = round(size * 1.6)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((0, image.height - bar, image.width, image.height), fill=(16, 20, 28, 190))
    place = (size // 2, image.height - bar / 2)
    draw.text(place, text, fill=(255, 255, 255), font=ImageFont.load_default(size), anchor="lm")
    return np.asarray(image)


def even(picture: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) with even sides, as yuv420p wants: an odd one repeats its last row or column."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
