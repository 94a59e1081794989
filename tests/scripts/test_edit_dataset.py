"""lerobot-edit-dataset from the command line: every operation, what a dry run says, mistakes in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.scripts.edit_dataset import edit_dataset, main
from tests.fakes import dataset as made
from tests.fakes import layouts
from tests.fakes.hub import FakeHub

ROOT = Path(__file__).parents[2]
TOP = "observation.images.top"
LENGTHS = [4, 3, 5]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A local home of datasets with me/made in it."""
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made.make(tmp_path / "me" / "made", LENGTHS)
    return tmp_path / "me"


def edit(*words: str) -> list[LeRobotDataset]:
    roots = edit_dataset(["--repo_id=me/made", *words])
    return [LeRobotDataset(f"me/{root.name}", root=root) for root in roots]


def lengths(dataset: LeRobotDataset) -> list[int]:
    return list(dataset.meta.episodes["length"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_deleting_in_place_keeps_the_original(home, capsys):
    (new,) = edit("--operation.type=delete_episodes", "--operation.episode_indices=[1]")
    assert new.root == home / "made" and lengths(new) == [4, 5]
    assert names(home) == ["made", "made_old"]
    made.check(LeRobotDataset("me/made", root=home / "made_old"), LENGTHS)
    assert "made me/made: 2 episodes, 9 frames" in capsys.readouterr().out


def test_deleting_into_a_new_dataset(home, tmp_path):
    (new,) = edit(
        "--operation.type",
        "delete_episodes",
        "--operation.episode_indices",
        "[0, 2]",
        "--new_repo_id",
        "me/less",
    )
    assert new.root == home / "less" and lengths(new) == [3]
    (new,) = edit(
        "--operation.type=delete_episodes", "--operation.episode_indices=[0]", f"--new_root={tmp_path}/x"
    )
    assert new.root == tmp_path / "x" and names(home) == ["less", "made"]


def test_the_same_name_means_in_place(home):
    edit("--operation.type=delete_episodes", "--operation.episode_indices=[0]", "--new_repo_id=me/made")
    assert names(home) == ["made", "made_old"]


def test_splitting(home, tmp_path):
    parts = edit("--operation.type=split", "--operation.splits={train: 0.67, val: 0.33}")
    assert [part.root.name for part in parts] == ["made_train", "made_val"]
    assert [lengths(part) for part in parts] == [[4, 3], [5]]
    words = '--operation.splits={"a": [2], "b": [0, 1]}'
    parts = edit("--operation.type=split", words, f"--new_root={tmp_path}/parts")
    assert [part.root for part in parts] == [tmp_path / "parts" / "a", tmp_path / "parts" / "b"]


def test_merging(home):
    edit("--operation.type=split", "--operation.splits={a: [0, 1], b: [2]}")
    (root,) = edit_dataset(
        [
            "--operation.type=merge",
            "--operation.repo_ids=[me/made_a, me/made_b]",
            "--new_repo_id=me/merged",
        ]
    )
    made.check(LeRobotDataset("me/merged", root=root), LENGTHS)
    words = f"--operation.roots=[{home / 'made_b'}, {home / 'made_a'}]"
    (root,) = edit_dataset(
        ["--operation.type=merge", "--operation.repo_ids=[x/1, x/2]", words, "--new_repo_id=me/turned"]
    )
    assert lengths(LeRobotDataset("me/turned", root=root)) == [5, 4, 3]


def test_features(home, tmp_path):
    (new,) = edit("--operation.type=remove_feature", f"--operation.feature_names=[note, {TOP}]")
    assert "note" not in new.features and not (new.root / "videos").exists()
    np.save(tmp_path / "rewards.npy", np.arange(12, dtype=np.float32))
    pq.write_table(pa.table({"grip": [[float(k), 0.5] for k in range(12)]}), tmp_path / "grip.parquet")
    features = {
        "next.reward": {"dtype": "float32", "shape": [1], "file": str(tmp_path / "rewards.npy")},
        "grip": {
            "dtype": "float32",
            "shape": [2],
            "names": ["a", "b"],
            "file": str(tmp_path / "grip.parquet"),
        },
        "site": {"dtype": "string", "shape": [1], "value": "lab: 3"},
        "gain": {"dtype": "float32", "shape": [2], "value": 0.5},
    }
    (new,) = edit("--operation.type=add_feature", f"--operation.features={json.dumps(features)}")
    item = new[7]
    assert float(item["next.reward"]) == 7 and item["grip"].tolist() == [7, 0.5] and item["site"] == "lab: 3"
    assert item["gain"].tolist() == [0.5, 0.5] and new.meta.stats["grip"]["max"].tolist() == [11, 0.5]
    (new,) = edit("--operation.type=rename_feature", '--operation.names={"action": "action.joints"}')
    assert "action.joints" in new.features and "action" not in new.features
    assert names(home) == ["made", "made_old", "made_old_1", "made_old_2"]


def test_tasks_are_taken_to_the_letter(home):
    (new,) = edit("--operation.type=modify_tasks", "--operation.new_task=pick: the # cube")
    assert new[0]["task"] == "pick: the # cube"
    (new,) = edit(
        "--operation.type=modify_tasks",
        '--operation.episode_tasks={"0": "first: yes"}',
        '--operation.task_replacements={"pick: the # cube": "no"}',
    )
    assert [new[0]["task"], new[11]["task"]] == ["first: yes", "no"]


def test_sizes_encodings_and_pictures(home):
    (new,) = edit(
        "--operation.type=repack", "--operation.video_files_size_in_mb=0.001", "--new_repo_id=me/small"
    )
    assert len(list(new.root.glob("videos/*/*/*.mp4"))) == 3
    made.check(new, LENGTHS)
    words = [
        "--operation.rgb_encoder.vcodec=h264",
        "--operation.rgb_encoder.crf=4",
        "--operation.num_workers=2",
    ]
    (new,) = edit("--operation.type=reencode_videos", *words)
    assert new.root == home / "made_reencoded" and new.meta.features[TOP]["info"]["video.crf"] == 4
    made.check(new, LENGTHS)
    (new,) = edit("--operation.type=reencode_videos", "--operation.overwrite=true", *words)
    assert new.root == home / "made" and (home / "made_old").is_dir()
    (new,) = edit("--operation.type=convert_video_to_image")
    assert new.root == home / "made_image" and new.meta.image_keys == [TOP]
    roots = edit_dataset(
        [
            "--repo_id=me/made_image",
            "--operation.type=convert_image_to_video",
            "--operation.episode_indices=[2]",
            *words,
        ]
    )
    assert roots == [home / "made_image_video"]
    assert lengths(LeRobotDataset("me/x", root=roots[0])) == [5]


def test_older_formats_are_converted(home, capsys):
    layouts.v21(LeRobotDataset("me/made", root=home / "made"), home / "old")
    with pytest.raises(DatasetError, match=r"format v2.1.*--operation.type=convert"):
        edit_dataset(
            ["--repo_id=me/old", "--operation.type=delete_episodes", "--operation.episode_indices=[0]"]
        )
    words = ["--repo_id=me/old", "--operation.type=convert"]
    edit_dataset([*words, "--dry_run"])
    out = capsys.readouterr().out
    assert "in format v3.0" in out and "old_old" in out and names(home) == ["made", "old"]
    assert edit_dataset([*words, "--new_repo_id=me/new"]) == [home / "new"]
    made.check(LeRobotDataset("me/new", root=home / "new"), LENGTHS)
    assert edit_dataset(words) == [home / "old"]
    made.check(LeRobotDataset("me/old", root=home / "old"), LENGTHS)
    assert names(home) == ["made", "new", "old", "old_old"]
    with pytest.raises(DatasetError, match="nothing to convert"):
        edit_dataset(words)


def test_statistics_are_computed_anew(home):
    path = home / "made" / "meta/stats.json"
    wanted = json.loads(path.read_text())
    path.write_text(json.dumps({**wanted, "action": {**wanted["action"], "mean": [9.0, 9.0, 9.0]}}))
    (copy,) = edit("--operation.type=recompute_stats")
    assert copy.root == home / "made_recomputed_stats"
    assert copy.meta.stats["action"]["mean"].tolist() == pytest.approx(wanted["action"]["mean"])
    assert json.loads(path.read_text())["action"]["mean"] == [9.0, 9.0, 9.0]
    (new,) = edit("--operation.type=recompute_stats", "--operation.overwrite=true")
    assert new.meta.stats["action"]["mean"].tolist() == pytest.approx(wanted["action"]["mean"])
    old = json.loads((home / "made_old" / "meta/stats.json").read_text())
    assert old["action"]["mean"] == [9.0, 9.0, 9.0]
    made.check(new, LENGTHS)


def test_the_result_is_uploaded_when_asked(home, tmp_path, monkeypatch, capsys):
    with FakeHub() as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.delenv("HF_HUB_OFFLINE")
        words = [
            "--operation.type=delete_episodes",
            "--operation.episode_indices=[0]",
            "--new_repo_id=me/less",
        ]
        edit(*words, "--push_to_hub=true", "--dry_run")
        assert not fake.repos
        edit(*words, "--push_to_hub=true")
        assert "meta/info.json" in fake.repos["dataset", "me/less"].files("v3.0")
    assert "pushed to " in capsys.readouterr().out


def test_info(home, capsys):
    assert edit("--operation.type=info", "--operation.show_features=true") == []
    said = capsys.readouterr().out
    for words in (
        "Repository: me/made",
        "Episodes: 3",
        "Frames: 12",
        "Tasks: 2",
        "4.0 on average",
        '"dtype": "video"',
    ):
        assert words in said
    assert names(home) == ["made"]


# ------------------------------------------------------------------------------------------- dry runs
def _everything(folder: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--operation.type=delete_episodes", "--operation.episode_indices=[1]"],
            [
                "made_old",
                "leaves out episode 1 (1 of 3 episodes)",
                "copied packets",
                "encodes no stored video",
            ],
        ),
        (["--operation.type=split", "--operation.splits={a: 0.5, b: 0.5}"], ["'me/made_a'", "'me/made_b'"]),
        (
            ["--operation.type=remove_feature", f"--operation.feature_names=[{TOP}]"],
            [f"leaves out the feature '{TOP}'"],
        ),
        (
            ["--operation.type=rename_feature", "--operation.names={action: act}"],
            ["renames 'action' to 'act'", "links 1 file as it is"],
        ),
        (
            ["--operation.type=add_feature", "--operation.features={x: {value: 1.0}}"],
            ["adds the feature 'x'", "adds 'x': float32 (1,)"],
        ),
        (["--operation.type=modify_tasks", "--operation.new_task=x"], ["task of all other frames: 'x'"]),
        (
            ["--operation.type=repack", "--operation.video_files_size_in_mb=7"],
            ["sets video_files_size_in_mb to 7"],
        ),
        (
            ["--operation.type=reencode_videos"],
            ["made_reencoded", "encodes episodes 0, 1, 2 of 'me/made' again", "encodes 12 frames again"],
        ),
        (["--operation.type=convert_video_to_image"], [f"decodes the videos of '{TOP}' into pictures"]),
        (["--operation.type=recompute_stats"], ["made_recomputed_stats", "numbers only"]),
    ],
)
def test_a_dry_run_says_what_would_happen_and_does_nothing(home, capsys, words, said):
    before = _everything(home)
    assert edit(*words, "--dry_run") == []
    out = capsys.readouterr().out
    for text in [*said, "nothing was changed"]:
        assert text in out, out
    assert _everything(home) == before


# ------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--operation.type"),
        (["--operation.type=delete_episode"], "Did you mean 'delete_episodes'"),
        (["--operation.type=delete_episodes"], "--operation.episode_indices must be given"),
        (["--operation.type=delete_episodes", "--operation.episode_indices=[7]"], "7 does not exist"),
        (["--operation.type=delete_episodes", "--operation.episode_indices=[0, 1, 2]"], "All 3 episodes"),
        (["--operation.type=split", "--operation.splits={a: 0.8, b: 0.8}"], "add up to 1"),
        (["--operation.type=split", "--operation.splits={a: 1.5}"], "between 0 and 1"),
        (["--operation.type=merge", "--operation.repo_ids=[me/made]"], "--new_repo_id must be given"),
        (["--operation.type=merge", "--operation.repo_ids=[]", "--new_repo_id=me/x"], "repo_ids is empty"),
        (
            ["--operation.type=merge", "--operation.repo_ids=[a/b]", "--operation.roots=[x, y]"],
            "2 folders for 1",
        ),
        (["--operation.type=repack", "--operation.data_files_size_in_mb=0"], "greater than 0"),
        (["--operation.type=add_feature", "--operation.features={x: {fiel: r.npy}}"], "Did you mean 'file'"),
        (["--operation.type=add_feature", "--operation.features={x: {file: none.npy}}"], "there is no file"),
        (["--operation.type=add_feature", "--operation.features={x: {value: lots}}"], "is no float32"),
        (["--operation.type=info", "--repo_id=me/nobody"], "was not found"),
        (["--operation.type=info", "--new_repo_idd=x"], "--new_repo_idd is unknown"),
        (
            ["--operation.type=delete_episodes", "--operation.episode_indices=[0]", "--new_repo_id=me/taken"],
            "exists already",
        ),
        (["--operation.type=reencode_videos", "--new_repo_id=me/made"], "--operation.overwrite=true"),
    ],
)
def test_mistakes_are_said_in_a_line(home, capsys, monkeypatch, words, said):
    (home / "taken").mkdir()
    before = _everything(home)
    repo = [] if any(word.startswith("--repo_id") for word in words) else ["--repo_id=me/made"]
    monkeypatch.setattr(sys, "argv", ["lerobot-edit-dataset", *repo, *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and "Traceback" not in error
    assert _everything(home) == before


def test_neither_name_nor_folder(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lerobot-edit-dataset", "--operation.type=info"])
    with pytest.raises(SystemExit):
        main()
    assert "--repo_id must be given" in capsys.readouterr().err


def test_nothing_of_a_split_is_made_when_a_part_cannot_be(home, tmp_path):
    (home / "made_b").mkdir()
    with pytest.raises(DatasetError, match="exists already"):
        edit("--operation.type=split", "--operation.splits={a: [0], b: [1]}")
    assert names(home) == ["made", "made_b"]


@pytest.mark.slow
def test_as_a_program(home):
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.lerobot_edit_dataset", "--root", str(home / "made")]
        + ["--operation.type", "delete_episodes", "--operation.episode_indices", "[2]"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    assert "made me/made: 2 episodes, 7 frames" in done.stdout and "is kept in" in done.stderr
