"""Streaming over HTTP on this machine: which bytes are fetched, and what happens when the network fails."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.core.hub import HubError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.stream import ranges
from lerobot.datasets.streaming import StreamingLeRobotDataset
from tests.fakes import dataset as made

HEIGHT, WIDTH = 96, 128
NUM_EPISODES, LENGTH = 16, 12
CAMERA = {"shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
FEATURES = {
    "action": {"dtype": "float32", "shape": (3,), "names": None},
    "observation.images.top": {"dtype": "video", **CAMERA},
    "observation.images.wrist": {"dtype": "image", **CAMERA},
}
VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One large video file and one large data file: noise does not compress."""
    root, noise = tmp_path_factory.mktemp("big") / "a", np.random.default_rng(0)
    dataset = LeRobotDataset.create("me/big", 10, FEATURES, root=root, rgb_encoder=made.FAST)
    for episode in range(NUM_EPISODES):
        for k in range(LENGTH):
            pixels = noise.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
            dataset.add_frame(
                {
                    "action": np.array([episode, k, 0], np.float32),
                    "observation.images.top": pixels[0],
                    "observation.images.wrist": pixels[1],
                    "task": f"task {episode % 3}",
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture
def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def filled(files, hub, monkeypatch):
    """The Hub with the dataset on it; small blocks and short waits."""
    monkeypatch.setattr(ranges, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(ranges, "FIRST_WAIT_S", 0.01)
    repo = hub.add("dataset", "me/big", files)
    repo.tags["v3.0"] = repo.branches["main"]
    return hub


def compare(items, folder, num_items: int, **options) -> None:
    wanted = LeRobotDataset("me/big", root=folder, **options)
    assert len(items) == num_items
    for item in items:
        one = wanted[int(item["index"])]
        for name in one:
            same = (
                torch.equal(item[name], one[name]) if torch.is_tensor(one[name]) else item[name] == one[name]
            )
            assert same, name


def test_a_few_episodes_fetch_a_fraction(filled, folder, files):
    streamed = StreamingLeRobotDataset("me/big", episodes=[3, 11])
    assert all(name.startswith("meta/") for name in filled.served)
    compare(list(streamed), folder, 2 * LENGTH)
    for name in (VIDEO, DATA):
        share = filled.served[name] / len(files[name])
        assert 2 / NUM_EPISODES < share < 2 / NUM_EPISODES + 0.12, (name, share)
    assert streamed.fetched_bytes == filled.served[VIDEO] + filled.served[DATA]
    assert not list((streamed.root).rglob("*.mp4")) and not (streamed.root / "data").exists()


def test_the_first_items_come_before_whole_files(filled, files):
    streamed = StreamingLeRobotDataset("me/big", buffer_size=4, max_num_shards=2, num_threads=1)
    next(iter(streamed))
    assert max(filled.served[name] / len(files[name]) for name in (VIDEO, DATA)) < 0.5


def test_an_epoch_fetches_every_byte_about_once(filled, folder, files):
    deltas = {"observation.images.top": [-0.2, 0.0], "observation.images.wrist": [0.0, 0.1]}
    streamed = StreamingLeRobotDataset("me/big", delta_timestamps=deltas)
    compare(list(streamed), folder, NUM_EPISODES * LENGTH, delta_timestamps=deltas)
    assert all(filled.served[name] < 1.05 * len(files[name]) for name in (VIDEO, DATA))


def test_files_that_are_here_are_not_asked_for(filled, folder):
    LeRobotDataset("me/big")
    filled.served.clear()
    compare(list(StreamingLeRobotDataset("me/big", episodes=[1])), folder, LENGTH)
    assert not {VIDEO, DATA} & set(filled.served)


def test_without_streaming_files_are_downloaded_first(filled, folder):
    streamed = StreamingLeRobotDataset("me/big", episodes=[1], streaming=False)
    assert (streamed.root / VIDEO).is_file() and filled.ranges == 0
    compare(list(streamed), folder, LENGTH)


@pytest.mark.parametrize("fault", [503, 429, 500, "cut"])
def test_a_failing_network_is_asked_again(filled, folder, fault):
    filled.faults = dict.fromkeys([2, 3, 7, 12, 13, 14], fault)
    compare(list(StreamingLeRobotDataset("me/big", episodes=[2, 5], num_threads=2)), folder, 2 * LENGTH)
    assert filled.ranges > 14


def test_addresses_elsewhere_are_used_until_they_expire(filled, folder):
    streamed = StreamingLeRobotDataset("me/big", episodes=[2, 5])
    filled.tickets = 5
    compare(list(streamed), folder, 2 * LENGTH)
    asked = sum(line.startswith("GET") and "/resolve/" in line for line in filled.requests)
    assert max(filled.used.values()) > 5 and asked < 1.8 * filled.ranges  # not one redirection per request


@pytest.mark.parametrize("first", [1, 2, 9])
def test_a_dead_network_is_said(filled, first):
    filled.faults = dict.fromkeys(range(first, 1000), "cut")
    with pytest.raises(
        HubError, match=rf"file-000.\w+ of dataset 'me/big' was not read from {filled.url} in 6"
    ):
        list(StreamingLeRobotDataset("me/big"))
    filled.faults = {}


def test_the_commit_stays_the_same(filled, folder, files):
    streamed = StreamingLeRobotDataset("me/big", episodes=[2])
    filled.repos["dataset", "me/big"].commit({**files, VIDEO: b"something else", DATA: b"too"}, "main")
    filled.repos["dataset", "me/big"].tags["v3.0"] = filled.repos["dataset", "me/big"].branches["main"]
    compare(list(streamed), folder, LENGTH)


def test_meta_can_go_to_a_folder(filled, folder, files, tmp_path):
    for revision in ("main", None):
        root = tmp_path / str(revision)
        streamed = StreamingLeRobotDataset("me/big", root=root, episodes=[2], revision=revision)
        filled.repos["dataset", "me/big"].commit({**files, VIDEO: b"something else"}, "other")
        compare(list(streamed), folder, LENGTH)
        assert {path.name for path in root.iterdir() if not path.name.startswith(".")} == {"meta"}
    for options in ({}, {"force_cache_sync": True}):  # the folder knows where its files are
        again = StreamingLeRobotDataset("me/big", root=root, episodes=[0], **options)
        compare(list(again), folder, LENGTH)


def test_a_file_that_the_hub_lacks_is_named(filled, files):
    repo = filled.repos["dataset", "me/big"]
    repo.commit({name: data for name, data in files.items() if name != VIDEO}, "main")
    with pytest.raises(HubError, match=rf"{VIDEO} of dataset 'me/big': it answered 404"):
        list(StreamingLeRobotDataset("me/big", revision="main"))


def test_offline_is_said(filled, monkeypatch):
    streamed = StreamingLeRobotDataset("me/big")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        list(streamed)


def test_a_server_without_ranges_is_refused(filled, monkeypatch):
    monkeypatch.setattr(ranges.HubRanges, "_headers", lambda self, *what: {})
    with pytest.raises(HubError, match=r"sends .* whole(.|\n)*streaming=False"):
        list(StreamingLeRobotDataset("me/big"))


def test_a_remote_file_reads_like_a_file(filled, files):
    source = ranges.RangeSource(StreamingLeRobotDataset("me/big").meta.location, cache_bytes=20_000)
    remote, local = source.open(ranges.Path(VIDEO)), io.BytesIO(files[VIDEO])
    rng = np.random.default_rng(1)
    for _ in range(200):
        how = int(rng.integers(4))
        if how < 3:
            offset = int(rng.integers(len(files[VIDEO]))) if how == 0 else int(-rng.integers(2000))
            if how == 1:
                offset = max(offset, -local.tell())
            assert remote.seek(offset, how) == local.seek(offset, how)
        size = int(rng.integers(30_000))
        assert remote.read(size) == local.read(size) and remote.tell() == local.tell()
    remote.seek(-100_000, io.SEEK_END)
    assert remote.read() == files[VIDEO][-100_000:] and remote.read(5) == b""
    assert source.cache.size <= 20_000


def test_many_readers_fetch_a_block_once(filled, files):
    from concurrent.futures import ThreadPoolExecutor

    source = ranges.RangeSource(StreamingLeRobotDataset("me/big").meta.location)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: source.open(ranges.Path(DATA)).read(), range(8)))
    assert set(read) == {files[DATA]}
    assert filled.served[DATA] <= len(files[DATA]) + 8  # and a byte each to ask for the size


def test_the_table_of_rows_is_read_through_ranges(filled, files):
    source = ranges.RangeSource(StreamingLeRobotDataset("me/big").meta.location)
    table = pq.ParquetFile(source.open(ranges.Path(DATA))).read_row_group(3, columns=["action"])
    assert table.column("action").to_pylist()[2] == [3, 2, 0]
    assert filled.served[DATA] < len(files[DATA]) / 4
