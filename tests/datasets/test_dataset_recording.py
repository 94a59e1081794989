"""What a recording meets: other processes, a full disk, encoders that are too slow or do not work."""

import contextlib
import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
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
    with pytest.raises(DatasetError, match=rf"process {os.getpid()} .*this process: call finalize\(\)"):
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


def test_a_dataset_without_episodes_opens_and_goes_on(tmp_path):
    """What is there when a recording dies before its first episode is saved."""
    create(tmp_path / "a")
    dataset = LeRobotDataset("me/made", root=tmp_path / "a")
    assert (len(dataset), dataset.num_episodes) == (0, 0)
    dataset = resume(tmp_path / "a")
    made.record(dataset, [2])
    dataset.finalize()
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [2])


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


def test_file_numbers_of_before_a_joining_are_not_given_to_new_episodes(tmp_path):
    features = {**made.NUMBERS, **made.VIDEO}
    dataset = create(tmp_path / "a", features)
    made.record(dataset, [2, 2, 2])
    reader = LeRobotDataset("me/made", root=tmp_path / "a")  # three files
    dataset.finalize()  # one file
    dataset = resume(tmp_path / "a")
    made.record(dataset, [2], first=3)
    dataset.finalize()
    numbers = LeRobotDataset("me/made", root=tmp_path / "a").meta.episodes["data/file_index"]
    assert list(numbers) == [0, 0, 0, 3]
    for index in (2, 4):
        with pytest.raises(DatasetError, match="is missing"):
            reader[index]
