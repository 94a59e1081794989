"""Rows, tables and other files through edits: what is known is renumbered, what is not known comes along."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.core.errors import DatasetError, FeatureMismatchError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.config import RGBEncoderConfig
from lerobot.datasets.edit import (
    add_feature,
    add_features,
    convert_image_to_video_dataset,
    convert_video_to_image_dataset,
    delete_episodes,
    merge_datasets,
    modify_features,
    modify_tasks,
    remove_feature,
    rename_features,
    split_dataset,
)
from lerobot.datasets.edit.copying import Copy
from lerobot.datasets.edit.target import Target
from tests.fakes import dataset as made

TOP, WRIST, DEPTH = (f"observation.images.{name}" for name in ("top", "wrist", "depth"))
LENGTHS = [4, 3, 5, 2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> LeRobotDataset:
    return made.make(tmp_path_factory.mktemp("tables") / "made", LENGTHS, {**made.NUMBERS, **made.VIDEO})


@pytest.fixture
def marked(tmp_path) -> LeRobotDataset:
    """A dataset with columns, keys and files that the format does not know."""
    dataset = made.make(tmp_path / "marked", LENGTHS, {**made.NUMBERS, **made.VIDEO})
    for path in dataset.root.glob("meta/episodes/*/*"):
        table = pq.read_table(path, partitioning=None)
        count = range(len(table))
        table = table.append_column(f"capture/{TOP}/jitter_ms", pa.array([[k / 10] for k in count]))
        table = table.append_column("sketch/action/bytes", pa.array([bytes([k]) for k in count]))
        table = table.append_column("sparse_subtask_names", pa.array([[f"reach {k}"] for k in count]))
        pq.write_table(table, path)
    for path in dataset.root.glob("data/*/*"):
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("capture.time", pa.array(np.arange(14.0))), path)
    dataset.meta.info |= {"recorded_by": {"name": "Ada", "station": 3}, "tools": [{"type": "function"}]}
    dataset.meta.save_info()
    (dataset.root / "notes").mkdir()
    (dataset.root / "notes" / "day1.md").write_text("windy")
    (dataset.root / "images" / "left").mkdir(parents=True)
    (dataset.root / "images" / "left" / "frame.png").touch()
    pq.write_table(
        pa.table({"subtask_index": [0, 1], "subtask": ["reach", "grasp"]}),
        dataset.root / "meta/subtasks.parquet",
    )
    progress = {
        "index": np.arange(14),
        "episode_index": np.repeat(range(4), LENGTHS),
        "frame_index": np.concatenate([np.arange(n) for n in LENGTHS]),
        "progress_sparse": np.arange(14, dtype=np.float32),
    }
    table = pa.table(progress).replace_schema_metadata({"reward_model_path": "me/reward"})
    pq.write_table(table, dataset.root / "sarm_progress.parquet")
    return LeRobotDataset("me/marked", root=dataset.root)


def test_what_is_not_known_comes_along(marked, tmp_path):
    new = delete_episodes(marked, [1], tmp_path / "new")
    episodes = pq.read_table(next(new.root.glob("meta/episodes/*/*")), partitioning=None)
    assert episodes[f"capture/{TOP}/jitter_ms"].to_pylist() == [[0.0], [0.2], [0.3]]
    assert episodes["sketch/action/bytes"].to_pylist() == [b"\0", b"\2", b"\3"]
    assert episodes["sparse_subtask_names"].to_pylist() == [["reach 0"], ["reach 2"], ["reach 3"]]
    kept = [*range(4), *range(7, 14)]
    rows = pq.read_table(next(new.root.glob("data/*/*")), partitioning=None)
    assert rows["capture.time"].to_pylist() == kept
    info = json.loads((new.root / "meta/info.json").read_text())
    assert info["recorded_by"] == {"name": "Ada", "station": 3} and info["tools"] == [{"type": "function"}]
    assert info["robot_type"] is None and info["splits"] == {"train": "0:3"}
    assert (new.root / "notes" / "day1.md").read_text() == "windy" and not (new.root / "images").exists()
    assert (new.root / "meta/subtasks.parquet").read_bytes() == (
        marked.root / "meta/subtasks.parquet"
    ).read_bytes()
    progress = pq.read_table(new.root / "sarm_progress.parquet")
    assert progress["progress_sparse"].to_pylist() == kept
    assert progress["index"].to_pylist() == [*range(11)]
    assert progress["episode_index"].to_pylist() == [0] * 4 + [1] * 5 + [2] * 2
    assert progress.schema.metadata[b"reward_model_path"] == b"me/reward"


def test_columns_of_a_feature_follow_it(marked, tmp_path):
    less = remove_feature(marked, TOP, tmp_path / "less")
    names = pq.read_schema(next(less.root.glob("meta/episodes/*/*"))).names
    assert not [name for name in names if TOP in name] and "sketch/action/bytes" in names
    renamed = rename_features(
        marked, {TOP: "observation.images.up", "action": "action.joints"}, tmp_path / "re"
    )
    names = pq.read_schema(next(renamed.root.glob("meta/episodes/*/*"))).names
    assert "capture/observation.images.up/jitter_ms" in names and "sketch/action.joints/bytes" in names
    assert not [name for name in names if TOP in name or "/action/" in name]


def test_renaming_moves_columns_stats_and_videos(dataset, tmp_path):
    new = rename_features(
        dataset, {TOP: "observation.images.up", "action": "action.joints"}, tmp_path / "new"
    )
    assert list(new.features)[:2] == ["observation.state", "action.joints"]
    assert (new.root / "videos" / "observation.images.up").is_dir() and not (
        new.root / "videos" / TOP
    ).exists()
    for i in (0, 5, 13):
        assert bool((new[i]["observation.images.up"] == dataset[i][TOP]).all())
        assert bool((new[i]["action.joints"] == dataset[i]["action"]).all())
    for name, old in (("observation.images.up", TOP), ("action.joints", "action")):
        for stat, value in dataset.meta.stats[old].items():
            assert np.array_equal(new.meta.stats[name][stat], value)
            assert np.array_equal(
                new.meta.episodes.stats(2)[name][stat], dataset.meta.episodes.stats(2)[old][stat]
            )
    described = json.loads(pq.read_schema(next(new.root.glob("data/*/*"))).metadata[b"huggingface"])
    assert "action.joints" in described["info"]["features"] and "action" not in described["info"]["features"]
    assert "action.joints" not in dataset.features


def test_two_names_can_be_swapped(dataset, tmp_path):
    new = rename_features(
        dataset, {"action": "observation.state", "observation.state": "action"}, tmp_path / "new"
    )
    assert bool((new[3]["action"] == dataset[3]["observation.state"]).all())
    assert bool((new[3]["observation.state"] == dataset[3]["action"]).all())


def test_adding_columns(dataset, tmp_path):
    reward = np.arange(14, dtype=np.float32)
    spread = np.arange(14.0 * 6).reshape(14, 2, 3)
    new = add_features(
        dataset,
        {
            "next.reward": (reward, {"dtype": "float32", "shape": (1,), "names": None}),
            "spread": (spread, {"dtype": "float64", "shape": (2, 3), "names": None}),
            "late": (lambda row, episode, frame: frame > 2, {"dtype": "bool", "shape": (1,), "names": None}),
            "words": (lambda row, episode, frame: row["note"].upper(), {"dtype": "string", "shape": (1,)}),
        },
        tmp_path / "new",
    )
    made.check(new, LENGTHS)
    assert [float(item["next.reward"]) for item in new] == reward.tolist()
    assert np.array_equal(new[5]["spread"].numpy(), spread[5])
    assert [bool(item["late"]) for item in new][:5] == [False, False, False, True, False]
    assert new[4]["words"] == "EPISODE 1 FRAME 0"
    assert new.meta.stats["next.reward"]["max"] == [13] and new.meta.stats["next.reward"]["count"] == [14]
    assert new.meta.episodes.stats(1)["next.reward"]["mean"] == [5]
    for name, one in dataset.meta.stats.items():
        assert all(np.array_equal(new.meta.stats[name][stat], value) for stat, value in one.items())
    one = add_feature(dataset, "extra", reward, {"dtype": "float32", "shape": (1,)}, tmp_path / "one")
    assert float(one[7]["extra"]) == 7


def test_modify_features_does_both_at_once(dataset, tmp_path):
    info = {"dtype": "int64", "shape": (1,), "names": None}
    new = modify_features(dataset, {"count": (np.arange(14), info)}, ["note", TOP], tmp_path / "new")
    assert "note" not in new.features and TOP not in new.features and int(new[9]["count"]) == 9
    assert list(new.features)[-6:] == [
        "count",
        "timestamp",
        "frame_index",
        "episode_index",
        "index",
        "task_index",
    ]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda d, out: add_feature(d, "x", np.zeros(13), {"dtype": "float32", "shape": (1,)}, out),
            "14 frames",
        ),
        (
            lambda d, out: add_feature(d, "x", np.zeros(14), {"dtype": "int64", "shape": (1,)}, out),
            "values are float64",
        ),
        (
            lambda d, out: add_feature(d, "action", np.zeros(14), {"dtype": "float32", "shape": (1,)}, out),
            "already",
        ),
        (
            lambda d, out: add_feature(d, "x", np.zeros(14), {"dtype": "video", "shape": (1, 1, 3)}, out),
            "cannot be added",
        ),
        (
            lambda d, out: add_feature(d, "a/b", np.zeros(14), {"dtype": "float32", "shape": (1,)}, out),
            "contains '/'",
        ),
        (lambda d, out: modify_features(d, output_dir=out), "nothing to do"),
        (lambda d, out: rename_features(d, {"acton": "a"}, out), "Did you mean 'action'"),
        (lambda d, out: rename_features(d, {"action": "note"}, out), "two features called 'note'"),
        (lambda d, out: rename_features(d, {"action": "a/b"}, out), "contains '/'"),
        (lambda d, out: rename_features(d, {"index": "i"}, out), "needed in every dataset"),
        (lambda d, out: rename_features(d, {}, out), "No feature to rename"),
        (lambda d, out: modify_tasks(d), "No task was given"),
        (
            lambda d, out: modify_tasks(d, task_replacements={"pick teh cube": "x"}),
            "Did you mean 'pick the cube'",
        ),
        (lambda d, out: modify_tasks(d, episode_tasks={9: "x"}), "9 does not exist"),
        (lambda d, out: modify_tasks(d, new_task=" "), "text is empty"),
        (lambda d, out: convert_image_to_video_dataset(d, out), "no camera that is stored as pictures"),
        (lambda d, out: split_dataset(d, {"a/b": 0.5}, out), "cannot be the name"),
        (lambda d, out: merge_datasets([d, d], "me/x", out), "given twice"),
    ],
)
def test_edits_that_make_no_sense(dataset, tmp_path, call, words):
    with pytest.raises(DatasetError, match=words):
        call(dataset, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_merge_names_every_difference_at_once(dataset, tmp_path):
    features = {name: one for name, one in made.NUMBERS.items() if name != "note"}
    features["action"] = {**features["action"], "shape": (2,), "names": ["a.pos", "b.pos"]}
    features["extra"] = {"dtype": "float32", "shape": (1,), "names": None}
    other = LeRobotDataset.create("me/other", 10, features, root=tmp_path / "other")
    with pytest.raises(FeatureMismatchError) as error:
        merge_datasets([dataset, other], "me/merged", tmp_path / "merged")
    for words in (
        "Only 'me/made' has the feature 'note'",
        f"Only 'me/made' has the feature '{TOP}'",
        "Only 'me/other' has the feature 'extra'",
        "'action': shape is (3,) in 'me/made' and (2,) in 'me/other'",
        "'action': names is",
    ):
        assert words in str(error.value)


def test_tasks_are_numbered_as_they_appear(dataset, tmp_path):
    new = merge_datasets(
        [delete_episodes(dataset, [0, 2], tmp_path / "a"), delete_episodes(dataset, [1, 3], tmp_path / "b")],
        "me/merged",
        tmp_path / "merged",
    )
    assert new.meta.tasks.names == ["close the drawer", "pick the cube"]
    assert [new[i]["task"] for i in (0, 4, 5)] == ["close the drawer"] * 2 + ["pick the cube"]
    assert list(new.meta.episodes["tasks"]) == [["close the drawer"]] * 2 + [["pick the cube"]] * 2


def test_tasks_by_episode_by_text_and_for_the_rest(tmp_path):
    def made_with(**how):
        root = tmp_path / str(len(list(tmp_path.iterdir()))) / "made"
        new = modify_tasks(made.make(root, [2, 2, 2]), **how)
        assert new.meta.stats["task_index"]["max"] == [len(new.meta.tasks) - 1]
        return [new[i]["task"] for i in (0, 2, 4)]

    assert made_with(new_task="all") == ["all"] * 3
    assert made_with(episode_tasks={0: "first"}) == ["first", "close the drawer", "pick the cube"]
    assert made_with(new_task="rest", episode_tasks={1: "one"}) == ["rest", "one", "rest"]
    assert made_with(task_replacements={"pick the cube": "lift: it"}) == [
        "lift: it",
        "close the drawer",
        "lift: it",
    ]
    assert made_with(new_task="rest", task_replacements={"pick the cube": "lift"}) == ["lift", "rest", "lift"]
    assert made_with(episode_tasks={2: "x"}, task_replacements={"pick the cube": "lift"}) == [
        "lift",
        "close the drawer",
        "x",
    ]


def _with_subtasks(folder, numbers: list[int], texts: list[str]) -> LeRobotDataset:
    features = {
        "action": made.NUMBERS["action"],
        "subtask_index": {"dtype": "int64", "shape": (1,), "names": None},
    }
    dataset = LeRobotDataset.create("me/sub", 10, features, root=folder)
    for number in numbers:
        dataset.add_frame({"action": [0, 0, 0], "subtask_index": np.array([number]), "task": "tidy up"})
    dataset.save_episode()
    dataset.finalize()
    pq.write_table(
        pa.table({"subtask_index": range(len(texts)), "subtask": texts}), folder / "meta/subtasks.parquet"
    )
    return dataset


def test_subtasks_are_united_by_their_text(tmp_path):
    one = _with_subtasks(tmp_path / "one", [0, 1], ["reach", "grasp"])
    two = _with_subtasks(tmp_path / "two", [0, 1, 1], ["grasp", "lift"])
    new = merge_datasets([one, two], "me/merged", tmp_path / "merged")
    table = pq.read_table(new.root / "meta/subtasks.parquet").to_pydict()
    assert table == {"subtask_index": [0, 1, 2], "subtask": ["reach", "grasp", "lift"]}
    assert [int(item["subtask_index"]) for item in new] == [0, 1, 1, 2, 2]
    same = merge_datasets(
        [one, _with_subtasks(tmp_path / "three", [1], ["reach", "grasp"])], "me/s", tmp_path / "s"
    )
    assert [int(item["subtask_index"]) for item in same] == [0, 1, 1]
    assert (same.root / "meta/subtasks.parquet").read_bytes() == (
        one.root / "meta/subtasks.parquet"
    ).read_bytes()


def test_language_columns_keep_the_type_of_the_files(tmp_path):
    dataset = made.make(tmp_path / "made", [3, 2], made.NUMBERS)
    said = [[{"role": "user", "content": f"go {k}", "style": None}] if k % 2 else [] for k in range(5)]
    for path in dataset.root.glob("data/*/*"):
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.append_column("language_events", pa.array(said)), path)
    dataset.meta.features["language_events"] = {"dtype": "language", "shape": (1,), "names": None}
    dataset.meta.save_info()
    new = delete_episodes(LeRobotDataset("me/made", root=dataset.root), [0], tmp_path / "new")
    assert [item["language_events"] for item in new] == said[3:]


def test_pictures_become_videos_with_everything_else(tmp_path):
    image_depth = {DEPTH: {**made.DEPTH[DEPTH], "dtype": "image"}}
    old = made.make(tmp_path / "old", [4, 3], {**made.NUMBERS, **made.IMAGE, **image_depth})
    encoder = RGBEncoderConfig(vcodec="h264", crf=5)
    new = convert_image_to_video_dataset(old, tmp_path / "new", rgb_encoder=encoder, num_workers=2)
    made.check(new, [4, 3])
    assert new.meta.video_keys == [WRIST, DEPTH] and not new.meta.image_keys
    assert new.meta.features[WRIST]["info"]["video.codec"] == "h264"
    assert new.meta.features[DEPTH]["info"]["depth_unit"] == "mm"
    assert new.meta.features[DEPTH]["info"]["video.depth_max"] == 10.0
    assert list(new.meta.episodes["tasks"]) == list(old.meta.episodes["tasks"])
    for name, one in old.meta.stats.items():
        assert all(np.array_equal(new.meta.stats[name][stat], value) for stat, value in one.items())
    assert new.meta.episodes.stats(1).keys() == old.meta.episodes.stats(1).keys()
    some = convert_image_to_video_dataset(old, tmp_path / "some", rgb_encoder=encoder, episode_indices=[1])
    assert len(some) == 3 and int(some[0]["observation.count"]) == 10
    back = convert_video_to_image_dataset(new, tmp_path / "back")
    made.check(back, [4, 3])
    assert back.meta.image_keys == [WRIST, DEPTH] and not (back.root / "videos").exists()
    assert not [key for key in back.meta.features[WRIST].get("info", {}) if key.startswith("video.")]
    for i in (0, 6):
        assert bool((back[i][WRIST] == new[i][WRIST]).all())
        assert bool((back[i][DEPTH] == new[i][DEPTH]).all())


def test_depth_in_metres_survives_both_ways(tmp_path):
    features = {DEPTH: {**made.DEPTH[DEPTH], "dtype": "image"}}
    old = LeRobotDataset.create("me/metres", 10, features, root=tmp_path / "old")
    for k in range(3):
        old.add_frame({DEPTH: made.depth(0, k).astype(np.float32) / 1000, "task": "look"})
    old.save_episode()
    old.finalize()
    new = convert_image_to_video_dataset(old, tmp_path / "new")
    assert new.meta.features[DEPTH]["info"]["depth_unit"] == "m"
    back = convert_video_to_image_dataset(new, tmp_path / "back")
    for one in (new, back):
        assert np.abs(one[2][DEPTH][0].numpy() - made.depth(0, 2)).max() <= 2


# --------------------------------------------------------------------------------------------- scale
def test_a_thousand_episodes_are_read_once_and_a_row_group_at_a_time(tmp_path, monkeypatch):
    small = made.make(tmp_path / "small", [3, 2, 4, 1], made.NUMBERS, data_files_size_in_mb=0.3)
    picks = [(small.meta, k % 4) for k in range(1000)]
    many = Copy(
        target=Target(repo_id="me/many", root=tmp_path / "many"), picks=picks, features=small.meta.features
    ).run()
    files = sorted(many.root.glob("data/*/*.parquet"))
    assert many.meta.total_episodes == 1000 and 2 <= len(files) <= 20
    opened, groups, most = [], [], []
    real = pq.ParquetFile

    class Counted(real):
        def __init__(self, source, **options):
            opened.append(str(source))
            super().__init__(source, **options)

        def read_row_group(self, number, *args, **kwargs):
            groups.append(number)
            table = super().read_row_group(number, *args, **kwargs)
            most.append(len(table))
            return table

    monkeypatch.setattr("lerobot.datasets.edit.rows.pq.ParquetFile", Counted)
    less = delete_episodes(many, [500], tmp_path / "less")
    assert less.meta.total_episodes == 999
    read = [path for path in opened if path.startswith(str(many.root / "data"))]
    assert len(groups) == 999 and max(most) == 4
    assert all(read.count(str(path)) <= 4 for path in files)


def test_rows_in_one_group_are_read_once(tmp_path, monkeypatch):
    """Files that went through pandas have all rows in one group, and lists of no fixed size."""
    dataset = made.make(tmp_path / "made", LENGTHS, made.NUMBERS)
    for path in dataset.root.glob("data/*/*"):
        table = pq.read_table(path, partitioning=None).replace_schema_metadata(None)
        at = table.column_names.index("action")
        table = table.set_column(at, "action", table["action"].cast(pa.list_(pa.float32())))
        pq.write_table(table, path)
    groups, real = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, *a, **k: groups.append(1) or real(self, *a, **k)
    )
    new = delete_episodes(dataset, [1], tmp_path / "new")
    assert len(groups) == 1
    assert [float(item["action"][0]) for item in new] == [*range(4), *range(5), *range(2)]
    path = next(new.root.glob("data/*/*"))
    assert pq.read_schema(path).field("action").type == pa.list_(pa.float32(), 3)
    assert pq.ParquetFile(path).num_row_groups == 3


@pytest.mark.parametrize("fault", ["missing", "cut", "short", "unordered"])
def test_damaged_rows_are_named(tmp_path, fault):
    dataset = made.make(tmp_path / "made", LENGTHS, made.NUMBERS)
    path = next(dataset.root.glob("data/*/*"))
    if fault == "missing":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.slice(0, 9) if fault == "short" else table.take([1, 0, *range(2, 14)]), path)
    with pytest.raises(DatasetError, match=path.name):
        delete_episodes(dataset, [0], tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_integer_statistics_of_converted_datasets(tmp_path):
    """Converters left min and max of whole numbers as integers, and no quantiles."""
    dataset = made.make(tmp_path / "made", LENGTHS, made.NUMBERS)
    path = next(dataset.root.glob("meta/episodes/*/*"))
    table = pq.read_table(path, partitioning=None)
    name = "stats/observation.count/min"
    at = table.column_names.index(name)
    table = table.set_column(at, name, table[name].cast(pa.list_(pa.int64())))
    table = table.drop_columns([n for n in table.column_names if "/q" in n])
    pq.write_table(table, path)
    other = made.make(tmp_path / "other", [2], made.NUMBERS)
    old = LeRobotDataset("me/made", root=dataset.root)
    merged = merge_datasets([old, other], "me/merged", tmp_path / "merged")
    stats = merged.meta.episodes.stats(2)["observation.count"]
    assert stats["min"].tolist() == [20] and stats["min"].dtype == np.float64
    assert "q50" in merged.meta.episodes.stats(4)["observation.count"]
