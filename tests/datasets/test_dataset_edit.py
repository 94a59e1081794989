"""Deleting, splitting and merging episodes of datasets with videos, without encoding them again."""

import os

import pytest
import torch

from lerobot.core.errors import DatasetError, FeatureMismatchError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.config import RGBEncoderConfig
from lerobot.datasets.edit import delete_episodes, merge_datasets, modify_tasks, remove_feature, split_dataset
from tests.fakes import dataset as made

TOP = "observation.images.top"
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.DEPTH}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return made.make(tmp_path_factory.mktemp("edit") / "made", [4, 3, 5, 2], FEATURES)


def same(item: dict, other: dict) -> bool:
    return all(
        torch.equal(item[name], other[name])
        if isinstance(item[name], torch.Tensor)
        else item[name] == other[name]
        for name in item
        if name not in ("index", "episode_index", "task_index")
    )


def test_what_is_left_after_deleting_is_bit_for_bit_the_same(dataset, tmp_path):
    less = delete_episodes(dataset, [1], tmp_path / "less")
    kept = [*range(4), *range(7, 14)]
    assert len(less) == len(kept) and less.meta.episodes["length"] == [4, 5, 2]
    assert all(same(less[i], dataset[k]) for i, k in enumerate(kept))
    assert [int(item["index"]) for item in less] == list(range(11))
    assert less.meta.tasks.names == ["pick the cube", "close the drawer"]


def test_shares_take_the_episodes_in_order(dataset, tmp_path):
    parts = split_dataset(dataset, {"train": 0.75, "val": 0.25}, tmp_path)
    assert parts["train"].meta.episodes["length"] == [4, 3, 5] and parts["val"].meta.episodes["length"] == [2]
    assert all(same(item, dataset[12 + i]) for i, item in enumerate(parts["val"]))
    assert parts["val"].meta.tasks.names == ["close the drawer"]


def test_videos_of_other_encoders_stay_in_files_of_their_own(dataset, tmp_path):
    other = LeRobotDataset.create(
        "me/other",
        10,
        FEATURES,
        root=tmp_path / "other",
        rgb_encoder=RGBEncoderConfig(vcodec="libsvtav1", crf=5),
    )
    made.record(other, [3], first=4)
    other.finalize()
    merged = merge_datasets([dataset, other], "me/merged", tmp_path / "merged")
    made.check(merged, [4, 3, 5, 2, 3])
    assert merged.meta.get_video_file_path(3, TOP) != merged.meta.get_video_file_path(4, TOP)
    assert merged.meta.features[TOP]["info"]["video.codec"] is None
    made.check(delete_episodes(merged, [4], tmp_path / "again"), [4, 3, 5, 2])


def test_removing_a_camera(dataset, tmp_path):
    less = remove_feature(dataset, [TOP, "note"], tmp_path / "less")
    assert (
        TOP not in less.features and TOP not in less.meta.stats and not (less.root / "videos" / TOP).exists()
    )
    assert TOP not in less.meta.episodes.stats(0)
    made.check(less, [4, 3, 5, 2])


def test_datasets_that_differ_are_not_merged(dataset, tmp_path):
    other = made.make(tmp_path / "other", [2], made.NUMBERS)
    with pytest.raises(FeatureMismatchError, match="Only 'me/made' has the feature 'observation.images"):
        merge_datasets([dataset, other], "me/merged", tmp_path / "merged")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d, out: delete_episodes(d, [9], out), "9 does not exist"),
        (lambda d, out: delete_episodes(d, [0, 1, 2, 3], out), "All 4 episodes"),
        (lambda d, out: split_dataset(d, {"a": [0, 1], "b": [1]}, out), "episode 1 is in two splits"),
        (lambda d, out: split_dataset(d, {"a": 0.9, "b": 0.9}, out), "add up to 1"),
        (lambda d, out: remove_feature(d, "actoin", out), "Did you mean 'action'"),
        (lambda d, out: remove_feature(d, "timestamp", out), "cannot be removed"),
        (lambda d, out: merge_datasets([], "me/x", out), "at least one"),
    ],
)
def test_edits_that_make_no_sense(dataset, tmp_path, call, words):
    with pytest.raises(DatasetError, match=words):
        call(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_being_recorded_is_not_edited_in_place(tmp_path):
    recording = LeRobotDataset.create("me/made", 10, made.NUMBERS, root=tmp_path / "a")
    made.record(recording, [3, 2])
    before = LeRobotDataset("me/made", root=tmp_path / "a")
    with pytest.raises(DatasetError, match=f"process {os.getpid()}"):
        modify_tasks(before, new_task="another")
    made.record(recording, [2], first=2)
    recording.finalize()
    modify_tasks(LeRobotDataset("me/made", root=tmp_path / "a"), new_task="another")
    assert list(LeRobotDataset("me/made", root=tmp_path / "a").meta.tasks) == ["another"]
