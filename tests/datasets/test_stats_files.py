"""Statistics on disk: recording, editing and recomputing agree, and what is stale is not believed."""

import json
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.edit import (
    add_feature,
    delete_episodes,
    merge_datasets,
    modify_tasks,
    recompute_stats,
    remove_feature,
    rename_features,
    split_dataset,
)
from lerobot.datasets.edit import stats as recomputing
from lerobot.datasets.stats import aggregate_stats
from lerobot.scripts.augment_dataset_quantile_stats import augment
from tests.datasets.test_dataset_golden import GOLDEN
from tests.fakes import dataset as made
from tests.fakes.death import die_at_operation

FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE, **made.DEPTH}
TOP, WRIST, DEPTH = "observation.images.top", "observation.images.wrist", "observation.images.depth"
LENGTHS = [4, 3, 5, 2]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("stats") / "made"
    made.make(root, LENGTHS, FEATURES)
    return root


@pytest.fixture
def dataset(original, tmp_path) -> LeRobotDataset:
    shutil.copytree(original, tmp_path / "made")
    return LeRobotDataset("me/made", root=tmp_path / "made")


def stored(root: Path) -> dict:
    return json.loads((root / keys.STATS_FILE).read_text())


def row_stats(dataset: LeRobotDataset) -> list[dict]:
    meta = dataset.meta
    return [meta.episodes.stats(episode) for episode in range(meta.total_episodes)]


def same(one: dict, other: dict, *, but: tuple[str, ...] = ()) -> None:
    assert set(one) - set(but) == set(other) - set(but)
    for name in set(one) - set(but):
        assert set(one[name]) == set(other[name]), name
        for stat, value in one[name].items():
            wanted = np.asarray(other[name][stat])
            assert np.asarray(value).shape == wanted.shape, (name, stat)
            np.testing.assert_allclose(value, wanted, rtol=1e-9, atol=1e-12, err_msg=f"{name} {stat}")


def test_recorded_statistics_are_those_of_the_items(original):
    made.check_stats(LeRobotDataset("me/made", root=original))


def test_recomputing_changes_nothing_in_what_was_recorded(dataset, tmp_path):
    again = recompute_stats(dataset, output_dir=tmp_path / "again")
    assert stored(again.root) == stored(dataset.root) and again.root == tmp_path / "again"
    for one, other in zip(row_stats(again), row_stats(dataset), strict=True):
        same(one, other)
    made.check(again, LENGTHS)


def test_recomputing_pictures_gives_what_was_recorded_but_for_the_codec(dataset, tmp_path):
    before = stored(dataset.root)
    again = recompute_stats(dataset, skip_image_video=False, num_workers=2)
    assert again.root == dataset.root
    same(stored(again.root), before, but=(TOP, DEPTH))
    made.check_stats(again)
    assert stored(again.root)[TOP]["mean"] != before[TOP]["mean"], "the pictures were not decoded"


@pytest.mark.parametrize("edit", ["delete", "split", "merge", "remove", "rename", "add", "tasks"])
def test_statistics_after_an_edit_are_those_of_a_recording(dataset, tmp_path, edit):
    if edit == "delete":
        edited = delete_episodes(dataset, [1], tmp_path / "out")
    elif edit == "split":
        edited = split_dataset(dataset, {"a": [2, 3], "b": [0]}, tmp_path)["a"]
    elif edit == "merge":
        other = made.make(tmp_path / "other", [3, 6], FEATURES)
        edited = merge_datasets([dataset, other], "me/merged", tmp_path / "out")
    elif edit == "remove":
        edited = remove_feature(dataset, [TOP, "action"], tmp_path / "out")
    elif edit == "rename":
        edited = rename_features(
            dataset, {WRIST: "observation.images.hand", "action": "act"}, tmp_path / "out"
        )
    elif edit == "add":
        kind = {"dtype": "float32", "shape": (1,), "names": None}
        edited = add_feature(dataset, "next.reward", np.arange(14.0), kind, tmp_path / "out")
    else:
        edited = modify_tasks(dataset, episode_tasks={1: "another"})
    made.check_stats(LeRobotDataset("me/edited", root=edited.root))
    again = recompute_stats(edited, output_dir=tmp_path / "again")
    same(stored(again.root), stored(edited.root))
    for one, other in zip(row_stats(again), row_stats(edited), strict=True):
        same(one, other)
    once_more = delete_episodes(edited, [0], tmp_path / "once more")  # sketches went along
    made.check_stats(LeRobotDataset("me/edited", root=once_more.root))


def test_recording_goes_on_with_exact_statistics(dataset):
    dataset = LeRobotDataset.resume("me/made", root=dataset.root, rgb_encoder=made.FAST)
    made.record(dataset, [4], first=4)
    dataset.finalize()
    made.check_stats(LeRobotDataset("me/made", root=dataset.root))


def test_episodes_after_the_last_saved_sketches_are_counted_again(tmp_path):
    root = tmp_path / "made"
    dataset = LeRobotDataset.create("me/made", 10, FEATURES, root=root, rgb_encoder=made.FAST)
    made.record(dataset, [4, 3, 5])  # and no finalize()
    assert json.loads((root / keys.SKETCHES_FILE).read_text())["episodes"] == 1
    shutil.copytree(root, tmp_path / "left")  # as a process that was killed leaves it
    root = tmp_path / "left"
    dataset = LeRobotDataset.resume("me/made", root=root, rgb_encoder=made.FAST)
    made.record(dataset, [2], first=3)
    dataset.finalize()
    made.check_stats(LeRobotDataset("me/made", root=root))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _swap_episodes(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["features"] = lines[0]["features"]  # as left by a recording that died, before it was done anew
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("harm", "file", "lost"),
    [
        (Path.unlink, keys.SKETCHES_FILE, "all"),
        (_cut, keys.SKETCHES_FILE, "all"),
        (
            lambda path: path.write_text('{"episodes": 9, "frames": 1, "features": {}}'),
            keys.SKETCHES_FILE,
            "all",
        ),
        (Path.unlink, keys.EPISODE_SKETCHES_FILE, "cameras"),
        (_cut, keys.EPISODE_SKETCHES_FILE, "cameras"),
        (_swap_episodes, keys.EPISODE_SKETCHES_FILE, "cameras"),
    ],
)
def test_without_sketches_statistics_are_put_together_as_elsewhere(
    dataset, tmp_path, caplog, harm, file, lost
):
    harm(dataset.root / file)
    rows = row_stats(dataset)
    with caplog.at_level(logging.WARNING):
        edited = delete_episodes(dataset, [2], tmp_path / "out")
    assert "approximate" in caplog.text and "recompute_stats" in caplog.text
    found, rule = stored(edited.root), aggregate_stats([rows[0], rows[1], rows[3]])
    expected = rule if lost == "all" else {name: rule[name] for name in (TOP, WRIST, DEPTH)}
    same({name: found[name] for name in expected}, expected)
    mended = recompute_stats(edited, skip_image_video=False)
    made.check_stats(mended)
    caplog.clear()
    again = delete_episodes(mended, [0], tmp_path / "again")
    assert "approximate" not in caplog.text
    made.check_stats(LeRobotDataset("me/again", root=again.root))


def test_a_line_that_was_cut_off_spoils_no_other(dataset):
    _cut(dataset.root / keys.EPISODE_SKETCHES_FILE)
    resumed = LeRobotDataset.resume("me/made", root=dataset.root, rgb_encoder=made.FAST)
    made.record(resumed, [2], first=4)
    lines = (dataset.root / keys.EPISODE_SKETCHES_FILE).read_text().splitlines()
    assert json.loads(lines[-1])["episode"] == 4 and len(lines) == 5


def test_a_dataset_of_another_program_goes_on_by_its_rule(tmp_path, caplog):
    root = tmp_path / "one"
    shutil.copytree(GOLDEN / "v30_tools" / "one", root)
    before = LeRobotDataset("golden/one", root=root)
    with caplog.at_level(logging.WARNING):
        recorder = LeRobotDataset.resume("golden/one", root=root)
    assert "has no sketches" in caplog.text
    item = before[0]
    frame = {
        name: item[name].numpy() if feature["dtype"] != "string" else item[name]
        for name, feature in before.features.items()
        if name not in ("timestamp", "frame_index", "episode_index", "index", "task_index")
    }
    for name, feature in before.features.items():
        if name in frame and feature["dtype"] not in ("string", "image"):
            frame[name] = frame[name].astype(feature["dtype"])
    for _ in range(3):
        recorder.add_frame(frame | {"task": item["task"]})
    recorder.save_episode()
    recorder.finalize()
    after = LeRobotDataset("golden/one", root=root)
    total = before.meta.total_episodes
    same(after.meta.stats, aggregate_stats([before.meta.stats, after.meta.episodes.stats(total)]))
    recompute_stats(after, skip_image_video=False)
    made.check_stats(LeRobotDataset("golden/one", root=root))


def test_relative_actions(dataset, tmp_path, caplog):
    other = recompute_stats(
        dataset, relative_action=True, chunk_size=2, repo_id="me/rel", output_dir=tmp_path / "r"
    )
    same(stored(other.root), stored(dataset.root), but=("action",))
    wanted = []
    for start, length in zip(np.cumsum([0, *LENGTHS]), LENGTHS, strict=False):
        items = [dataset[int(start) + k] for k in range(length)]
        for k in range(length - 1):
            wanted += [items[k + j]["action"] - items[k]["observation.state"] for j in range(2)]
    found = stored(other.root)["action"]
    np.testing.assert_allclose(found["mean"], np.stack(wanted).mean(axis=0), rtol=1e-6)
    assert found["count"] == [len(wanted)]
    all_excluded = recompute_stats(
        dataset,
        relative_action=True,
        chunk_size=2,
        relative_exclude_joints=[".pos"],
        output_dir=tmp_path / "x",
    )
    assert stored(all_excluded.root)["action"]["max"][:2] == [4.0, 0.0]
    with caplog.at_level(logging.WARNING):
        copy = delete_episodes(other, [0], tmp_path / "d")
    assert "relative actions" in caplog.text and stored(copy.root)["action"]["count"] == [10]


def test_bad_requests_to_recompute(dataset, tmp_path):
    with pytest.raises(DatasetError, match="exists already"):
        recompute_stats(dataset, output_dir=tmp_path)
    bare = made.make(tmp_path / "bare", [3], {"note": made.NUMBERS["note"]})
    with pytest.raises(DatasetError, match="needs the feature 'action'"):
        recompute_stats(bare, relative_action=True)
    recorder = LeRobotDataset.resume("me/made", root=dataset.root)
    with pytest.raises(DatasetError, match="being recorded"):
        recompute_stats(recorder)
    with pytest.raises(DatasetError, match="No episode has 50 frames"):
        recompute_stats(dataset, relative_action=True, output_dir=tmp_path / "long")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "made"]


def test_rows_with_nan_are_named(dataset, caplog, tmp_path):
    path = dataset.root / dataset.meta.get_data_file_path(1)
    table = pq.read_table(path)
    at, kind = table.column_names.index("action"), table.schema.field("action")
    values = table.column("action").to_pylist()
    values[5][2] = float("nan")
    pq.write_table(table.set_column(at, kind, pa.array(values, kind.type)), path)
    before = stored(dataset.root)
    with pytest.raises(DatasetError, match=r"episode 1.*'action'.*row 1 holds NaN"):
        recompute_stats(LeRobotDataset("me/made", root=dataset.root))
    assert stored(dataset.root) == before
    edited = delete_episodes(LeRobotDataset("me/made", root=dataset.root), [0], tmp_path / "out")
    assert "'action'" in caplog.text and "approximate" in caplog.text
    assert np.isfinite(stored(edited.root)["action"]["mean"]).all()


FORK = multiprocessing.get_context("fork")


def _recompute_and_die(root: Path, number: int) -> None:
    die_at_operation(number, (Path, "replace"), (os, "fsync"))
    recompute_stats(LeRobotDataset("me/made", root=root), skip_image_video=False)
    os._exit(0)


@pytest.mark.slow
def test_recomputing_in_place_may_die_at_any_file_operation(original, tmp_path):
    wanted = recompute_stats(
        LeRobotDataset("me/made", root=original), skip_image_video=False, output_dir=tmp_path / "wanted"
    )
    codes = []
    for number in range(0, 40, 2):
        root = tmp_path / str(number)
        shutil.copytree(original, root)
        process = FORK.Process(target=_recompute_and_die, args=(root, number))
        process.start()
        process.join()
        codes.append(process.exitcode)
        survivor = LeRobotDataset("me/made", root=root)
        made.check_stats(survivor)
        made.check_stats(delete_episodes(survivor, [0], tmp_path / f"{number} less"))
        same(stored(recompute_stats(survivor, skip_image_video=False).root), stored(wanted.root))
        if codes[-1] == 0:
            break
    assert codes[0] == 9 and codes[-1] == 0


def test_augmenting_gives_quantiles_where_there_are_none(dataset, capsys):
    plain = stored(dataset.root)
    bare = {n: {s: v for s, v in one.items() if s[0] != "q"} for n, one in plain.items()}
    (dataset.root / keys.STATS_FILE).write_text(json.dumps(bare))
    flags = ["--repo-id=me/made", f"--root={dataset.root}"]
    assert augment(flags) == dataset.root
    made.check_stats(LeRobotDataset("me/made", root=dataset.root))
    assert "statistics are new" in capsys.readouterr().out
    before = (dataset.root / keys.STATS_FILE).stat().st_mtime_ns
    augment(flags)
    assert "--overwrite" in capsys.readouterr().out
    assert (dataset.root / keys.STATS_FILE).stat().st_mtime_ns == before
    augment([*flags, "--overwrite", "--skip-images", "--no-sampling"])
    assert (dataset.root / keys.STATS_FILE).stat().st_mtime_ns > before


def test_every_frame_is_taken_on_demand(tmp_path, monkeypatch):
    dataset = made.make(tmp_path / "made", [9], {**made.IMAGE})
    monkeypatch.setattr(recomputing, "sample_indices", lambda length: [0, length - 1])
    assert recompute_stats(dataset, skip_image_video=False).meta.stats[WRIST]["count"].tolist() == [2]
    whole = recompute_stats(dataset, skip_image_video=False, all_frames=True)
    assert whole.meta.stats[WRIST]["count"].tolist() == [9]


def test_edits_of_another_program_s_datasets_give_its_statistics(tmp_path):
    folder = GOLDEN / "v30_tools"
    wanted = json.loads((folder / "expected.json").read_text())
    one, two = (LeRobotDataset(f"golden/{name}", root=folder / name) for name in ("one", "two"))
    parts = split_dataset(one, {"train": [0, 2, 3], "val": [1]}, tmp_path / "split")
    made_now = {
        "delete_episodes [1]": delete_episodes(one, [1], tmp_path / "del"),
        "merge_datasets [one, two]": merge_datasets([one, two], "golden/merged", tmp_path / "m"),
    }
    expected = {name: wanted[name]["stats"] for name in made_now}
    made_now |= parts
    expected |= {k: v["stats"] for k, v in wanted["split_dataset {train: [0, 2, 3], val: [1]}"].items()}
    for name, edited in made_now.items():
        found = stored(edited.root)
        assert set(found) == set(expected[name]), name
        for feature in set(found) - {"task_index"}:  # there, tasks are numbered in the order of a set
            for stat, value in expected[name][feature].items():
                np.testing.assert_allclose(found[feature][stat], value, rtol=1e-5, atol=1e-9, err_msg=name)
