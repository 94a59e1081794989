"""Edits in place that die: at every single step that changes names, and at random instants by SIGKILL."""

import ctypes
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.edit import modify_tasks, target
from lerobot.datasets.edit.delete import plan_delete
from lerobot.datasets.edit.target import Target, exchange, in_place, recover, staged
from tests.fakes import dataset as made
from tests.fakes.death import die_at_operation

FORK = multiprocessing.get_context("fork")
LENGTHS = [4, 3, 5]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return made.make(tmp_path_factory.mktemp("kill") / "made", LENGTHS).root


def _delete(root: Path, die_at: int | None, has_exchange: bool) -> None:
    """Delete episode 1 in place, in a process of its own."""
    if not has_exchange:
        target.exchange = lambda one, other: False
    if die_at is not None:
        steps = ((Path, "rename"), (Path, "unlink"), (target, "exchange"), (shutil, "rmtree"))
        die_at_operation(die_at, *steps)
    dataset = LeRobotDataset("me/made", root=root)
    plan_delete(dataset.meta, [1], target=in_place(dataset.meta)).run()
    os._exit(0)


def run(root: Path, *, die_at=None, kill_after_s=None, has_exchange=True) -> int:
    process = FORK.Process(target=_delete, args=(root, die_at, has_exchange))
    process.start()
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def lengths_at(root: Path) -> list[int]:
    dataset = LeRobotDataset("me/made", root=root)
    assert dataset[len(dataset) - 1]["observation.images.top"].shape == (3, made.HEIGHT, made.WIDTH)
    return list(dataset.meta.episodes["length"])


def assert_nothing_is_lost(root: Path) -> bool:
    """The original is under its name, or the result is and the original beside it; whether it is."""
    lengths = lengths_at(root)
    assert lengths in (LENGTHS, [4, 5])
    if lengths == [4, 5]:
        beside = [path for path in root.parent.iterdir() if path != root]
        assert [lengths_at(path) for path in beside if (path / "meta/info.json").is_file()] == [LENGTHS]
    return lengths == [4, 5]


def assert_next_edit_cleans_up(root: Path) -> None:
    recover(root)
    names = sorted(path.name for path in root.parent.iterdir())
    assert names in (["made"], ["made", "made_old"])
    if names == ["made", "made_old"]:
        made.check(LeRobotDataset("me/made", root=root.with_name("made_old")), LENGTHS)
    assert not (root / target.MARK).exists()


@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_death_before_every_step(original, tmp_path, has_exchange):
    replaced, step, code = 0, 0, 9
    while code == 9:
        root = tmp_path / str(step) / "made"
        shutil.copytree(original, root)
        code = run(root, die_at=step, has_exchange=has_exchange)
        if has_exchange:
            replaced += assert_nothing_is_lost(root)
        elif not root.exists():  # between two renames where the system cannot exchange names
            assert lengths_at(root.with_name("made_old")) == LENGTHS
        assert_next_edit_cleans_up(root)
        assert lengths_at(root) in (LENGTHS, [4, 5])
        step += 1
    assert code == 0 and step > 3
    assert not has_exchange or replaced >= 2


def _kill_at_random(original: Path, folder: Path, times: int) -> None:
    started = time.perf_counter()
    shutil.copytree(original, folder / "timed" / "made")
    assert run(folder / "timed" / "made") == 0
    lasts_s, outcomes = time.perf_counter() - started, set()
    for number in range(times):
        root = folder / str(number) / "made"
        shutil.copytree(original, root)
        run(root, kill_after_s=random.uniform(0, 1.1 * lasts_s))
        outcomes.add(assert_nothing_is_lost(root))
        assert_next_edit_cleans_up(root)
        shutil.rmtree(root.parent)
    assert outcomes == {True, False} or times < 50


def test_kills_at_random_instants(original, tmp_path):
    _kill_at_random(original, tmp_path, 12)


@pytest.mark.slow
def test_two_hundred_kills_at_random_instants(original, tmp_path):
    _kill_at_random(original, tmp_path, 200)


def test_a_kill_of_an_edit_with_a_new_name_leaves_no_dataset(original, tmp_path):
    process = FORK.Process(target=_stay_in_staging, args=(tmp_path / "new",))
    process.start()
    while not list(tmp_path.glob(".new.edit-*/half")):
        time.sleep(0.01)
    recover(tmp_path / "new")
    assert list(tmp_path.glob(".new.edit-*"))  # its process is alive
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    recover(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def _stay_in_staging(root: Path) -> None:
    with staged(Target(repo_id="me/new", root=root)) as folder:
        (folder / "half").touch()
        time.sleep(60)


def test_backups_are_never_deleted(original, tmp_path):
    root = tmp_path / "made"
    shutil.copytree(original, root)
    for number, text in enumerate(("one", "two", "three")):
        modify_tasks(LeRobotDataset("me/made", root=root), new_task=text)
        assert LeRobotDataset("me/made", root=root)[0]["task"] == text
        assert (
            sorted(p.name for p in tmp_path.iterdir())
            == ["made", "made_old", "made_old_1", "made_old_2"][: number + 2]
        )
    made.check(LeRobotDataset("me/made", root=tmp_path / "made_old"), LENGTHS)
    assert LeRobotDataset("me/made", root=tmp_path / "made_old_2")[0]["task"] == "two"


def test_an_error_leaves_everything_as_it_was(original, tmp_path, monkeypatch):
    root = tmp_path / "made"
    shutil.copytree(original, root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lerobot.datasets.edit.copying.verify", full)
    with pytest.raises(DatasetError, match="No space left on device.*nothing was changed"):
        plan_delete(
            LeRobotDataset("me/made", root=root).meta,
            [0],
            target=Target(repo_id="a", root=root, replaces=True),
        ).run()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_result_that_disagrees_with_itself_replaces_nothing(original, tmp_path, monkeypatch):
    root = tmp_path / "made"
    shutil.copytree(original, root)
    from lerobot.datasets.edit import videos

    joined = videos.join_videos

    def one_less(segments, out, *, fps):
        joined([type(s)(path=s.path, start=s.start, length=s.length - 1) for s in segments], out, fps=fps)

    monkeypatch.setattr(videos, "join_videos", one_less)
    with pytest.raises(DatasetError, match="did not pass its check, so nothing was replaced.*frames"):
        plan_delete(
            LeRobotDataset("me/made", root=root).meta,
            [0],
            target=Target(repo_id="a", root=root, replaces=True),
        ).run()
    made.check(LeRobotDataset("me/made", root=root), LENGTHS)


def test_a_dataset_that_changed_meanwhile_is_not_replaced(original, tmp_path):
    root = tmp_path / "made"
    shutil.copytree(original, root)
    with pytest.raises(DatasetError, match="was changed by somebody"):
        with staged(Target(repo_id="me/made", root=root, replaces=True)):
            text = (root / "meta/info.json").read_text()
            (root / "meta/info.json").unlink()
            (root / "meta/info.json").write_text(text)
    made.check(LeRobotDataset("me/made", root=root), LENGTHS)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="this system cannot exchange names")
def test_names_are_exchanged(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "one").touch()
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange names")
    assert (tmp_path / "b" / "one").exists() and not (tmp_path / "a" / "one").exists()
