"""What a recording meets: other processes, a full disk, encoders that are too slow or do not work."""

import contextlib
import errno
import logging
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lerobot.core.errors import DatasetError, FrameError
from lerobot.datasets import LeRobotDataset, codec
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig
from lerobot.datasets.encoder import VideoEncoder, count_frames, encode_frames
from tests.fakes import dataset as made

TOP, WRIST = "observation.images.top", "observation.images.wrist"
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}
FORK = multiprocessing.get_context("fork")


def create(root: Path, features: dict = FEATURES, **options) -> LeRobotDataset:
    return LeRobotDataset.create("me/made", 10, features, root=root, **{"rgb_encoder": made.FAST, **options})


def resume(root: Path) -> LeRobotDataset:
    return LeRobotDataset.resume("me/made", root=root, rgb_encoder=made.FAST)


@contextlib.contextmanager
def other_process(work, *args):
    """A process that does `work(*args, say)` and is killed at the end; yields (process, its first word)."""
    read, write = os.pipe()
    process = FORK.Process(target=work, args=(*args, write))
    process.start()
    os.close(write)
    try:
        yield process, os.read(read, 1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        os.close(read)


# ------------------------------------------------------------------------------------------- two processes
def record_and_hold(root: Path, say: int) -> None:
    dataset = create(root)
    made.record(dataset, [2])
    os.write(say, b"S")
    time.sleep(60)


def record_for_ever(root: Path, say: int) -> None:
    for round_ in range(10_000):
        dataset = resume(root) if root.exists() else create(root, data_files_size_in_mb=0.02)
        made.record(dataset, [1, 2, 1], first=dataset.num_episodes)
        dataset.finalize()
        if not round_:
            os.write(say, b"S")


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    root = tmp_path / "a"
    with other_process(record_and_hold, root) as (process, _):
        words = rf"is being written by process {process.pid} \(.*\) on .* since 20\d\d-.*Reading is possible"
        with pytest.raises(DatasetError, match=words):
            resume(root)
        made.check(LeRobotDataset("me/made", root=root), [2])
    dataset = resume(root)  # the lock went with the process
    made.record(dataset, [2], first=1)
    dataset.finalize()
    made.check(LeRobotDataset("me/made", root=root), [2, 2])


def test_a_second_writer_in_the_same_process_is_refused(tmp_path):
    dataset = create(tmp_path / "a")
    made.record(dataset, [2])
    with pytest.raises(DatasetError, match=f"written by process {os.getpid()}"):
        resume(tmp_path / "a")
    dataset.finalize()
    assert not list((tmp_path / "a").rglob("*.lock"))
    other = resume(tmp_path / "a")
    made.record(other, [2], first=1)
    with pytest.raises(DatasetError, match=f"written by process {os.getpid()}"):
        dataset.add_frame(made.frame(FEATURES, 1, 0))
    other.finalize()
    with pytest.raises(DatasetError, match=r"changed by somebody else since finalize\(\).*resume"):
        dataset.add_frame(made.frame(FEATURES, 1, 0))
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [2, 2])


def test_a_forgotten_dataset_frees_its_lock(tmp_path):
    dataset = create(tmp_path / "a")
    made.record(dataset, [2])
    del dataset
    dataset = resume(tmp_path / "a")
    made.record(dataset, [1], first=1)
    dataset.finalize()
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [2, 1])


def test_a_forked_process_is_not_the_writer(tmp_path):
    dataset = create(tmp_path / "a")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            dataset.add_frame(made.frame(FEATURES, 0, 0))
        except DatasetError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"of which this one is a copy" in os.read(read, 1000)
    made.record(dataset, [2])


def test_of_two_that_create_a_dataset_one_is_refused(tmp_path):
    held: list[LeRobotDataset] = []
    refused: list[str] = []
    barrier = threading.Barrier(4)

    def make() -> None:
        barrier.wait()
        try:
            held.append(create(tmp_path / "a"))
        except DatasetError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 3
    made.record(held[0], [2])


def test_reading_while_another_process_records(tmp_path):
    """Episodes are added, files joined and deleted all the time; a reader sees whole episodes only."""
    root, seen, num_read = tmp_path / "a", set(), 0
    with other_process(record_for_ever, root):
        stop = time.monotonic() + 4
        while time.monotonic() < stop:
            dataset = LeRobotDataset("me/made", root=root)
            seen.add(dataset.num_episodes)
            for index in (0, len(dataset) - 1, len(dataset) // 2):
                try:
                    item = dataset[index]
                except (
                    DatasetError,
                    OSError,
                ):  # its file was joined with others since the dataset was opened
                    assert dataset.meta.has_changed()
                    continue
                num_read += 1
                episode, k = int(item["episode_index"]), int(item["frame_index"])
                made.check_item(item, made.frame(FEATURES, episode, k), index, f"{episode} {k}")
    assert len(seen) > 3 and num_read > 10


def test_a_reader_of_before_finalize_never_gets_other_frames(tmp_path):
    features = {**made.NUMBERS, **made.VIDEO}
    dataset = create(tmp_path / "a", features, video_files_size_in_mb=0.004)
    made.record(dataset, [3] * 6)
    reader = LeRobotDataset("me/made", root=tmp_path / "a")
    dataset.finalize()
    kept = len(list((tmp_path / "a/videos").rglob("*.mp4")))
    assert 1 < kept < 6
    num_missing = 0
    for index in range(18):
        try:
            item = reader[index]
        except DatasetError as error:
            assert "is missing" in str(error)
            num_missing += 1
        else:
            made.check_item(item, made.frame(features, index // 3, index % 3), index, str(index))
    assert num_missing == 3 * (6 - kept)
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [3] * 6)


# ------------------------------------------------------------------------------------------- no room left
def noisy(features: dict, episode: int, k: int) -> dict:
    """A frame whose pictures cannot be made small."""
    frame = made.frame(features, episode, k)
    rng = np.random.default_rng(100 * episode + k)
    return frame | {
        name: rng.integers(0, 256, (made.HEIGHT, made.WIDTH, 3), dtype=np.uint8) for name in (TOP, WRIST)
    }


def fill(dataset: LeRobotDataset, *, length: int) -> tuple[int, str]:
    """Record until it fails; how many episodes were saved, and the error's words."""
    for saved in range(200):
        try:
            for k in range(length):
                dataset.add_frame(noisy(FEATURES, dataset.num_episodes, k))
            dataset.save_episode()
        except DatasetError as error:
            return saved, str(error)
    pytest.fail("the disk was never full")


def numbers_are_right(root: Path, *, length: int) -> int:
    dataset = LeRobotDataset("me/made", root=root)
    for index in range(0, len(dataset), 3):
        given = made.frame(FEATURES, index // length, index % length)
        made.check_item(dataset[index], {k: v for k, v in given.items() if "images" not in k}, index, "")
    return dataset.num_episodes


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; the test with a limited file size runs everywhere")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("length", [4, 60])
def test_a_full_disk_loses_no_saved_episode(small_disk, length):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_200_000))
    dataset = create(small_disk / "a")
    saved, words = fill(dataset, length=length)
    assert "no room left on its disk" in words and "Episodes that were saved are safe" in words
    assert str(small_disk / "a") in words and "make room" in words
    assert numbers_are_right(small_disk / "a", length=length) == saved
    ballast.unlink()
    with contextlib.suppress(DatasetError):
        dataset.save_episode()
        saved += 1
    dataset.clear_episode()
    for k in range(length):
        dataset.add_frame(made.frame(FEATURES, saved, k))
    dataset.save_episode()
    dataset.finalize()
    assert numbers_are_right(small_disk / "a", length=length) == saved + 1
    assert not list((small_disk / "a").rglob("*.part"))


def record_into_limit(root: Path, say: int) -> None:
    dataset = create(root)
    made.record(dataset, [4, 4])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    _, words = fill(dataset, length=12)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    is_told = "no room left" in words and "Episodes that were saved are safe" in words
    dataset.clear_episode()
    made.record(dataset, [3], first=2)
    dataset.finalize()
    os.write(say, b"S" if is_told else b"F")
    os._exit(0)


def test_files_that_may_not_grow_lose_no_saved_episode(tmp_path):
    """The same on every machine: the operating system refuses to write past a size."""
    with other_process(record_into_limit, tmp_path / "a") as (_, word):
        assert word == b"S"
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [4, 4, 3])


def test_an_episode_is_saved_though_its_counters_are_not(tmp_path, monkeypatch, caplog):
    dataset = create(tmp_path / "a")
    made.record(dataset, [2])

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("lerobot.core.files.write_jsons", full)
        made.record(dataset, [3], first=1)
        assert "The episode is saved. Its counters are not yet" in caplog.text
        made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [2, 3])
        for k in range(2):
            dataset.add_frame(made.frame(FEATURES, 2, k))
        with pytest.raises(DatasetError, match=r"info.json could not be written: there is no room"):
            dataset.save_episode()  # two uncounted episodes would confuse readers
    dataset.save_episode()
    dataset.finalize()
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [2, 3, 2])
    assert dataset.meta.stats["action"]["count"].tolist() == [7]


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
    timer = threading.Timer(0.3, lambda: slow.may_go.release(100))
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


def test_slow_picture_threads_make_add_frame_wait(tmp_path, monkeypatch, caplog):
    from lerobot.datasets import images, take

    real = images.encode
    monkeypatch.setattr(take, "MAX_PICTURES", 2)
    monkeypatch.setattr(images, "encode", lambda picture: time.sleep(0.02) or real(picture))
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
    import pyarrow.parquet as pq

    path = tmp_path / "a/meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select([name for name in table.column_names if "capture/" not in name]), path)
    meta = LeRobotDataset("me/made", root=tmp_path / "a").meta
    assert meta.capture_times(0) == {} and meta.repeated_frames(0) == {}
    with pytest.raises(DatasetError, match="Episode 0 of .* has no capture times"):
        meta.cadence(0)


# ------------------------------------------------------------------------------------------- the end
def test_leaving_the_with_block_finalizes(tmp_path):
    with create(tmp_path / "a") as dataset:
        made.record(dataset, [2, 3])
    made.check(dataset, [2, 3])
    with pytest.raises(KeyboardInterrupt), resume(tmp_path / "a") as dataset:
        made.record(dataset, [1], first=2)
        dataset.add_frame(made.frame(FEATURES, 3, 0))
        raise KeyboardInterrupt
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [2, 3, 1])
    assert not list((tmp_path / "a").rglob("*.part")) and not list((tmp_path / "a").rglob("*.lock"))


def test_an_interrupted_save_can_be_repeated(tmp_path, monkeypatch):
    dataset = create(tmp_path / "a")
    made.record(dataset, [2])
    for k in range(3):
        dataset.add_frame(made.frame(FEATURES, 1, k))

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lerobot.datasets.tables.write_episode_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dataset.save_episode()
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [2])
    assert len(list((tmp_path / "a/data").rglob("file-*.parquet"))) == 1
    dataset.save_episode()
    dataset.finalize()
    made.check(dataset, [2, 3])
