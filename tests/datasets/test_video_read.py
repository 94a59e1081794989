"""Frames by number out of mp4 files: what decoding from start to end gives, in any order, by any encoder."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset, footage, video
from lerobot.datasets.join import Segment, join_videos
from lerobot.datasets.timeline import read_timeline
from lerobot.datasets.video import VideoPool
from tests.fakes import dataset as made

COUNT = 40
TOP = "observation.images.top"
ENCODERS = {
    "h264 with B-frames": ("h264", {"g": "12", "bf": "3"}, "yuv420p"),
    "h264 with open groups": (
        "h264",
        {"g": "8", "bf": "3", "x264-params": "open-gop=1:keyint=8:min-keyint=8"},
        "yuv420p",
    ),
    "h264 in order": ("h264", {"g": "4", "bf": "0"}, "yuv420p"),
    "h264 full colour": ("h264", {"g": "4"}, "yuv444p"),
    "hevc": ("hevc", {"g": "6", "x265-params": "log-level=none"}, "yuv420p"),
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}, "yuv420p"),
}


def write(
    path: Path, *, codec: str, options: dict, layout: str = "yuv420p", size=(64, 96), count=COUNT
) -> Path:
    """A file of textured frames, each unlike its neighbours."""
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (size[0], size[1], 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], layout
        for k in range(count):
            pixels = np.ascontiguousarray(texture[5 * k : 5 * k + size[0], 3 * k : 3 * k + size[1]])
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = k, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> np.ndarray:
    """(N, C, H, W) by decoding from start to end."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(pictures).transpose(0, 3, 1, 2)


def read(pool: VideoPool, path: Path, numbers: list[int], size=(64, 96)) -> dict[int, np.ndarray]:
    wanted = {number: np.zeros((3, *size), np.uint8) for number in numbers}
    pool.read(path, read_timeline(path), wanted)
    return wanted


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {
        name: write(folder / f"{k}.mp4", codec=codec, options=options, layout=layout)
        for k, (name, (codec, options, layout)) in enumerate(ENCODERS.items())
    }


@pytest.mark.parametrize("name", ENCODERS)
def test_any_order_gives_the_frames_of_plain_decoding(files, name):
    path, pool = files[name], VideoPool()
    wanted, random = decode_all(path), np.random.default_rng(1)
    orders = [[k] for k in random.integers(0, COUNT, 12).tolist()]
    orders += [[COUNT - 1], [0], list(range(COUNT)), [3, 4], [4, 3, 20], [0, COUNT - 1]]
    orders += [random.integers(0, COUNT, 5).tolist() for _ in range(5)]
    for numbers in orders:
        for number, picture in read(pool, path, numbers).items():
            assert np.array_equal(picture, wanted[number]), (numbers, number)


def test_a_group_is_decoded_once(files):
    pool = VideoPool()
    read(pool, files["h264 in order"], [6, 5, 7, 4])
    assert pool.num_decoded == 4
    read(pool, files["h264 in order"], [8, 30])  # goes on into the next group, then seeks to frame 28
    assert pool.num_decoded == 4 + 1 + 3
    read(pool, files["h264 in order"], [31])
    assert pool.num_decoded == 9


def test_reading_on_needs_no_seeking(files, monkeypatch):
    seeks = []
    monkeypatch.setattr(
        video.VideoReader,
        "_seek",
        lambda self, key, seek=video.VideoReader._seek: (seeks.append(key), seek(self, key)),
    )
    pool = VideoPool()
    for start in range(0, COUNT, 4):
        read(pool, files["av1"], [*range(start, start + 4)])
    assert seeks == [0] and pool.num_decoded == COUNT


@pytest.mark.parametrize("size", [(64, 96), (48, 100), (34, 66), (36, 40), (50, 128)])
def test_planes_are_used_only_where_they_are_exact(tmp_path, size):
    path = write(tmp_path / "a.mp4", codec="h264", options={"g": "4"}, size=size, count=6)
    wanted = decode_all(path)
    for number, picture in read(VideoPool(), path, list(range(6)), size).items():
        assert np.array_equal(picture, wanted[number])
    kinds = {kind[1:3]: exact for kind, exact in video._is_exact.items() if kind[0] == "yuv420p"}
    assert size[::-1] in kinds and (size[1] % 16 == 0 or not kinds[size[::-1]])


def test_decoders_stay_open_within_a_budget(files, monkeypatch):
    paths = list(files.values())
    one = video.VideoReader(paths[0], read_timeline(paths[0])).num_bytes
    assert one > 2**20
    pool = VideoPool(limit=2 * one + 1000)
    for path in paths[:4]:
        read(pool, path, [0])
    assert [path for path, _ in pool._idle] == paths[2:4]
    monkeypatch.setenv(video.CACHE_SIZE_VARIABLE, "1")
    pool = VideoPool()
    for path in paths[:3]:
        read(pool, path, [0])
    assert [path for path, _ in pool._idle] == [paths[2]]
    monkeypatch.setenv(video.CACHE_SIZE_VARIABLE, "none")
    assert VideoPool().limit == VideoPool().size == video.UNLIMITED
    monkeypatch.setenv(video.CACHE_SIZE_VARIABLE, "many")
    with pytest.raises(DatasetError, match="expected a whole number, 'none' or '-1'"):
        VideoPool()


def test_pictures_of_another_size_are_named(files):
    with pytest.raises(DatasetError, match=r"pictures of 64 x 96, meta/info.json declares 60 x 96"):
        read(VideoPool(), files["hevc"], [3], size=(60, 96))


def test_a_file_that_was_cut_is_named(files, tmp_path):
    whole = files["av1"]
    table = read_timeline(whole)
    short = tmp_path / "a.mp4"
    short.write_bytes(whole.read_bytes())
    with short.open("r+b") as file:  # the frames' bytes are gone, the table that says where they are is not
        file.seek(2000)
        file.write(bytes(6000))
    with pytest.raises(DatasetError, match=r"a\.mp4"):
        for k in range(COUNT):
            VideoPool().read(short, table, {k: np.zeros((3, 64, 96), np.uint8)})


# --------------------------------------------------------------------------------------- of a dataset
@pytest.fixture
def root(tmp_path):
    made.make(tmp_path / "made", [6, 4, 7], {**made.NUMBERS, **made.VIDEO})
    return tmp_path / "made"


def open_(root, **how) -> LeRobotDataset:
    return LeRobotDataset("me/made", root=root, **how)


def test_repeated_items_are_decoded_once(root):
    dataset = open_(root)
    batch = dataset.batch([3, 12, 3, 3, 12])
    assert dataset.reader.videos.num_decoded <= 3 + 12  # each at most from the file's beginning
    for k, item in enumerate([3, 12, 3, 3, 12]):
        assert torch.equal(batch[TOP][k], dataset[item][TOP])


def test_timelines_are_read_once(root, monkeypatch):
    reads = []
    read_once = footage.read_timeline
    monkeypatch.setattr(footage, "read_timeline", lambda path: (reads.append(path), read_once(path))[1])
    first = open_(root)
    assert len(reads) == 1
    again = open_(root)
    assert len(reads) == 1 and torch.equal(first[9][TOP], again[9][TOP])
    pickle.loads(pickle.dumps(again))[16]
    (path,) = (root / "videos").glob("*/*/*.mp4")
    path.touch()
    made.check(open_(root), [6, 4, 7])
    assert len(reads) == 2


def _video(root) -> Path:
    return root / f"videos/{TOP}/chunk-000/file-000.mp4"


def test_frames_off_the_beat_are_found_at_opening(root):
    with av.open(str(_video(root))) as given, av.open(str(root / "late.mp4"), "w") as taken:
        stream = taken.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is None:
                continue
            if packet.pts * packet.time_base >= Fraction(8, 10):  # from the third frame of episode 1 on
                late = packet.duration * 3 // 10
                packet.pts, packet.dts = packet.pts + late, packet.dts + late
            packet.stream = stream
            taken.mux(packet)
    (root / "late.mp4").replace(_video(root))
    with pytest.raises(
        DatasetError,
        match=r"frame 8 is at 0.8[23]\d+ s, expected 0.800000 s within 0.0001 s \(episode 1, frame_index 2",
    ) as error:
        open_(root)
    assert str(_video(root)) in str(error.value) and "lerobot-doctor" in str(error.value)
    assert "tolerance_s" in str(error.value) and "(2 episodes are like this.)" in str(error.value)
    assert len(open_(root, episodes=[0])) == 6
    assert int(open_(root, tolerance_s=0.05)[16]["index"]) == 16


def test_episodes_are_found_by_their_time(root, tmp_path):
    """A gap between episodes, as files joined by their durations have, moves times but no frame is lost."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [item[TOP] for item in open_(root)]
    with av.open(str(_video(root))) as given, av.open(str(tmp_path / "gap.mp4"), "w") as taken:
        stream = taken.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                if packet.pts * packet.time_base > Fraction(95, 100):
                    packet.pts += packet.duration // 2
                    packet.dts += packet.duration // 2
                packet.stream = stream
                taken.mux(packet)
    (tmp_path / "gap.mp4").replace(_video(root))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    name = f"videos/{TOP}/from_timestamp"
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, pa.array([0.0, 0.6, 1.05])), path)
    dataset = open_(root)
    assert all(torch.equal(dataset[k][TOP], picture) for k, picture in enumerate(wanted))


def test_videos_that_are_not_there_are_looked_at_when_needed(root, tmp_path):
    held = tmp_path / "held.mp4"
    _video(root).replace(held)
    dataset = open_(root, download_videos=False)
    with pytest.raises(DatasetError, match=r"file-000.mp4 is missing"):
        dataset[0]
    held.replace(_video(root))
    made.check(dataset, [6, 4, 7])


def test_a_video_that_is_too_short_is_found_when_it_is_needed(root, tmp_path):
    whole = tmp_path / "whole.mp4"
    _video(root).replace(whole)
    dataset = open_(root, download_videos=False)
    join_videos([Segment(path=whole, start=0, length=10)], _video(root), fps=10)
    dataset[9]
    with pytest.raises(DatasetError, match=r"file-000.mp4 has no frame at 1.\d00 s, where episode 2"):
        dataset[12]


def test_files_of_several_episodes_and_cameras_are_read_by_threads(tmp_path):
    features = {**made.NUMBERS, **made.VIDEO, "observation.images.side": made.VIDEO[TOP]}
    dataset = LeRobotDataset.create(
        "me/made", 10, features, root=tmp_path / "made", rgb_encoder=made.FAST, video_files_size_in_mb=0.004
    )
    lengths = [5, 9, 3, 8]
    for episode, length in enumerate(lengths):
        for k in range(length):
            frame = made.frame(dataset.features, episode, k)
            dataset.add_frame(frame | {"observation.images.side": made.picture(episode + 4, k)})
        dataset.save_episode()
    dataset.finalize()
    assert len({dataset.meta.get_video_file_path(e, TOP) for e in range(4)}) > 1
    opened = open_(tmp_path / "made", return_uint8=True)
    whole = opened.batch(range(len(opened)))
    order = np.random.default_rng(0).integers(0, len(opened), (30, 6))
    barrier = threading.Barrier(4, timeout=30)

    def take(part):
        barrier.wait()
        return [opened.batch(items) for items in part]

    with ThreadPoolExecutor(4) as threads:
        for part, batches in zip(
            np.split(order[:28], 4), threads.map(take, np.split(order[:28], 4)), strict=True
        ):
            for items, batch in zip(part, batches, strict=True):
                for name in (TOP, "observation.images.side"):
                    assert torch.equal(batch[name], whole[name][items])
