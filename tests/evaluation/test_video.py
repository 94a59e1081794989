"""What is written above the pictures of an episode can be read, on any size, and covers nothing."""

import av
import numpy as np
import pytest

from lerobot.evaluation.video import SMALLEST_LETTER, EpisodeVideo, captioned, fitting

STATUS = "episode 12   step 120   reward 12.34   success"
TASK = "pick up the alphabet soup between the plate and the ramekin and place it in the basket"
SIZES = [(96, 96), (84, 160), (36, 53), (480, 640), (1080, 1920)]


@pytest.mark.parametrize("height, width", SIZES)
def test_the_whole_picture_stands_below_its_text(height, width):
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    found = captioned(picture, [STATUS, TASK])
    times = found.shape[1] // width
    assert min(height, width) * times >= 96 * 2 and found.shape[1] == width * times
    assert np.array_equal(found[-height * times :: times, ::times], picture)
    strip = found[: -height * times]
    assert strip.max() > 200, "white letters"
    last_column = strip[: len(strip) // 2, -times:]
    assert last_column.max() < 100, "the status line ends before the edge"
    size = max(SMALLEST_LETTER, round(height * times / 27))
    said, font = fitting(STATUS, width * times - size, size)
    assert said == STATUS and font.size >= SMALLEST_LETTER - 1, "the status is never cut off"


def test_a_line_that_cannot_fit_ends_in_dots():
    said, font = fitting(TASK, 200, 20)
    assert said.endswith("…") and TASK.startswith(said[:-1]) and len(said) > 20
    assert font.getlength(said) <= 200


def test_a_video_with_a_title(tmp_path):
    video = EpisodeVideo(tmp_path / "one.mp4", fps=10, title=TASK)
    for step in range(3):
        video.add(np.full((96, 97, 3), 128, np.uint8), f"episode 0   step {step}")
    with av.open(str(video.finish())) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3 and frames[0].shape == (324, 292, 3)
    assert abs(int(frames[0][200, 100, 0]) - 128) < 8 and frames[0][:36].max() > 180
