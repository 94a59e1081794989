"""Frames of videos in other pixel formats, each converted by the thread that asks.

PyAV would start a thread per core for every converter. They gain little for one picture, and a process that
was forked hangs when it frees a converter of its parent, whose threads it does not have.
"""

import av
from av.video.reformatter import VideoReformatter

# Older PyAV converts in one thread and takes no word about it.
ONE_THREAD = {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}


class FrameConverter:
    """Converts frames. Keep it: setting one up costs more than fifty conversions. Not for two threads."""

    def __init__(self) -> None:
        self._convert = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, format: str) -> av.VideoFrame:
        """The frame in a pixel format such as "rgb24"; its size stays."""
        return self._convert.reformat(frame, format=format, **ONE_THREAD)
