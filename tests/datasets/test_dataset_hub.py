"""Datasets to the Hub and back, over HTTP on this machine."""

import shutil

import pytest

from lerobot.core import hub as core_hub
from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset, publish
from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset
from tests.fakes import dataset as made
from tests.fakes import layouts
from tests.fakes.hub import FakeHub

LENGTHS = [3, 4]
FEATURES = {**made.NUMBERS, **made.VIDEO}


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


def uploads(hub: FakeHub) -> list[str]:
    return [line for line in hub.requests if line.startswith("PUT /upload/")]


def test_an_interrupted_push_does_not_send_anything_twice(hub, tmp_path):
    dataset = made.make(tmp_path / "a", [2] * 6, FEATURES, data_files_size_in_mb=1e-4)
    hub.uploads_left = 3
    with pytest.raises(core_hub.HubError, match="403"):
        dataset.push_to_hub()
    repo = hub.repos["dataset", "me/made"]
    assert "meta/info.json" not in repo.files() and "v3.0" not in repo.tags
    refused = len(uploads(hub)) - 3
    hub.uploads_left = None
    dataset.push_to_hub()
    large = {name for name in repo.files("v3.0") if name.endswith((".parquet", ".mp4"))}
    assert len(large) == 6 + 1 + 2  # data files, one video, tasks and episodes
    assert len(uploads(hub)) - refused == len(large)
    hub.requests.clear()
    dataset.push_to_hub()
    assert not uploads(hub)
    made.check(LeRobotDataset("me/made"), [2] * 6)


def test_pieces_that_were_committed_are_not_sent_again(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "PIECE_FILES", 2)
    dataset = made.make(tmp_path / "a", [2] * 6, FEATURES, data_files_size_in_mb=1e-4)
    hub.uploads_left = 5
    with pytest.raises(core_hub.HubError):
        dataset.push_to_hub()
    repo = hub.repos["dataset", "me/made"]
    there = set(repo.files())
    assert len(there) == 4 and all(name.startswith("data/") for name in there)
    hub.objects.clear()  # a Hub that has forgotten what was not committed
    hub.uploads_left = None
    hub.requests.clear()
    dataset.push_to_hub()
    assert len(uploads(hub)) == 9 - 4
    made.check(LeRobotDataset("me/made"), [2] * 6)


def test_unfinished_files_stay_behind(hub, tmp_path):
    dataset = made.make(tmp_path / "a", LENGTHS, FEATURES)
    stray = ("images/top/episode-000003/frame-000000.png", "data/chunk-000/.file-009.parquet.part")
    stray += ("data/chunk-000/file-009.parquet", "videos/observation.images.top/chunk-000/file-009.mp4")
    stray += (".cache/huggingface/x.metadata", "meta/.info.json.part", "recording.lock", "x.tmp")
    for name in stray:
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"x")
    (tmp_path / "a/sarm_progress.parquet").write_bytes(b"progress")
    dataset.push_to_hub()
    pushed = set(hub.repos["dataset", "me/made"].files())
    assert not pushed & set(stray) and "sarm_progress.parquet" in pushed
    assert {name for name in pushed if name.startswith("data/")} == {"data/chunk-000/file-000.parquet"}


def test_files_of_an_older_state_are_deleted_by_a_push(pushed, tmp_path):
    repo = pushed.repos["dataset", "me/made"]
    assert "data/chunk-000/file-001.parquet" in repo.files()
    shorter = made.make(tmp_path / "b", [3], FEATURES)
    shorter.push_to_hub(push_videos=False)
    now = repo.files("v3.0")
    assert "data/chunk-000/file-001.parquet" not in now and "README.md" in now
    assert "videos/observation.images.top/chunk-000/file-001.mp4" in now  # they were not part of this push


def test_frames_that_wait_for_their_episode_stop_a_push(hub, tmp_path):
    dataset = LeRobotDataset.create("me/made", 10, made.NUMBERS, root=tmp_path / "a")
    dataset.add_frame(made.frame(dataset.features, 0, 0))
    with pytest.raises(DatasetError, match=r"save_episode\(\) or clear_episode\(\)"):
        dataset.push_to_hub()
    assert not hub.requests


def test_a_part_of_a_dataset_is_not_pushed(pushed):
    part = LeRobotDataset("me/made", episodes=[1])
    before = dict(pushed.repos["dataset", "me/made"].branches)
    with pytest.raises(DatasetError, match=r"lacks 2 files of the dataset, such as data/.*file-000.parquet"):
        part.push_to_hub()
    assert pushed.repos["dataset", "me/made"].branches == before


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


def test_videos_are_only_fetched_when_wanted(pushed):
    pushed.requests.clear()
    LeRobotDataset("me/made", download_videos=False)
    assert not any("/videos/" in line for line in pushed.requests if line.startswith("GET"))
    assert sum("/data/" in line for line in pushed.requests if line.startswith("GET")) == 2


def test_a_revision_is_read_as_it_was(pushed, tmp_path):
    repo = pushed.repos["dataset", "me/made"]
    old = repo.branches["main"]
    LeRobotDataset("me/made", root=tmp_path / "a").push_to_hub(branch="later")
    shorter = made.make(tmp_path / "b", [2], FEATURES)
    shorter.push_to_hub(tag_version=False)
    assert LeRobotDataset("me/made", revision="main").meta.total_episodes == 1
    for revision in (old, "later", None):
        made.check(LeRobotDataset("me/made", revision=revision), LENGTHS)


def test_a_folder_that_was_filled_in_part_is_filled_further(pushed, tmp_path):
    LeRobotDataset("me/made", root=tmp_path / "new", episodes=[0], download_videos=False)
    pushed.requests.clear()
    made.check(LeRobotDataset("me/made", root=tmp_path / "new"), LENGTHS)
    got = [line for line in pushed.requests if line.startswith("GET") and "/resolve/" in line]
    assert sorted(line.rpartition("/")[2] for line in got) == [
        "file-000.mp4",
        "file-001.mp4",
        "file-001.parquet",
    ]


@pytest.mark.parametrize("is_home", [False, True])
def test_a_broken_folder_is_not_looked_up_on_the_hub(pushed, tmp_path, is_home):
    folder = tmp_path / ("hf/lerobot/me/made" if is_home else "a")
    if is_home:
        shutil.copytree(tmp_path / "a", folder)
    (folder / "meta/info.json").unlink()
    pushed.requests.clear()
    root = None if is_home else folder
    with pytest.raises(DatasetError) as error:
        LeRobotDataset("me/made", root=root)
    assert f"{folder} holds meta/ and data/ and videos/ but no meta/info.json" in str(error.value)
    assert f"lerobot-doctor {folder}" in str(error.value) and "force_cache_sync=True" in str(error.value)
    assert not pushed.requests
    made.check(LeRobotDataset("me/made", root=root, force_cache_sync=True), LENGTHS)


@pytest.mark.parametrize("name", ["v21", "v20"])
def test_an_older_dataset_of_the_hub_is_read_as_it_is(hub, tmp_path, monkeypatch, caplog, name):
    source = made.make(tmp_path / "source", LENGTHS, FEATURES)
    folder = getattr(layouts, name)(source, tmp_path / "old")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    repo = hub.add("dataset", "me/old", files)
    version = {"v21": "v2.1", "v20": "v2.0"}[name]
    repo.tags |= {"v1.6": repo.branches["main"], version: repo.branches["main"]}
    with caplog.at_level("INFO"):
        dataset = LeRobotDataset("me/old", episodes=[1])
    said = [record.message for record in caplog.records if "on the Hub" in record.message]
    assert said == [f"me/old has no v3.0 on the Hub; its {version} is read as it is."]
    assert [item["note"] for item in dataset] == [f"episode 1 frame {k}" for k in range(4)]
    got = [line for line in hub.requests if line.startswith("GET") and "episode_0" in line]
    assert len(got) == 2 and all("episode_000001" in line for line in got)
    layouts.check(LeRobotDataset("me/old"), LENGTHS)
    with pytest.raises(DatasetError, match="--operation.type=convert"):
        LeRobotDataset("me/old").push_to_hub()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    layouts.check(LeRobotDataset("me/old"), LENGTHS)
    assert not hub.requests


def test_shards_of_the_hub_are_read(hub, tmp_path):
    source = made.make(tmp_path / "source", LENGTHS, FEATURES)
    folder = layouts.shards(source, tmp_path / "old", data=[[0], [1]], videos=[[0, 1]])
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    hub.add("dataset", "me/old", files)
    layouts.check(LeRobotDataset("me/old", revision="main"), LENGTHS)


def test_an_older_dataset_of_the_hub_is_converted_and_published(hub, tmp_path):
    source = made.make(tmp_path / "source", LENGTHS, FEATURES)
    folder = layouts.v21(source, tmp_path / "old")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    repo = hub.add("dataset", "me/old", files)
    repo.tags["v2.1"] = repo.branches["main"]
    dataset = convert_dataset("me/old", push_to_hub=True)
    assert dataset.root == tmp_path / "hf/lerobot/me/old" and repo.files("v2.1") == files
    now = repo.files("v3.0")
    assert repo.files() == now and not any("episode_0" in name or name.endswith("jsonl") for name in now)
    layouts.check(LeRobotDataset("me/old"), LENGTHS)
    layouts.check(LeRobotDataset("me/old", root=tmp_path / "fresh"), LENGTHS)
    again = convert_dataset("me/old", force_conversion=True)
    assert again.root == dataset.root and (tmp_path / "hf/lerobot/me/old_old/meta/info.json").is_file()
    layouts.check(again, LENGTHS)


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


def test_a_snapshot_is_read_when_the_hub_does_not_answer(pushed, monkeypatch, caplog):
    LeRobotDataset("me/made")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    made.check(LeRobotDataset("me/made"), LENGTHS)
    said = [record.message for record in caplog.records if "on this machine is read" in record.message]
    assert len(said) == 1 and "127.0.0.1:9" in said[0] and "\n" not in said[0]


def test_a_missing_dataset_names_every_place(hub, tmp_path, monkeypatch):
    with pytest.raises(DatasetError) as error:
        LeRobotDataset("me/none")
    for words in (str(tmp_path / "hf/lerobot/me/none"), str(tmp_path / "hf/lerobot/hub"), hub.url, "404"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE is set"):
        LeRobotDataset("me/none")
    with pytest.raises(DatasetError, match="nowhere"):
        LeRobotDataset("me/none", root=tmp_path / "nowhere")
    assert not hub.requests


def test_an_unreachable_hub_is_said(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match="http://127.0.0.1:9 and dataset 'me/none'") as error:
        LeRobotDataset("me/none")
    assert "\n" not in str(error.value)


def test_missing_files_of_a_folder_are_named(pushed, tmp_path):
    shutil.rmtree(tmp_path / "a/videos")
    with pytest.raises(DatasetError, match=r"2 files of dataset 'me/made' are missing(.|\n)*file-001.mp4"):
        LeRobotDataset("me/made", root=tmp_path / "a")
    made.check(LeRobotDataset("me/made", root=tmp_path / "a", force_cache_sync=True), LENGTHS)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["main", "v3.0"], "v3.0"),
        (["v2.1", "v3.0.0"], "v3.0.0"),
        (["v3.0", "v3.1"], "v3.0"),
        (["v1.6", "v2.0", "v2.1", "v4.0"], "v2.1"),
    ],
)
def test_the_fitting_version_is_chosen(names, chosen):
    assert core_hub.choose_version(names, "v3.0") == chosen


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["main"], "revision='main'"),
        (["v1.6"], "older than v2.0"),
        (["v1.6", "v4.0"], "newer format"),
        (["v3.1"], "newer format"),
    ],
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
