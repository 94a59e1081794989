"""Encoders leave every thread an ordinary one, as root too."""

import os
import sys

import numpy as np
import pytest

from lerobot.datasets.config import RGBEncoderConfig
from lerobot.datasets.encoder import VideoEncoder, encode_frames
from lerobot.datasets.priority import TASKS, real_time_threads

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scheduling classes of Linux")
AV1 = RGBEncoderConfig(vcodec="libsvtav1")


def test_while_frames_are_encoded_and_afterwards(tmp_path):
    threads = []

    def frames():
        for shade in range(3):
            yield np.full((3, 64, 64), shade, np.uint8)
            threads.append(len(list(TASKS.iterdir())))
            assert not real_time_threads()

    encode_frames(frames(), tmp_path / "here.mp4", fps=10, config=AV1)
    assert max(threads) > 10  # the encoder did start its own
    assert not real_time_threads()


def test_while_cameras_record_in_threads_of_their_own(tmp_path):
    encoders = [VideoEncoder(tmp_path / f"{i}.mp4", fps=10, config=AV1, queue_size=4) for i in range(2)]
    for encoder in encoders:
        for shade in range(4):
            encoder.add(np.full((3, 64, 64), shade, np.uint8))
    for encoder in encoders:
        encoder.finish()
        assert not real_time_threads()


def test_what_was_real_time_before_stays_so(tmp_path):
    me = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pytest.skip("only the administrator may make a thread real-time")
    try:
        encode_frames([np.zeros((3, 64, 64), np.uint8)], tmp_path / "a.mp4", fps=10, config=AV1)
        assert os.getpid() in real_time_threads()
    finally:
        os.sched_setscheduler(0, *me)
    assert not real_time_threads()
