"""A recording that dies at a file operation: at every single one of them, one after the other."""

import multiprocessing
import os
from pathlib import Path

import pytest

from lerobot.datasets import LeRobotDataset
from tests.fakes import dataset as made
from tests.fakes.death import die_at_operation

LENGTHS = [4, 3, 5]
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}
FORK = multiprocessing.get_context("fork")


def _record(root: Path, lengths: list[int], said: int, die_at: int | None = None) -> None:
    """Record in a process of its own; `said` gets one byte per saved episode, "F" when finalized."""
    if die_at is not None:
        die_at_operation(die_at, (Path, "replace"), (Path, "unlink"), (os, "fsync"))
    dataset = LeRobotDataset.create("me/made", 10, FEATURES, root=root, rgb_encoder=made.FAST)
    for episode, length in enumerate(lengths):
        for k in range(length):
            dataset.add_frame(made.frame(FEATURES, episode, k))
        dataset.save_episode()
        os.write(said, b"S")
    dataset.finalize()
    os.write(said, b"F")
    os._exit(0)


def _run(root: Path, *, die_at: int) -> tuple[int, bool]:
    """(episodes that were reported saved, whether finalize returned)."""
    read, write = os.pipe()
    process = FORK.Process(target=_record, args=(root, LENGTHS, write, die_at))
    process.start()
    os.close(write)
    process.join()
    said = os.read(read, 100)
    os.close(read)
    return said.count(b"S"), b"F" in said


def _check_survivor(root: Path, saved: int) -> None:
    """Whole episodes only, at least those reported; recording can go on."""
    if not saved and not (root / "meta/episodes").exists():
        return
    dataset = LeRobotDataset("me/made", root=root)
    there = dataset.num_episodes
    assert saved <= there <= saved + 1
    made.check(dataset, LENGTHS[:there])
    dataset = LeRobotDataset.resume("me/made", root=root, rgb_encoder=made.FAST)
    made.record(dataset, [2], first=there)
    dataset.finalize()
    dataset = LeRobotDataset("me/made", root=root)
    made.check(dataset, [*LENGTHS[:there], 2])
    made.check_stats(dataset)
    assert not list(root.rglob("*.part"))
    used = {root / dataset.meta.get_data_file_path(e) for e in range(there + 1)}
    assert set((root / "data").rglob("*.parquet")) == used


@pytest.mark.slow
@pytest.mark.parametrize("start", range(10))
def test_every_saved_episode_survives_death_at_any_file_operation(tmp_path, start):
    for number in range(start, 1000, 10):
        root = tmp_path / str(number)
        saved, is_done = _run(root, die_at=number)
        if is_done:
            made.check(LeRobotDataset("me/made", root=root), LENGTHS)
            assert number > 60, "the recording was expected to need more file operations"
            return
        _check_survivor(root, saved)
    pytest.fail("the recording never came to its end")


@pytest.mark.parametrize("number", [12, 30, 47])
def test_saved_episodes_survive_death(tmp_path, number):
    saved, is_done = _run(tmp_path / "made", die_at=number)
    assert not is_done
    _check_survivor(tmp_path / "made", saved)
