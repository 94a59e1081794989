"""Items and batches of a dataset, and what is said when something is wrong with it."""

import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.core.errors import ConfigError, DatasetError
from lerobot.datasets import LeRobotDataset, resolve_delta_timestamps
from tests.fakes import dataset as made

LENGTHS = [6, 4, 7]
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE, **made.DEPTH}
TOP, WRIST = "observation.images.top", "observation.images.wrist"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("read") / "made"
    made.make(folder, LENGTHS, FEATURES)
    return folder


@pytest.fixture
def copy(root, tmp_path):
    """A copy that a test may damage."""
    import shutil

    return shutil.copytree(root, tmp_path / "copy")


def open_(root, **how) -> LeRobotDataset:
    return LeRobotDataset("me/made", root=root, **how)


def test_items_are_what_was_recorded(root):
    made.check(open_(root), LENGTHS)


def test_an_item_gives_nested_views(root):
    item = open_(root)[3]
    view = item["observation"]
    assert view["images"]["top"] is item[TOP] and view["state"] is item["observation.state"]
    assert "observation" not in item and set(item["next"]) == {"done"}
    again = pickle.loads(pickle.dumps(item))
    assert list(again) == list(item) and again["observation"]["images"].keys() == view["images"].keys()
    with pytest.raises(KeyError, match=r"Did you mean 'action'"):
        item["actoin"]


@pytest.mark.parametrize("return_uint8", [False, True])
def test_a_batch_is_its_items_stacked(root, return_uint8):
    deltas = {
        TOP: [-0.2, 0.0, 0.1],
        WRIST: [0.0, 0.1],
        "action": [0.0, 0.1, 0.9],
        "next.done": [0.1],
        "note": [-0.1, 0],
    }
    dataset = open_(root, delta_timestamps=deltas, return_uint8=return_uint8)
    indices = [16, 0, 5, 5, 9]
    batch = dataset.batch(indices)
    assert batch[TOP].shape == (5, 3, 3, made.HEIGHT, made.WIDTH) and batch["action"].shape == (5, 3, 3)
    assert batch[TOP].dtype == batch[WRIST].dtype == (torch.uint8 if return_uint8 else torch.float32)
    for k, index in enumerate(indices):
        item = dataset[index]
        assert list(item) == list(batch)
        for name, value in item.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, batch[name][k]), name
            else:
                assert value == batch[name][k], name


def test_windows_stop_at_the_border_of_an_episode(root):
    dataset = open_(root, delta_timestamps={"action": [-0.1, 0.0, 0.1, 0.2], TOP: [-0.1, 0.1]})
    last = dataset[5]  # the last frame of episode 0
    assert last["action"][:, 0].tolist() == [4, 5, 5, 5]
    assert last["action_is_pad"].tolist() == [False, False, True, True]
    assert last[f"{TOP}_is_pad"].tolist() == [False, True]
    assert torch.allclose(
        last[TOP][1] * 255, torch.tensor(made.picture(0, 5)).permute(2, 0, 1).float(), atol=4
    )
    assert dataset[6]["action_is_pad"].tolist() == [True, False, False, False]


def test_some_episodes(root):
    dataset = open_(root, episodes=[2, 0])
    assert (dataset.num_episodes, len(dataset)) == (2, 13)
    assert [int(item["index"]) for item in dataset] == [*range(6), *range(10, 17)]
    assert dataset.absolute_to_relative_idx[10] == 6
    assert dataset[6][TOP][1].mean() * 255 == pytest.approx(made.picture(2, 0)[..., 1].mean(), abs=4)
    assert dataset.meta.total_episodes == 3


def test_slices_and_negative_positions(root):
    dataset = open_(root)
    assert [int(item["index"]) for item in dataset[14:]] == [14, 15, 16]
    assert int(dataset[-1]["index"]) == 16
    with pytest.raises(IndexError, match="there are 17"):
        dataset[17]


def test_depth_comes_in_the_unit_asked_for(root):
    mm, m = open_(root), open_(root, depth_output_unit="m")
    key = "observation.images.depth"
    torch.testing.assert_close(mm[0][key] / 1000, m[0][key], rtol=0, atol=6e-4)
    np.testing.assert_allclose(mm.meta.stats[key]["mean"] / 1000, m.meta.stats[key]["mean"])
    assert mm.meta.stats[key]["min"].item() == 500


def test_transforms_are_applied_to_colour_pictures_only(root):
    plain, dark = open_(root), open_(root, image_transforms=lambda picture: picture * 0)
    assert dark[2][TOP].abs().max() == 0 and dark[2][WRIST].abs().max() == 0
    depth = "observation.images.depth"
    assert torch.equal(dark[2][depth], plain[2][depth])


def test_many_threads_read_the_same(root):
    dataset = open_(root)
    wanted = [item[TOP] for item in dataset]
    order = np.random.default_rng(0).integers(0, 17, (24, 5))
    with ThreadPoolExecutor(6) as threads:
        for indices, batch in zip(order, threads.map(dataset.batch, order), strict=True):
            assert torch.equal(batch[TOP], torch.stack([wanted[i] for i in indices]))


def test_a_pickled_dataset_reads(root):
    dataset = open_(root)
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[4][TOP], dataset[4][TOP]) and torch.equal(again[4][WRIST], dataset[4][WRIST])


def test_the_loader_of_torch_reads_it_with_processes(root):
    dataset = open_(root)
    wanted = dataset[7]
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=1)
    batch = list(loader)[1]
    assert torch.equal(batch[TOP][3], wanted[TOP]) and batch["task"][3] == wanted["task"]


def test_variable_lists_and_other_task_columns_are_read(copy):
    import pyarrow as pa

    path = copy / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    column = table.column_names.index("action")
    table = table.set_column(column, "action", table.column("action").cast(pa.list_(pa.float32())))
    pq.write_table(table.replace_schema_metadata(None), path)
    tasks = pq.read_table(copy / "meta/tasks.parquet")
    pq.write_table(tasks.rename_columns(["task_index", "__index_level_0__"]), copy / "meta/tasks.parquet")
    made.check(open_(copy), LENGTHS)


def test_unknown_keys_of_info_are_kept(copy):
    path = copy / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lab": "Zürich"}, ensure_ascii=False))
    meta = open_(copy).meta
    meta.save_info()
    assert json.loads(path.read_text())["lab"] == "Zürich"


def _edit_info(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"total_episodes": 4}, "counts 4 episodes, meta/episodes holds 3"),
        ({"total_frames": 18}, "counts 18 frames, the episodes in meta/episodes add up to 17"),
        (
            {"codebase_version": "v2.1"},
            "codebase_version is 'v2.1', but the episodes are in meta/episodes/ as in v3.0",
        ),
        ({"codebase_version": "v4.0"}, "newer format v4.0"),
        ({"fps": 0}, "fps=0, expected a number greater than 0"),
        ({"fps": 20}, "out of step with fps=20; the first is episode 0, frame_index 1"),
        ({"data_path": "data/{chunk_index}/{file_index}.parquet"}, r"data/0/0.parquet"),
    ],
)
def test_info_that_contradicts_the_files(copy, changes, words):
    _edit_info(copy, **changes)
    with pytest.raises(DatasetError, match=words):
        open_(copy)


@pytest.mark.parametrize(
    "name", ["data/chunk-000/file-000.parquet", f"videos/{TOP}/chunk-000/file-000.mp4", "meta/tasks.parquet"]
)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(DatasetError, match=f"{name}(.|\n)*force_cache_sync=True"):
        open_(copy)


@pytest.mark.parametrize(
    "name", ["data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"]
)
def test_a_file_without_its_end_is_named(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=f"{name} is damaged"):
        open_(copy)


def test_a_video_that_is_too_short_is_named(copy):
    whole = copy / f"videos/{TOP}/chunk-000/file-000.mp4"
    from lerobot.datasets.join import Segment, join_videos

    short = copy / "short.mp4"
    join_videos([Segment(path=whole, start=0, length=10)], short, fps=10)
    short.replace(whole)
    assert len(open_(copy, episodes=[0, 1])) == 10
    with pytest.raises(DatasetError, match=r"file-000.mp4 has no frame at 1.000 s, where episode 2") as error:
        open_(copy)
    assert "lerobot-doctor" in str(error.value)


@pytest.mark.parametrize(
    ("episodes", "words"), [([99], "episode 99 does not exist"), ([], "empty"), ([-1], "-1")]
)
def test_episodes_that_do_not_exist(root, episodes, words):
    with pytest.raises(DatasetError, match=words):
        open_(root, episodes=episodes)


def test_offsets_are_checked(root):
    with pytest.raises(DatasetError, match=r"\[0.15\]; every offset must be a multiple of 1/10"):
        open_(root, delta_timestamps={"action": [0.0, 0.15]})
    with pytest.raises(DatasetError, match="Did you mean 'action'"):
        open_(root, delta_timestamps={"acton": [0.0]})


def test_the_variable_of_old_releases_is_refused(monkeypatch):
    monkeypatch.setenv("LEROBOT_HOME", "/somewhere")
    with pytest.raises(ConfigError, match="export HF_LEROBOT_HOME=/somewhere"):
        LeRobotDataset("me/made")


def test_the_local_home_is_used(root, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(root.parent))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert root.name == "made" and LeRobotDataset("made").root == root


def test_what_a_policy_wants_becomes_offsets(root):
    class Config:
        observation_delta_indices = [-1, 0]
        action_delta_indices = [0, 1, 2]
        reward_delta_indices = None

    meta = open_(root).meta
    deltas = resolve_delta_timestamps(Config, meta)
    assert deltas["action"] == [0.0, 0.1, 0.2] and deltas[TOP] == [-0.1, 0.0]
    assert set(deltas) == {"action", *(name for name in meta.features if name.startswith("observation."))}
    Config.observation_delta_indices = Config.action_delta_indices = None
    assert resolve_delta_timestamps(Config, meta) is None


def test_importing_brings_little_besides_torch():
    """What it costs in seconds is measured by benchmarks/startup.py."""
    code = (
        "import sys, torch; before = set(sys.modules); from lerobot.datasets import LeRobotDataset; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = {name for name in done.stdout.split() if "cython" not in name}
    assert "av" in brought and brought <= {"av", "cloudpickle", "lerobot", "numpy", "pyarrow"}


def test_the_config_imports_without_torch():
    code = (
        "import sys, lerobot.datasets.config; print(any(m in sys.modules for m in ('torch', 'av', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_cameras_can_be_left_out(tmp_path):
    features = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}
    whole = made.make(tmp_path / "a", [3, 2], features)
    shutil.rmtree(tmp_path / "a/videos")  # nothing asks for them
    dataset = LeRobotDataset("me/made", root=tmp_path / "a", skip_cameras=["observation.images.top"])
    assert dataset[4].keys() == set(whole.features) - {"observation.images.top"} | {"task"}
    assert dataset[4]["observation.images.wrist"].shape == (3, made.HEIGHT, made.WIDTH)
    with pytest.raises(DatasetError, match=r"no camera. Did you mean 'observation\.images\.top'"):
        LeRobotDataset("me/made", root=tmp_path / "a", skip_cameras=["observation.images.tip"])
