"""Datasets to the Hub and back, over HTTP on this machine."""

import shutil

import pytest

from lerobot.core import hub as core_hub
from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from tests.fakes import dataset as made
from tests.fakes.hub import FakeHub

LENGTHS = [3, 4]
FEATURES = {**made.NUMBERS, **made.VIDEO}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with FakeHub() as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        for name in ("HF_HUB_OFFLINE", "HF_LEROBOT_HOME", "LEROBOT_HOME"):
            monkeypatch.delenv(name, raising=False)
        yield fake


@pytest.fixture
def pushed(hub, tmp_path):
    """A dataset on the Hub whose second episode has files of its own."""
    dataset = made.make(
        tmp_path / "a", LENGTHS, FEATURES, video_files_size_in_mb=1e-4, data_files_size_in_mb=1e-4
    )
    (tmp_path / "a/images/left/over").mkdir(parents=True)
    (tmp_path / "a/images/left/over/frame-000000.png").write_bytes(b"x")
    dataset.push_to_hub(tags=["so101"], private=True)
    return hub


def test_a_pushed_dataset_can_be_read_by_its_name(pushed, tmp_path):
    repo = pushed.repos["dataset", "me/made"]
    assert "README.md" in repo.files("v3.0") and not any(
        name.startswith("images") for name in repo.files("v3.0")
    )
    card = repo.files()["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n") and "- so101" in card and '"total_frames": 7' in card
    dataset = LeRobotDataset("me/made")
    assert dataset.root.is_relative_to(tmp_path / "hf/lerobot/hub/datasets--me--made/snapshots")
    made.check(dataset, LENGTHS)


def test_pushing_again_moves_the_tag(pushed, tmp_path):
    repo = pushed.repos["dataset", "me/made"]
    first = repo.tags["v3.0"]
    LeRobotDataset("me/made", root=tmp_path / "a").push_to_hub(branch="later")
    assert repo.tags["v3.0"] == repo.branches["later"] != first and repo.branches["main"] == first


def test_a_subset_downloads_only_its_files(pushed):
    pushed.requests.clear()
    dataset = LeRobotDataset("me/made", episodes=[1])
    assert [item["note"] for item in dataset] == [f"episode 1 frame {k}" for k in range(4)]
    got = [
        line
        for line in pushed.requests
        if line.startswith("GET") and ("/data/" in line or "/videos/" in line)
    ]
    assert len(got) == 2 and all("file-001" in line for line in got)


def test_nothing_is_asked_when_the_folder_is_there(pushed, tmp_path):
    pushed.requests.clear()
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), LENGTHS)
    assert not pushed.requests


def test_an_empty_root_is_filled(pushed, tmp_path):
    dataset = LeRobotDataset("me/made", root=tmp_path / "new")
    assert dataset.root == tmp_path / "new"
    made.check(dataset, LENGTHS)


def test_a_snapshot_is_read_offline(pushed, monkeypatch):
    LeRobotDataset("me/made")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pushed.requests.clear()
    made.check(LeRobotDataset("me/made"), LENGTHS)
    assert not pushed.requests


def test_a_missing_dataset_names_every_place(hub, tmp_path, monkeypatch):
    with pytest.raises(DatasetError) as error:
        LeRobotDataset("me/none")
    for words in (str(tmp_path / "hf/lerobot/me/none"), str(tmp_path / "hf/lerobot/hub"), hub.url, "404"):
        assert words in str(error.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE is set"):
        LeRobotDataset("me/none")
    with pytest.raises(DatasetError, match="nowhere"):
        LeRobotDataset("me/none", root=tmp_path / "nowhere")
    assert not hub.requests


def test_an_unreachable_hub_is_said(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match="http://127.0.0.1:9 and dataset 'me/none'"):
        LeRobotDataset("me/none")


def test_missing_files_of_a_folder_are_named(pushed, tmp_path):
    shutil.rmtree(tmp_path / "a/videos")
    with pytest.raises(DatasetError, match=r"2 files of dataset 'me/made' are missing(.|\n)*file-001.mp4"):
        LeRobotDataset("me/made", root=tmp_path / "a")
    made.check(LeRobotDataset("me/made", root=tmp_path / "a", force_cache_sync=True), LENGTHS)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [(["main", "v3.0"], "v3.0"), (["v2.1", "v3.0.0"], "v3.0.0"), (["v3.0", "v3.1"], "v3.0")],
)
def test_the_fitting_version_is_chosen(names, chosen):
    assert core_hub.choose_version(names, "v3.0") == chosen


@pytest.mark.parametrize(
    ("names", "words"),
    [(["main"], "revision='main'"), (["v2.1"], "older format"), (["v4.0"], "newer format")],
)
def test_versions_that_do_not_fit(names, words):
    with pytest.raises(core_hub.HubError, match=words):
        core_hub.choose_version(names, "v3.0")


def test_a_model_goes_to_the_hub_and_back(hub, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    repo = core_hub.Repo(repo_id="me/policy")
    repo.create()
    repo.upload(folder, message="Upload policy")
    assert repo.file("model.safetensors").read_bytes() == b"weights"
    assert {path.name for path in repo.snapshot().iterdir()} == {"config.json", "model.safetensors"}
