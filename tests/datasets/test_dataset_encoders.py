"""Encoders of a recording: too slow ones, ones that do not work here, the choice of one; times of capture."""

import logging
import os
import re
import signal
import threading
import time
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from lerobot.core.errors import DatasetError, FrameError
from lerobot.datasets import LeRobotDataset, codec, images, take
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.encoder import VideoEncoder, count_frames, encode_frames
from tests.fakes import dataset as made

TOP, WRIST = "observation.images.top", "observation.images.wrist"
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}


def create(root: Path, features: dict = FEATURES, **options) -> LeRobotDataset:
    return LeRobotDataset.create("me/made", 10, features, root=root, **{"rgb_encoder": made.FAST, **options})


# ------------------------------------------------------------------------------------------- slow encoders
class SlowEncoding:
    """Encoding that takes its time until it is told to hurry."""

    def __init__(self, monkeypatch) -> None:
        self.may_go = threading.Semaphore(0)
        self.real = encode_frames
        monkeypatch.setattr("lerobot.datasets.encoder.encode_frames", self)

    def __call__(self, frames, *args, **kwargs) -> None:
        def slowly():
            for frame in frames:
                self.may_go.acquire()
                yield frame

        self.real(slowly(), *args, **kwargs)


def test_a_slow_encoder_makes_add_frame_wait(tmp_path, monkeypatch, caplog):
    slow = SlowEncoding(monkeypatch)
    dataset = create(tmp_path / "a", encoder_queue_maxsize=2)
    timer = threading.Timer(0.6, lambda: slow.may_go.release(100))  # longer than six frames at 10 fps
    timer.start()
    for k in range(6):
        dataset.add_frame(made.frame(FEATURES, 0, k))
    dataset.save_episode()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and re.search(r"add_frame waited [1-4] times, 0\.\d s in all", warnings[0])
    assert dataset.meta.repeated_frames(0)[TOP].tolist() == []
    dataset.finalize()
    made.check(dataset, [6])


def test_a_slow_encoder_repeats_pictures_and_says_which(tmp_path, monkeypatch, caplog):
    slow = SlowEncoding(monkeypatch)
    dataset = create(tmp_path / "a", encoder_queue_maxsize=2, encoder_overflow="repeat")
    began = time.perf_counter()
    for k in range(6):  # one picture is taken by the encoder, two wait: the others find no place
        dataset.add_frame(made.frame(FEATURES, 0, k))
        while k == 0 and dataset.writer._take.encoders[TOP]._num_pictures:
            time.sleep(0.001)
    assert time.perf_counter() - began < 2
    slow.may_go.release(100)
    dataset.save_episode()
    made.record(dataset, [2], first=1)
    dataset.finalize()
    stored = LeRobotDataset("me/made", root=tmp_path / "a")
    assert stored.meta.repeated_frames(0)[TOP].tolist() == [3, 4, 5]
    assert stored.meta.repeated_frames(1)[TOP].tolist() == []
    assert stored.meta.cadence(0).repeated_frames == 3 and stored.meta.cadence(1).repeated_frames == 0
    assert "3 OF 6 PICTURES REPEAT THE ONE BEFORE" in caplog.text
    for k in range(6):  # numbers are those of the frame, pictures of the last one that was encoded
        given = made.frame(FEATURES, 0, k) | {TOP: made.picture(0, min(k, 2))}
        made.check_item(stored[k], given, k, str(k))


def test_frames_faster_than_their_rate_wait_without_a_word(tmp_path, monkeypatch, caplog):
    slow = SlowEncoding(monkeypatch)
    dataset = create(tmp_path / "a", encoder_queue_maxsize=2)
    threading.Timer(0.1, lambda: slow.may_go.release(100)).start()
    made.record(dataset, [6])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    dataset.finalize()
    made.check(dataset, [6])


def test_slow_picture_threads_make_add_frame_wait(tmp_path, monkeypatch, caplog):
    real = images.encode
    monkeypatch.setattr(take, "MAX_PICTURES", 2)
    monkeypatch.setattr(images, "encode", lambda picture: time.sleep(0.15) or real(picture))
    dataset = create(tmp_path / "a", {**made.NUMBERS, **made.IMAGE}, image_writer_threads=1)
    made.record(dataset, [8])
    dataset.finalize()
    assert re.search(r"image features were not encoded fast enough; add_frame waited \d times", caplog.text)
    made.check(dataset, [8])


def test_an_unknown_way_of_overflowing_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="encoder_overflow='drop': expected 'wait' or 'repeat'"):
        create(tmp_path / "a", encoder_overflow="drop")
    assert not (tmp_path / "a").exists()


def test_a_video_that_lacks_frames_is_not_saved(tmp_path, monkeypatch):
    dataset = create(tmp_path / "a")
    made.record(dataset, [2])
    real = encode_frames

    def loses_one(frames, *args, **kwargs) -> None:
        real(list(frames)[:-1], *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr("lerobot.datasets.encoder.encode_frames", loses_one)
        for k in range(4):
            dataset.add_frame(made.frame(FEATURES, 1, k))
        with pytest.raises(DatasetError, match="holds 3 of the 4 frames that were recorded"):
            dataset.save_episode()
    dataset.clear_episode()
    made.record(dataset, [3], first=1)
    dataset.finalize()
    made.check(dataset, [2, 3])


# -------------------------------------------------------------------------------------- choosing encoders
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vcodec": "h264", "crf": 52}, r"vcodec='h264' with crf=52: expected 0 \(best\) to 51"),
        ({"crf": -1}, r"crf=-1: expected 0 \(best\) to 63"),
        ({"pix_fmt": "yuv420"}, "pix_fmt='yuv420': this encoder takes .*Did you mean 'yuv420p'"),
        ({"vcodec": "h264", "pix_fmt": "gray"}, "1 component.*3 channels.*colours would be lost"),
        ({"vcodec": "h264", "preset": "quick"}, "preset='quick': one of ultrafast, "),
        ({"preset": "fast"}, "preset='fast': expected a whole number"),
        ({"extra_options": {"nonsense": 1}}, "it has no option 'nonsense'; take it out of extra_options"),
        ({"preset": 99}, "cannot encode 32x48: .*Are crf, preset and extra_options"),
    ],
)
def test_encoder_settings_are_tried_before_anything_is_recorded(tmp_path, settings, words):
    with pytest.raises(DatasetError, match=words):
        create(tmp_path / "a", rgb_encoder=RGBEncoderConfig(**settings))
    assert not (tmp_path / "a").exists()


def test_sizes_that_an_encoder_cannot_do_are_refused(tmp_path):
    odd = {TOP: {"dtype": "video", "shape": (33, 47, 3), "names": ["height", "width", "channels"]}}
    with pytest.raises(DatasetError, match="cannot encode 33x47: .*even height and width.*yuv444p"):
        create(tmp_path / "a", odd)
    settings = RGBEncoderConfig(vcodec="h264", preset="ultrafast", pix_fmt="yuv444p")
    dataset = create(tmp_path / "a", odd, rgb_encoder=settings)
    for k in range(3):
        dataset.add_frame({TOP: np.full((33, 47, 3), 40 * k, np.uint8), "task": "x"})
    dataset.save_episode()
    dataset.finalize()
    assert dataset[2][TOP].shape == (3, 33, 47)


@pytest.fixture
def no_memory():
    codec._choose.cache_clear()
    yield
    codec._choose.cache_clear()


def test_auto_takes_the_first_encoder_that_keeps_up(tmp_path, monkeypatch, caplog, no_memory):
    caplog.set_level(logging.INFO)
    rates = {"libsvtav1": 14.0, "h264": 200.0}
    monkeypatch.setattr(codec, "HARDWARE_CODECS", ("h264_nvenc",))  # the device is not in this machine
    monkeypatch.setattr(codec, "measured_fps", lambda config, **_: rates[config.vcodec])
    dataset = create(tmp_path / "a", rgb_encoder=RGBEncoderConfig(vcodec="auto"))
    assert dataset.writer.rgb_encoder.vcodec == "h264"
    assert dataset.writer.rgb_encoder.preset == "veryfast"
    chosen = [text for text in caplog.text.splitlines() if "vcodec=auto" in text]
    assert len(chosen) == 1
    assert "h264 preset veryfast encodes 1 camera(s) at 200 fps, 15 wanted" in chosen[0]
    assert "too slow: libsvtav1 preset 12 14 fps" in chosen[0]
    create(tmp_path / "b", rgb_encoder=RGBEncoderConfig(vcodec="auto"))
    assert caplog.text.count("vcodec=auto") == 1, "what was measured is measured once"


def test_auto_says_when_nothing_keeps_up(tmp_path, monkeypatch, caplog, no_memory):
    monkeypatch.setattr(codec, "HARDWARE_CODECS", ())
    monkeypatch.setattr(codec, "measured_fps", lambda config, **_: 3.0 if config.preset is None else 4.0)
    dataset = create(tmp_path / "a", rgb_encoder=RGBEncoderConfig(vcodec="auto"))
    assert dataset.writer.rgb_encoder.vcodec == "h264"
    assert "no encoder has headroom for 1 camera(s) at 10 fps; the fastest" in caplog.text


def test_auto_really_measures_and_records(tmp_path, caplog, no_memory):
    caplog.set_level(logging.INFO)
    dataset = create(tmp_path / "a", rgb_encoder=RGBEncoderConfig(vcodec="auto"))
    assert "vcodec=auto: " in caplog.text and "wanted" in caplog.text
    made.record(dataset, [2])
    dataset.finalize()
    assert dataset.meta.features[TOP]["info"]["video.codec"] in ("av1", "h264", "hevc")
    config = codec.choose(DepthEncoderConfig(vcodec="auto"), sizes=[(32, 48)], fps=10)
    assert config.vcodec == "hevc"


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_the_encoder_counts_what_is_in_the_file(tmp_path, length):
    encoder = VideoEncoder(tmp_path / "a.mp4", fps=10, config=RGBEncoderConfig(), queue_size=4)
    for k in range(length):
        encoder.add(made.picture(0, k).transpose(2, 0, 1))
    assert count_frames(encoder.finish()) == encoder.num_encoded == length


# ------------------------------------------------------------------------------------------- capture times
def test_capture_times_are_kept_for_rows_and_cameras(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    dataset = create(tmp_path / "a")
    began = time.time()
    dataset.add_frame(made.frame(FEATURES, 0, 0))
    dataset.add_frame(made.frame(FEATURES, 0, 1), captured_at_s={TOP: began - 0.25})
    dataset.save_episode()
    for k, at in enumerate([100.0, 100.1, 100.35, 100.45]):
        dataset.add_frame(made.frame(FEATURES, 1, k), captured_at_s=at)
    dataset.save_episode()
    assert (
        "Episode 1: 4 frames saved; 6.67 fps held of 10, worst gap 250 ms, 1 late, 0 pictures" in caplog.text
    )
    dataset.finalize()
    meta = LeRobotDataset("me/made", root=tmp_path / "a").meta
    first, second = meta.capture_times(0), meta.capture_times(1)
    assert sorted(first) == ["", TOP, WRIST]
    assert (np.abs(first[""] - began) < 5).all() and (np.diff(first[""]) > 0).all()
    assert first[TOP][1] == began - 0.25 and first[WRIST][1] == first[""][1]
    assert all(times.tolist() == [100.0, 100.1, 100.35, 100.45] for times in second.values())
    cadence = meta.cadence(1)
    assert cadence.fps == pytest.approx(3 / 0.45) and cadence.worst_gap_s == pytest.approx(0.25)
    assert cadence.late_frames == 1 and meta.cadence(0).late_frames in (0, 1)
    assert f"capture/{TOP}/times_s" not in meta.episodes.columns, "lists stay on the disk"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("now", "captured_at_s is 'now'; expected seconds"),
        (float("nan"), "captured_at_s is nan; expected seconds"),
        ({TOP: None}, r"captured_at_s\['observation.images.top'\] is None; expected seconds"),
        (
            {"observation.images.tpo": 1.0},
            "is no camera of this dataset.*Did you mean 'observation.images.top'",
        ),
    ],
)
def test_wrong_capture_times_are_refused(tmp_path, given, words):
    dataset = create(tmp_path / "a")
    with pytest.raises(FrameError, match=words):
        dataset.add_frame(made.frame(FEATURES, 0, 0), captured_at_s=given)
    assert not dataset.has_pending_frames()


def test_datasets_without_capture_times_say_so(tmp_path):
    made.make(tmp_path / "a", [2])
    path = tmp_path / "a/meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select([name for name in table.column_names if "capture/" not in name]), path)
    meta = LeRobotDataset("me/made", root=tmp_path / "a").meta
    assert meta.capture_times(0) == {} and meta.repeated_frames(0) == {}
    with pytest.raises(DatasetError, match="Episode 0 of .* has no capture times"):
        meta.cadence(0)


def test_a_resumed_recording_goes_on_with_its_encoder(tmp_path):
    made.make(tmp_path / "a", [2], made.VIDEO)  # h264
    dataset = LeRobotDataset.resume("me/made", root=tmp_path / "a")
    made.record(dataset, [3], first=1)
    dataset.finalize()
    files = {path.name: read_codec(path) for path in (tmp_path / "a").rglob("*.mp4")}
    assert set(files.values()) == {"h264"} and dataset.writer.rgb_encoder.crf == made.FAST.crf


def read_codec(path):
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


def test_a_forked_process_can_free_converters_of_its_parent(tmp_path):
    """Converters with threads of their own would wait for threads that only the parent has."""
    convert = FrameConverter()
    picture = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24")
    assert convert(picture, "yuv420p").format.name == "yuv420p"
    child = os.fork()
    if child == 0:
        del convert
        os._exit(7)
    deadline = time.monotonic() + 20
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done[0] == child and os.waitstatus_to_exitcode(done[1]) == 7
