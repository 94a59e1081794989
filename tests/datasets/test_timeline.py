"""When frames are shown: the same from the sample table and from the packets, in whatever order."""

from fractions import Fraction

import av
import numpy as np
import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets.timeline import read_timeline


def write(path, *, options, codec="h264", times=range(12)):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for k in times:
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * k % 256, np.uint8), format="rgb24")
            picture.pts, picture.time_base = k, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    "options", [{"g": "4", "bf": "0"}, {"g": "12", "bf": "3"}], ids=["in order", "reordered"]
)
def test_frames_are_numbered_in_the_order_they_are_shown(tmp_path, options):
    write(tmp_path / "a.mp4", options=options)
    timeline = read_timeline(tmp_path / "a.mp4")
    assert np.allclose(timeline.seconds, np.arange(12) / 10)
    assert timeline.is_key[:: int(options["g"])].all() and timeline.is_key.sum() == 12 // int(options["g"])
    assert not len(timeline.off_beat(fps=10, tolerance_s=1e-4))


def test_a_missing_frame_puts_the_later_ones_off_beat(tmp_path):
    write(tmp_path / "a.mp4", options={"bf": "0"}, times=[0, 1, 2, 4, 5])
    assert read_timeline(tmp_path / "a.mp4").off_beat(fps=10, tolerance_s=1e-4).tolist() == [3, 4]


@pytest.mark.parametrize("content", [None, b"", b"no video"])
def test_what_is_no_video_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        read_timeline(tmp_path / "a.mp4")
