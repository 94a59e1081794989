"""A real recording process that is killed at random instants, again and again, on one and the same dataset.

[resume or create, record, finalize, resume, ...] -> SIGKILL -> whole episodes only, all that were saved
"""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from lerobot.datasets import LeRobotDataset
from tests.fakes import dataset as made

FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}
FORK = multiprocessing.get_context("fork")
KILLS = 18  # per dataset; with 12 datasets more than 200
EPISODES = 3  # between opening and finalize


def length(episode: int) -> int:
    """Episodes of one to four frames."""
    return 1 + episode * 3 % 4


def opened(root: Path) -> LeRobotDataset:
    if root.exists():
        return LeRobotDataset.resume("me/made", root=root, rgb_encoder=made.FAST)
    return LeRobotDataset.create("me/made", 10, FEATURES, root=root, rgb_encoder=made.FAST)


def add_episode(dataset: LeRobotDataset) -> None:
    episode = dataset.num_episodes
    for k in range(length(episode)):
        dataset.add_frame(made.frame(FEATURES, episode, k))
    dataset.save_episode()


def record(root: Path, said: int, *, cycles: int) -> None:
    """Record in a process of its own: one byte per saved episode."""
    for _ in range(cycles):
        dataset = opened(root)
        for _ in range(EPISODES):
            add_episode(dataset)
            os.write(said, b"S")
        dataset.finalize()
    os._exit(0)


def killed(root: Path, after_s: float) -> int:
    """Start a recording and kill it; returns how many episodes it said it had saved."""
    read, write = os.pipe()
    process = FORK.Process(target=record, args=(root, write), kwargs={"cycles": 100})
    process.start()
    os.close(write)
    time.sleep(after_s)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the recording ended by itself"
    said = b""
    while more := os.read(read, 1000):
        said += more
    os.close(read)
    return len(said)


def check(root: Path, episodes: range) -> int:
    """Open the dataset and compare these episodes with what was recorded; returns how many it has."""
    dataset = LeRobotDataset("me/made", root=root)
    lengths = [length(episode) for episode in range(dataset.num_episodes)]
    assert list(dataset.meta.episodes["length"]) == lengths
    assert dataset.num_frames == sum(lengths)
    starts = np.cumsum([0, *lengths]).tolist()
    for episode in episodes:
        for k in range(lengths[episode] if episode < len(lengths) else 0):
            item = dataset[starts[episode] + k]
            made.check_item(item, made.frame(FEATURES, episode, k), starts[episode] + k, f"{episode}: {k}")
    return len(lengths)


@pytest.fixture(scope="module")
def cycle_s(tmp_path_factory) -> float:
    """How long it takes here to open a dataset, record, and finalize."""
    root = tmp_path_factory.mktemp("timing") / "made"
    began = time.perf_counter()
    process = FORK.Process(target=record, args=(root, os.open(os.devnull, os.O_WRONLY)), kwargs={"cycles": 2})
    process.start()
    process.join()
    return (time.perf_counter() - began) / 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_saved_episodes_survive_many_kills(tmp_path, cycle_s, seed):
    root, instants, there, num_cut = tmp_path / "made", random.Random(seed), 0, 0
    for _ in range(KILLS):
        said = killed(root, instants.uniform(0.02, 1.3 * cycle_s))
        if not root.exists():
            assert not said
            continue
        before, there = there, check(root, range(max(0, there - 2), there + said + 1))
        assert before + said <= there <= before + said + 1, (before, said, there)
        num_cut += any(root.rglob("*.part"))
    assert num_cut, "no kill hit a half-written file"
    dataset = opened(root)
    add_episode(dataset)
    dataset.finalize()
    assert check(root, range(there + 1)) == there + 1
    counts = {int(one["count"][0]) for name, one in dataset.meta.stats.items() if "images" not in name}
    assert counts == {dataset.num_frames}
    assert not any(root.rglob("*.part")) and not any(root.rglob("*.lock"))
    used = {root / dataset.meta.get_data_file_path(e) for e in range(there + 1)}
    used |= {root / dataset.meta.get_video_file_path(e, key) for e in range(there + 1) for key in made.VIDEO}
    assert {*(root / "data").rglob("*.parquet"), *(root / "videos").rglob("*.mp4")} == used
