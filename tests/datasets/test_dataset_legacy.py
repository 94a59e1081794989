"""Older layouts: read as they are, converted to v3.0, and never harmed."""

import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.edit import convert
from lerobot.datasets.edit.convert import convert_format
from lerobot.datasets.legacy import rebuild
from lerobot.datasets.lock import LOCK_FILE
from lerobot.datasets.schema import DEFAULT_FEATURES
from lerobot.datasets.stats import aggregate_stats
from tests.fakes import dataset as made
from tests.fakes import layouts

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets" / "v21_image"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
LENGTHS = [3, 4, 5, 2]
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}

LAYOUTS = {
    "v2.1": lambda source, out: layouts.v21(source, out),
    "v2.0": lambda source, out: layouts.v20(source, out),
    "one shard": lambda source, out: layouts.shards(source, out, data=[[0, 1, 2, 3]]),
    "shards": lambda source, out: layouts.shards(
        source, out, data=[[0, 1], [2], [3]], videos=[[0], [1, 2, 3]], has_tasks=True
    ),
    "shards of bare columns": lambda source, out: layouts.shards(
        source, out, data=[[0, 1], [2, 3]], without=tuple(DEFAULT_FEATURES)
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return made.make(tmp_path_factory.mktemp("source") / "made", LENGTHS, FEATURES)


@pytest.fixture
def old(source, tmp_path):
    """A dataset in format v2.1."""
    return layouts.v21(source, tmp_path / "old")


def contents(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found
    }


def change(path: Path, **columns) -> None:
    """Replace columns of a parquet file; None leaves one out."""
    table = pq.read_table(path)
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = (
            table.remove_column(at) if values is None else table.set_column(at, name, pa.array(list(values)))
        )
    pq.write_table(table, path)


# ---------------------------------------------------------------------------------------------------- reading
def check_golden(root: Path) -> None:
    wanted, tensors = EXPECTED["converted"]["meta"], load_file(GOLDEN / "expected.safetensors")
    dataset = LeRobotDataset("golden/old", root=root, delta_timestamps=EXPECTED["delta_timestamps"])
    compared = 0
    for who in ("written_by_0.3.3", "converted"):
        for row in EXPECTED["rows"]:
            item, start = dataset[row["index"]], f"{who}/{row['index']}/"
            assert item["task"] == row["task"]
            for key, value in ((k.removeprefix(start), v) for k, v in tensors.items() if k.startswith(start)):
                value = value.float() / 255 if value.dtype == torch.uint8 and value.ndim >= 3 else value
                assert item[key].dtype == value.dtype
                torch.testing.assert_close(item[key], value, rtol=0, atol=0)
                compared += 1
    assert compared == len(tensors) > 50
    meta = dataset.meta
    for key in ("fps", "robot_type", "total_episodes", "total_frames", "total_tasks", "camera_keys", "names"):
        assert getattr(meta, key) == wanted[key], key
    assert meta.tasks["task_index"] == wanted["tasks"] and meta.episodes["tasks"] == wanted["episode_tasks"]
    assert meta.episodes["length"] == wanted["episode_lengths"]
    for name, one in wanted["stats"].items():
        for stat, value in one.items():
            np.testing.assert_allclose(meta.stats[name][stat], value, rtol=1e-6, err_msg=f"{name} {stat}")


def test_a_recorded_v21_dataset_is_read_as_it_is():
    check_golden(GOLDEN / "dataset")


def test_a_recorded_v21_dataset_is_converted(tmp_path):
    shutil.copytree(GOLDEN / "dataset", tmp_path / "set")
    convert_format("golden/old", tmp_path / "set")
    check_golden(tmp_path / "set")
    assert contents(tmp_path / "set_old") == contents(GOLDEN / "dataset")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(source, tmp_path, name):
    folder = LAYOUTS[name](source, tmp_path / "old")
    before = contents(folder)
    dataset = LeRobotDataset("me/old", root=folder)
    layouts.check(dataset, LENGTHS)
    assert dataset.meta.tasks.names == list(made.TASKS)
    assert dataset.meta.stats["action"]["mean"] == pytest.approx(source.meta.stats["action"]["mean"])
    assert int(dataset.meta.stats["action"]["count"][0]) == sum(LENGTHS)
    window = {"action": [-0.1, 0.0, 0.1], "observation.images.top": [-0.1, 0.0]}
    part = LeRobotDataset("me/old", root=folder, episodes=[1, 3], delta_timestamps=window)
    assert [item["note"] for item in part][3:5] == ["episode 1 frame 3", "episode 3 frame 0"]
    assert part[4]["action"][:, 0].tolist() == [0, 0, 1] and part[4]["action_is_pad"].tolist() == [1, 0, 0]
    again = pickle.loads(pickle.dumps(dataset))
    assert again[5]["note"] == "episode 1 frame 2" and contents(folder) == before


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_older_layout_is_never_changed(source, tmp_path, name):
    folder = LAYOUTS[name](source, tmp_path / "old")
    before, meta = contents(folder), LeRobotDataset("me/old", root=folder).meta
    for act in (lambda: LeRobotDataset.resume("me/old", root=folder), meta.save_info, meta.save_stats):
        with pytest.raises(DatasetError, match=f"--operation.type=convert --repo_id=me/old --root={folder}"):
            act()
    assert contents(folder) == before


def test_what_v20_does_not_have_is_said(source, tmp_path):
    meta = LeRobotDataset("me/old", root=layouts.v20(source, tmp_path / "old")).meta
    with pytest.raises(DatasetError, match=r"no statistics of episode 2.*\n.*--operation.type=convert"):
        meta.episodes.stats(2)


def test_statistics_of_an_episode_are_those_of_the_file(source, old):
    one = LeRobotDataset("me/old", root=old).meta.episodes.stats(2)
    np.testing.assert_allclose(one["action"]["std"], source.meta.episodes.stats(2)["action"]["std"])


def test_statistics_that_not_every_episode_has_are_put_together(source, old):
    path = old / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[1]["stats"]["action"]
    rows[2]["stats"]["observation.state"]["max"][0] = float("nan")  # Python's JSON has it, others do not
    layouts.write_lines(path, rows)
    meta = LeRobotDataset("me/old", root=old).meta
    wanted = aggregate_stats([source.meta.episodes.stats(k) for k in (0, 2, 3)])["action"]
    for stat in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(meta.stats["action"][stat], wanted[stat], rtol=1e-6, err_msg=stat)
    assert np.isnan(meta.stats["observation.state"]["max"][0]) and "action" not in meta.episodes.stats(1)
    assert [int(one["action"]["count"][0]) for one in (meta.episodes.stats(k) for k in (0, 2, 3))] == [
        3,
        5,
        2,
    ]
    layouts.check(convert_format("me/old", old), LENGTHS)


def test_texts_of_a_layout_without_tasks_follow_the_data_files(source, tmp_path):
    """Episodes are listed in an order other than that of task numbers, and one of them has two tasks."""
    folder = layouts.shards(source, tmp_path / "old", data=[[0, 1, 2, 3]])
    change(folder / "data/train-00000-of-00001.parquet", task_index=[1] * 3 + [1] * 2 + [0] * 2 + [0] * 7)
    rows = [["close"], ["pick", "close"], ["pick"], ["pick"]]
    rows = [
        {"episode_index": k, "tasks": t, "length": n}
        for k, (t, n) in enumerate(zip(rows, LENGTHS, strict=True))
    ]
    layouts.write_lines(folder / "meta/episodes.jsonl", rows)
    dataset = LeRobotDataset("me/old", root=folder)
    assert dataset.meta.tasks.names == ["pick", "close"]
    assert [dataset[i]["task"] for i in (0, 4, 5, 13)] == ["close", "close", "pick", "pick"]


def test_lengths_that_are_not_listed_are_counted(source, tmp_path):
    folder = layouts.shards(source, tmp_path / "old", data=[[0, 1], [2, 3]])
    rows = [{"episode_index": k, "task": made.TASKS[k % 2]} for k in range(4)]
    layouts.write_lines(folder / "meta/episodes.jsonl", rows)
    layouts.check(LeRobotDataset("me/old", root=folder), LENGTHS)


# ---------------------------------------------------------------------------------------------- damaged input
def _lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


ROW = {"episode_index": 0, "tasks": ["pick the cube"], "length": 3}
DAMAGE = {
    "cut line": ("meta/episodes.jsonl", '{"episode_index": 0, "ta', "episodes.jsonl, line 1: not JSON"),
    "no object": ("meta/episodes.jsonl", "[1]\n", "episodes.jsonl, line 1: expected an object"),
    "no number": ("meta/episodes.jsonl", _lines({"length": 3}), "expected a whole number as episode_index"),
    "gap": ("meta/episodes.jsonl", _lines(ROW, {**ROW, "episode_index": 2}), "got 2 in place of 1"),
    "twice": ("meta/episodes.jsonl", _lines(ROW, ROW), "got 0 in place of 1"),
    "no length": ("meta/episodes.jsonl", _lines({**ROW, "length": "x"}), "episode 0 has length 'x'"),
    "short": ("meta/episodes.jsonl", _lines(ROW), "counts 4 episodes"),
    "no tasks": ("meta/tasks.jsonl", None, "tasks.jsonl is missing"),
    "tasks gap": ("meta/tasks.jsonl", _lines({"task_index": 1, "task": "x"}), "expected task_index 0 to 0"),
    "stats": ("meta/episodes_stats.jsonl", _lines({"episode_index": 0}), "expected episode_index and stats"),
    "version": ("meta/info.json", '{"codebase_version": "v1.6"}', "older than v2.0"),
    "no info": ("meta/info.json", None, "no meta/info.json"),
    "data": ("data/chunk-000/episode_000002.parquet", None, "episode_000002.parquet"),
    "cut data": ("data/chunk-000/episode_000002.parquet", "PAR1", "episode_000002.parquet is damaged"),
    "video": ("videos/chunk-000/observation.images.top/episode_000001.mp4", None, "episode_000001.mp4"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_said_with_file_and_remedy(old, name):
    file, text, words = DAMAGE[name]
    (old / file).unlink()
    if text is not None:
        (old / file).write_text(text)
    with pytest.raises(DatasetError, match=words):
        layouts.check(LeRobotDataset("me/old", root=old), LENGTHS)


def test_damaged_shards_are_said(source, tmp_path):
    folder = layouts.shards(source, tmp_path / "a", data=[[0, 1], [2, 3]])
    (folder / "data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(DatasetError, match="14 frames in all, and .*data holds 7 rows. Is a shard missing"):
        LeRobotDataset("me/old", root=folder)
    folder = layouts.shards(source, tmp_path / "b", data=[[1, 0], [2, 3]])
    with pytest.raises(DatasetError, match=r"00000-of-00002.parquet, row 0: episode_index is 1, expected 0"):
        LeRobotDataset("me/old", root=folder)
    folder = layouts.shards(source, tmp_path / "c", data=[[0, 1, 2, 3]], videos=[[0, 1], [2]])
    with pytest.raises(DatasetError, match="its files hold 12 frames, the episodes have 14"):
        LeRobotDataset("me/old", root=folder)
    folder = layouts.shards(source, tmp_path / "d", data=[[0, 1, 2, 3]])
    shutil.copy(folder / "data/train-00000-of-00001.parquet", folder / "data/other.parquet")
    with pytest.raises(DatasetError, match="expected one series of shards such as train-00000-of-00002"):
        LeRobotDataset("me/old", root=folder)


# ------------------------------------------------------------------------------------------------- converting
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_converted(source, tmp_path, name):
    folder = LAYOUTS[name](source, tmp_path / "old")
    before = contents(folder)
    dataset = convert_format("me/old", folder)
    layouts.check(dataset, LENGTHS)
    assert contents(tmp_path / "old_old") == before and sorted(p.name for p in tmp_path.iterdir()) == [
        "old",
        "old_old",
    ]
    assert dataset.meta.old_layout is None and dataset.meta.info["codebase_version"] == "v3.0"
    theirs, ours = (one.meta.video_file("observation.images.top", 0, 0) for one in (source, dataset))
    assert layouts.packets(dataset.root / ours) == layouts.packets(source.root / theirs)
    for stat in ("min", "max", "mean", "std", "count"):
        a, b = (one.meta.stats for one in (dataset, source))
        np.testing.assert_allclose(a["action"][stat], b["action"][stat], rtol=1e-6)
        np.testing.assert_allclose(a["index"][stat], b["index"][stat], rtol=1e-6)
    one, two = (d.meta.episodes.stats(2)["observation.images.wrist"] for d in (dataset, source))
    np.testing.assert_allclose(one["mean"], two["mean"], rtol=1e-6)
    more = LeRobotDataset.resume("me/old", root=folder, rgb_encoder=made.FAST)
    made.record(more, [2], first=4)
    more.finalize()
    layouts.check(LeRobotDataset("me/old", root=folder), [*LENGTHS, 2])


def test_size_limits_make_several_files(source, old):
    dataset = convert_format("me/old", old, data_file_size_in_mb=1e-3, video_file_size_in_mb=1e-3)
    layouts.check(dataset, LENGTHS)
    assert [path.name for path in sorted((old / "data").rglob("*.parquet"))][-1] == "file-003.parquet"
    assert dataset.meta.episodes["videos/observation.images.top/from_timestamp"] == [0.0] * 4
    assert dataset.meta.info["data_files_size_in_mb"] == 1e-3


def test_what_is_beside_the_format_comes_along(old):
    info = json.loads((old / "meta/info.json").read_text()) | {"lab": "second floor"}
    layouts.write_json(old / "meta/info.json", info)
    (old / "README.md").write_text("a card")
    (old / "images/top").mkdir(parents=True)
    rows = [
        {"episode_index": k, "tasks": [made.TASKS[k % 2]], "length": n, "place": f"table {k}"}
        for k, n in enumerate(LENGTHS)
    ]
    layouts.write_lines(old / "meta/episodes.jsonl", rows)
    dataset = convert_format("me/old", old)
    assert dataset.meta.info["lab"] == "second floor" and "total_videos" not in dataset.meta.info
    assert dataset.meta.episodes["place"] == [f"table {k}" for k in range(4)]
    assert (old / "README.md").read_text() == "a card" and not (old / "images").exists()


def test_an_older_backup_is_kept(old, tmp_path):
    (tmp_path / "old_old").mkdir()
    (tmp_path / "old_old/precious").write_text("x")
    convert_format("me/old", old)
    assert (tmp_path / "old_old/precious").read_text() == "x"
    assert (tmp_path / "old_old_1/meta/episodes.jsonl").is_file()


def test_a_new_folder_leaves_the_original_alone(old, tmp_path):
    before = contents(old)
    dataset = convert_format("me/old", old, output_dir=tmp_path / "new")
    layouts.check(dataset, LENGTHS)
    assert dataset.root == tmp_path / "new" and contents(old) == before
    with pytest.raises(DatasetError, match=r"new exists already"):
        convert_format("me/old", old, output_dir=tmp_path / "new")


def test_index_columns_that_lie_are_put_right(old, caplog):
    path = old / "data/chunk-000/episode_000001.parquet"
    change(path, index=range(100, 104), episode_index=[9] * 4)
    layouts.check(convert_format("me/old", old), LENGTHS)
    assert "4 rows had another episode_index, frame_index or index" in caplog.text


def test_an_episode_across_two_shards_is_converted(source, tmp_path):
    folder = layouts.shards(source, tmp_path / "old", data=[[0, 1, 2, 3]])
    whole = pq.read_table(folder / "data/train-00000-of-00001.parquet")
    (folder / "data/train-00000-of-00001.parquet").unlink()
    for k, (start, count) in enumerate([(0, 5), (5, 9)]):
        pq.write_table(whole.slice(start, count), folder / f"data/train-0000{k}-of-00002.parquet")
    with pytest.raises(DatasetError, match=r"episode 1 begins in one shard(.|\n)*--operation.type=convert"):
        LeRobotDataset("me/old", root=folder)
    layouts.check(convert_format("me/old", folder), LENGTHS)


FAULTS = {
    "rows": ("data/chunk-000/episode_000001.parquet", "has 2 rows; the length of episode 1 is 4"),
    "column": ("data/chunk-000/episode_000001.parquet", "lacks the columns action"),
    "frames": ("videos/chunk-000/observation.images.top/episode_000001.mp4", "has 2 of the 4 frames"),
    "no video": ("videos/chunk-000/observation.images.top/episode_000001.mp4", "episode_000001.mp4"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_dataset_is_not_converted(source, old, tmp_path, name):
    file, words = FAULTS[name]
    if name == "rows":
        pq.write_table(pq.read_table(old / file).slice(0, 2), old / file)
    elif name == "column":
        change(old / file, action=None)
    elif name == "frames":
        layouts.write_video(source, "observation.images.top", [(1, 0, 2)], old / file)
    else:
        (old / file).unlink()
    before = contents(old)
    with pytest.raises(DatasetError, match=words):
        convert_format("me/old", old)
    assert contents(old) == before and [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_result_that_differs_is_thrown_away(old, tmp_path, monkeypatch):
    careful = convert.rebuild

    def careless(source, out, **limits):
        careful(source, out, **limits)
        change(out / "data/chunk-000/file-000.parquet", **{"observation.count": range(1, 15)})

    monkeypatch.setattr(convert, "rebuild", careless)
    before = contents(old)
    with pytest.raises(DatasetError, match="rows of episode 0 differ after writing; nothing was changed"):
        convert_format("me/old", old)
    assert contents(old) == before and [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_leaves_the_original(old, tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rebuild, "join_videos", full)
    before = contents(old)
    with pytest.raises(DatasetError, match=r"old failed \(.*No space left on device\); nothing was changed"):
        convert_format("me/old", old)
    assert contents(old) == before and [path.name for path in tmp_path.iterdir()] == ["old"]


def test_there_is_nothing_to_convert(source, tmp_path):
    with pytest.raises(DatasetError, match=r"is in format v3.0 already; there is nothing to convert"):
        convert_format("me/made", source.root, output_dir=tmp_path / "new")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_conversion_killed_at_any_instant_leaves_the_original_or_the_result(source, tmp_path):
    original = layouts.v21(source, tmp_path / "template")
    folder, before = tmp_path / "old", contents(tmp_path / "template")
    shutil.copytree(original, folder)
    start = time.perf_counter()
    convert_format("me/old", folder)
    whole_s, seen = time.perf_counter() - start, set()
    for k in range(30):
        for left in tmp_path.iterdir():
            if left.name != "template":
                shutil.rmtree(left)
        shutil.copytree(original, folder)
        child = os.fork()
        if child == 0:
            try:
                convert_format("me/old", folder)
            finally:
                os._exit(0)
        time.sleep(random.uniform(0, 1.5 * whole_s) if k < 29 else 10 * whole_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        dataset = LeRobotDataset("me/old", root=folder)
        layouts.check(dataset, LENGTHS)
        seen.add(dataset.meta.old_layout)
        (folder / LOCK_FILE).unlink(missing_ok=True)  # its process is gone, and the right to write with it
        if dataset.meta.old_layout is not None:
            assert contents(folder) == before
            dataset = convert_format("me/old", folder)
        layouts.check(dataset, LENGTHS)
        kept = [p for p in tmp_path.iterdir() if p.name != "template" and p != folder]
        for one in kept:
            (one / LOCK_FILE).unlink(missing_ok=True)
        assert [contents(p) for p in kept if (p / "meta/episodes.jsonl").is_file()] == [before]
    assert seen == {None, "v2.1"}
