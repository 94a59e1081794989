"""Streamed items against those of `LeRobotDataset`; parts, epochs, mixing, memory and resumption."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.config import RGBEncoderConfig
from lerobot.datasets.schema import DEFAULT_FEATURES
from lerobot.datasets.stream import reel
from lerobot.datasets.stream.shards import Segment, ShuffleBuffer, part_of
from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset
from tests.fakes import dataset as made
from tests.fakes import layouts

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets"
LENGTHS = [5, 1, 9, 4, 7, 3]
EVERYTHING = {**made.NUMBERS, **made.VIDEO, **made.IMAGE, **made.DEPTH}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind of column; two videos per camera, several data files."""
    root = tmp_path_factory.mktemp("made") / "a"
    made.make(root, LENGTHS, EVERYTHING, video_files_size_in_mb=0.003, data_files_size_in_mb=0.02)
    return root


@pytest.fixture(scope="module")
def numbers_only(tmp_path_factory):
    """Many short episodes without cameras."""
    root = tmp_path_factory.mktemp("numbers") / "a"
    lengths = [3 + 2 * (e % 4) for e in range(24)]
    made.make(root, lengths, {"action": made.NUMBERS["action"]})
    return root


def windows(dataset) -> dict:
    cameras = dict.fromkeys(dataset.meta.camera_keys, [-0.3, -0.1, 0.0, 0.2])
    return {**cameras, "action": [0.0, 0.1, 0.2, 0.8], "timestamp": [-0.1]}


def same(item, wanted) -> None:
    assert list(item) == list(wanted)
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert item[name].dtype == value.dtype, name
            assert torch.equal(item[name], value), name
        else:
            assert item[name] == value, name


def numbers(items) -> list[int]:
    return [int(item["index"]) for item in items]


def compare(root, num_items=None, **options) -> None:
    """Every streamed item must be the one that the map-style class has under its number."""
    wanted = LeRobotDataset("me/made", root=root, **options)
    streamed = StreamingLeRobotDataset("me/made", root=root, buffer_size=7, max_num_shards=3, **options)
    items = list(streamed)
    assert len(items) == len(wanted) == len(streamed) == streamed.num_frames
    places = wanted.absolute_to_relative_idx
    for item in items:
        number = int(item["index"])
        same(item, wanted[number if places is None else places[number]])
    assert sorted(numbers(items)) == sorted(numbers(wanted[:]))
    assert num_items is None or len(items) == num_items


# ------------------------------------------------------------------------------------------------ items
@pytest.mark.parametrize("name", ["v30_image", "v30_depth", "v30_rollover"])
@pytest.mark.parametrize("has_windows", [False, True])
def test_items_of_datasets_by_others(name, has_windows):
    root = GOLDEN / name / "dataset"
    deltas = windows(LeRobotDataset("golden/it", root=root)) if has_windows else None
    compare(root, delta_timestamps=deltas)


@pytest.mark.parametrize(
    "layout",
    [
        layouts.v21,
        layouts.v20,
        lambda source, out: layouts.shards(source, out, data=[[0, 1, 2], [3]]),
        lambda source, out: layouts.shards(
            source, out, data=[[0, 1], [2, 3]], videos=[[0], [1, 2, 3]], without=tuple(DEFAULT_FEATURES)
        ),
    ],
    ids=["v2.1", "v2.0", "shards", "bare"],
)
def test_items_of_older_layouts(tmp_path, layout):
    source = made.make(tmp_path / "new", [4, 6, 3, 5], EVERYTHING)
    compare(layout(source, tmp_path / "old"))


@pytest.mark.parametrize(
    "options",
    [
        {"return_uint8": True},
        {"depth_output_unit": "m"},
        {"image_transforms": lambda pictures: 1 - pictures[..., ::2]},
        {"episodes": [4, 0, 4]},
        {"tasks": [made.TASKS[1]]},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("has_windows", [False, True])
def test_items_of_every_kind(folder, options, has_windows):
    meta = LeRobotDataset("me/made", root=folder).meta
    assert len({meta.get_video_file_path(e, "observation.images.top") for e in range(6)}) > 1
    deltas = windows(LeRobotDataset("me/made", root=folder)) if has_windows else None
    compare(folder, delta_timestamps=deltas, **options)


@pytest.mark.parametrize(
    "encoder",
    [
        {"vcodec": "h264", "g": 250, "preset": "medium"},
        {"vcodec": "h264", "g": 5, "preset": "medium", "extra_options": {"x264-params": "open-gop=1"}},
        {"vcodec": "hevc", "g": 4, "preset": "fast", "extra_options": {"x265-params": "log-level=none"}},
        {"vcodec": "libsvtav1", "g": 2},
    ],
    ids=["long groups", "open groups", "hevc", "av1"],
)
def test_pictures_stored_out_of_order(tmp_path, encoder):
    shape = {"shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    features = {"observation.images.top": {"dtype": "video", **shape}}
    dataset = LeRobotDataset.create(
        "me/made", 10, features, root=tmp_path / "a", rgb_encoder=RGBEncoderConfig(**encoder)
    )
    noise = np.random.default_rng(0)
    for length in (17, 3, 11):
        scene = noise.integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        for k in range(length):
            dataset.add_frame({"observation.images.top": np.roll(scene, 2 * k, 1), "task": "move"})
        dataset.save_episode()
    dataset.finalize()
    compare(tmp_path / "a")
    compare(tmp_path / "a", delta_timestamps={"observation.images.top": [-0.5, 0.0]}, episodes=[0, 2])
    parts = [
        item
        for rank in range(4)
        for item in StreamingLeRobotDataset("me/made", root=tmp_path / "a", rank=rank, num_ranks=4)
    ]
    wanted = LeRobotDataset("me/made", root=tmp_path / "a")
    for item in parts:
        same(item, wanted[int(item["index"])])


def test_one_large_row_group(folder, tmp_path):
    """As older releases wrote: the pictures of a file are read in order, by one reader."""
    root = tmp_path / "old"
    made.make(root, LENGTHS, {**made.NUMBERS, **made.IMAGE})
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path)
    assert pq.read_metadata(path).num_row_groups == 1
    streamed = StreamingLeRobotDataset("me/made", root=root)
    assert len(streamed._runs(0, 0, 1)) == 1
    for options in (
        {},
        {"episodes": [2, 5]},
        {"delta_timestamps": {"observation.images.wrist": [-0.2, 0.1]}},
    ):
        compare(root, **options)
    parts = [list(StreamingLeRobotDataset("me/made", root=root, rank=r, num_ranks=3)) for r in range(3)]
    assert sorted(numbers(sum(parts, []))) == list(range(sum(LENGTHS)))


def test_in_order_without_shuffling(folder):
    streamed = StreamingLeRobotDataset("me/made", root=folder, shuffle=False)
    assert numbers(streamed) == numbers(streamed) == list(range(sum(LENGTHS)))


def test_batches_are_those_of_the_map_style_class(folder):
    wanted = LeRobotDataset("me/made", root=folder, return_uint8=True)
    streamed = StreamingLeRobotDataset("me/made", root=folder, return_uint8=True)
    sizes = []
    for batch in streamed.batches(8):
        same(batch, wanted.batch(batch["index"].tolist()))
        sizes.append(len(batch["index"]))
    assert sizes == [8, 8, 8, 5]


def test_last_frames_are_left_out_but_seen(folder):
    deltas = {"action": [0.0, 0.1, 0.2]}
    streamed = StreamingLeRobotDataset("me/made", root=folder, drop_n_last_frames=2, delta_timestamps=deltas)
    wanted = LeRobotDataset("me/made", root=folder, delta_timestamps=deltas)
    items = list(streamed)
    assert len(items) == len(streamed) == sum(max(n - 2, 0) for n in LENGTHS)
    for item in items:
        same(item, wanted[int(item["index"])])
        assert not item["action_is_pad"].any()


# ------------------------------------------------------------------------------------------------ parts
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_ranks_and_workers_share_without_overlap_or_loss(numbers_only, num_ranks, num_workers):
    seen, total = [], LeRobotDataset("me/made", root=numbers_only).num_frames
    for rank in range(num_ranks):
        streamed = StreamingLeRobotDataset(
            "me/made", root=numbers_only, buffer_size=20, rank=rank, num_ranks=num_ranks, num_threads=1
        )
        got = numbers(DataLoader(streamed, batch_size=None, num_workers=num_workers))
        assert len(got) == len(streamed) and abs(len(got) - total / num_ranks) <= 1
        seen += got
    assert sorted(seen) == list(range(total))


def test_more_parts_than_episodes_and_than_frames():
    runs = [(Segment(0, 0, 2),), (Segment(1, 0, 1), Segment(2, 3, 5))]
    for num_parts in (1, 2, 4, 9):
        parts = [part_of(runs, part, num_parts) for part in range(num_parts)]
        frames = [
            (s.episode, k) for part in parts for run in part for s in run for k in range(s.start, s.stop)
        ]
        assert frames == [(0, 0), (0, 1), (1, 0), (2, 3), (2, 4)]


def test_worker_processes_read_cameras(folder):
    streamed = StreamingLeRobotDataset("me/made", root=folder, num_threads=1)
    wanted = LeRobotDataset("me/made", root=folder)
    numbers(streamed)  # files are open before the workers fork
    got = []
    for batch in DataLoader(streamed, batch_size=4, num_workers=2):
        for at, number in enumerate(batch["index"].tolist()):
            got.append(number)
            for name in ("observation.images.top", "observation.images.depth", "observation.state"):
                assert torch.equal(batch[name][at], wanted[number][name])
    assert sorted(got) == list(range(len(wanted)))


def test_a_process_of_several_knows_its_part(numbers_only, monkeypatch):
    import torch.distributed as processes

    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 3)):
        monkeypatch.setattr(processes, name, lambda value=value: value)
    own = StreamingLeRobotDataset("me/made", root=numbers_only)
    given = StreamingLeRobotDataset("me/made", root=numbers_only, rank=1, num_ranks=3)
    assert (own.rank, own.num_ranks) == (1, 3) and numbers(own) == numbers(given)
    whole = StreamingLeRobotDataset("me/made", root=numbers_only, rank=0, num_ranks=1)
    assert len(list(whole)) == whole.num_frames


@pytest.mark.parametrize("options", [{"rank": 2, "num_ranks": 2}, {"rank": 0}, {"num_ranks": 2}])
def test_impossible_parts_are_refused(numbers_only, options):
    with pytest.raises(DatasetError, match="0 <= rank < num_ranks"):
        StreamingLeRobotDataset("me/made", root=numbers_only, **options)


# ------------------------------------------------------------------------------------------------ order
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("is_persistent", [False, True])
def test_epochs_differ_and_can_be_repeated(numbers_only, num_workers, is_persistent):
    def epochs(count, **options):
        streamed = StreamingLeRobotDataset("me/made", root=numbers_only, **options)
        loader = DataLoader(
            streamed,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=is_persistent and num_workers > 0,
        )
        return [numbers(loader) for _ in range(count)], streamed, loader

    first, streamed, loader = epochs(3)
    again, _, _ = epochs(3)
    other, _, _ = epochs(1, seed=7)
    assert first == again and len({tuple(one) for one in first + other}) == 4
    streamed.set_epoch(1)
    assert numbers(loader) == first[1]


@pytest.mark.slow
def test_workers_agree_on_the_epoch_whatever_was_begun_before(numbers_only):
    streamed = StreamingLeRobotDataset("me/made", root=numbers_only, num_threads=1)
    total = list(range(streamed.num_frames))
    for num_workers, is_abandoned, context in (
        (2, True, None),
        (0, False, None),
        (3, True, None),
        (2, False, "spawn"),
        (3, False, None),
    ):
        loader = DataLoader(
            streamed, batch_size=None, num_workers=num_workers, multiprocessing_context=context
        )
        if is_abandoned:  # some workers may be ended before they begin
            next(iter(loader))
        else:
            assert sorted(numbers(loader)) == total


def test_a_generator_gives_the_seed(numbers_only):
    orders = [
        numbers(StreamingLeRobotDataset("me/made", root=numbers_only, rng=np.random.default_rng(seed)))
        for seed in (3, 3, 4)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_the_buffer_mixes_across_episodes():
    lengths, size = [100] * 40, 500
    order = ShuffleBuffer(lengths, num_open=16, size=size, rng=np.random.default_rng(0))
    given = [give for give, _ in order if give is not None]
    assert sorted(given) == [(run, k) for run in range(40) for k in range(100)]
    runs = np.array([run for run, _ in given])
    distinct = [len(set(runs[at : at + 32])) for at in range(0, 4000 - 32, 32)]
    assert np.mean(distinct) > 12  # of 32 items in a row; in order there would be one or two
    place = np.array([100 * run + k for run, k in given])
    assert np.abs(place - np.arange(4000)).mean() > 400


def test_the_buffer_holds_no_more_than_its_size(folder, monkeypatch):
    alive, most = [0], [0]

    class Counted(reel.Entry):
        def __init__(self, *what):
            super().__init__(*what)
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self):
            alive[0] -= 1

    monkeypatch.setattr(reel, "Entry", Counted)
    streamed = StreamingLeRobotDataset(
        "me/made",
        root=folder,
        buffer_size=6,
        max_num_shards=2,
        num_threads=1,
        delta_timestamps={"action": [0]},
    )
    assert len(list(streamed)) == sum(LENGTHS)
    # Per open run a chunk in use and one being made; two runs are begun before they are opened.
    assert 6 <= most[0] <= 6 + 2 * reel.CHUNK * (2 + 2) + 2
    assert alive[0] == 0


# ----------------------------------------------------------------------------------------------- resume
@pytest.mark.parametrize("position", [0, 1, 8, 20, 28, 29])
@pytest.mark.parametrize("shuffle", [True, False])
def test_it_goes_on_with_the_very_next_item(folder, position, shuffle):
    options = {"root": folder, "buffer_size": 9, "max_num_shards": 3, "shuffle": shuffle}
    whole = StreamingLeRobotDataset("me/made", **options)
    first, second = list(whole), list(whole)
    stopped = StreamingLeRobotDataset("me/made", **options)
    iterator = iter(stopped)
    given = [next(iterator) for _ in range(position)]
    state = stopped.state_dict()
    going_on = StreamingLeRobotDataset("me/made", **options)
    going_on.load_state_dict(state)
    assert going_on.state_dict() == state
    for got, wanted in ((given + list(going_on), first), (list(going_on), second)):
        assert numbers(got) == numbers(wanted)
        for item, one in zip(got, wanted, strict=True):
            same(item, one)


def test_a_state_of_another_order_is_refused(numbers_only):
    state = StreamingLeRobotDataset("me/made", root=numbers_only).state_dict()
    with pytest.raises(DatasetError, match="seed=42, here 1"):
        StreamingLeRobotDataset("me/made", root=numbers_only, seed=1).load_state_dict(state)
    other = StreamingLeRobotDataset("me/made", root=numbers_only, rank=1, num_ranks=2)
    other.load_state_dict(state)
    with pytest.raises(
        DatasetError, match=r"part 0 of 1, and this process reads part 1 of 2(.|\n)*set_epoch"
    ):
        next(iter(other))
    read = StreamingLeRobotDataset("me/made", root=numbers_only)
    numbers(DataLoader(read, batch_size=None, num_workers=1))
    with pytest.raises(DatasetError, match="DataLoader workers"):
        read.state_dict()


# ----------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episodes": [99]}, "episode 99 does not exist; 'me/made' has 6 episodes"),
        ({"episodes": []}, "empty"),
        ({"episodes": [0], "tasks": [made.TASKS[1]]}, "none of the 1 chosen episodes"),
        ({"delta_timestamps": {"actoin": [0]}}, "Did you mean 'action'"),
        ({"depth_output_unit": "cm"}, "'mm' or 'm'"),
        ({"repo_type": "bucket"}, "'dataset'"),
        ({"max_num_shards": 0}, "at least 1"),
        ({"buffer_size": -1}, "0 or more"),
    ],
)
def test_mistakes_are_named(folder, options, words):
    with pytest.raises(DatasetError, match=words):
        StreamingLeRobotDataset("me/made", root=folder, **options)


@pytest.fixture
def broken(folder, tmp_path):
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "broken"))


def test_a_missing_file_is_named_when_it_is_needed(broken):
    path = sorted((broken / "videos").rglob("file-001.mp4"))[0]
    path.unlink()
    assert len(list(StreamingLeRobotDataset("me/made", root=broken, episodes=[0])))
    with pytest.raises(DatasetError, match=r"file-001.mp4 is missing(.|\n)*force_cache_sync=True"):
        list(StreamingLeRobotDataset("me/made", root=broken))


def test_damaged_files_are_named(broken):
    video = sorted((broken / "videos/observation.images.top").rglob("*.mp4"))[0]
    video.write_bytes(video.read_bytes()[:200])
    with pytest.raises(DatasetError, match="file-000.mp4 is not a video"):
        list(StreamingLeRobotDataset("me/made", root=broken))
    data = sorted((broken / "data").rglob("*.parquet"))[0]
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(DatasetError, match="file-000.parquet is damaged"):
        list(StreamingLeRobotDataset("me/made", root=broken))


def test_rows_that_are_not_the_episodes_are_named(broken):
    path = sorted((broken / "data").rglob("*.parquet"))[0]
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(DatasetError, match=r"file-000.parquet holds 4 of the 5 frames"):
        list(StreamingLeRobotDataset("me/made", root=broken, episodes=[0]))
    times = table.column("timestamp").to_numpy() * 1.5
    at = table.column_names.index("timestamp")
    pq.write_table(table.set_column(at, table.schema.field(at), [times.astype(np.float32)]), path)
    with pytest.raises(DatasetError, match="out of step with fps=10"):
        list(StreamingLeRobotDataset("me/made", root=broken, episodes=[0]))
