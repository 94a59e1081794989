"""Videos through edits: kept pictures bit for bit the same whoever wrote them; nothing encoded unasked."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.config import RGBEncoderConfig
from lerobot.datasets.edit import (
    delete_episodes,
    encoding,
    merge_datasets,
    reencode_dataset,
    repack_dataset,
    split_dataset,
)
from lerobot.datasets.edit.delete import plan_delete
from lerobot.datasets.edit.target import new_target
from lerobot.datasets.join import Segment, begins_cleanly, join_videos, stored_order
from tests.fakes import dataset as made

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets"
TOP = "observation.images.top"
HEIGHT, WIDTH = 64, 96  # x265 with pictures out of order needs more room than the other fakes have


def pictures(dataset: LeRobotDataset, key: str, episode: int) -> list[bytes]:
    """The decoded planes of an episode's frames, as the file stores them."""
    row, path = dataset.meta.episodes[episode], dataset.root / dataset.meta.get_video_file_path(episode, key)
    start = round(row[f"videos/{key}/from_timestamp"] * dataset.fps)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]
    return frames[start : start + row["length"]]


def all_pictures(dataset: LeRobotDataset) -> dict:
    """(camera, episode) -> pictures."""
    keys, episodes = dataset.meta.video_keys, range(dataset.meta.total_episodes)
    return {(key, episode): pictures(dataset, key, episode) for key in keys for episode in episodes}


def assert_same(new: LeRobotDataset, old: dict, episodes: list[int]) -> None:
    """Episode k of `new` shows what episode episodes[k] showed."""
    assert new.meta.total_episodes == len(episodes)
    for (key, k), shown in all_pictures(new).items():
        assert shown == old[key, episodes[k]], (key, k)


@pytest.fixture(params=["v30_depth", "v30_rollover"])
def golden(request) -> LeRobotDataset:
    return LeRobotDataset(f"golden/{request.param}", root=GOLDEN / request.param / "dataset")


def test_what_the_reference_wrote_stays_bit_for_bit(golden, tmp_path):
    shown, total = all_pictures(golden), golden.meta.total_episodes
    for gone in range(total):
        kept = [episode for episode in range(total) if episode != gone]
        assert_same(delete_episodes(golden, [gone], tmp_path / f"without{gone}"), shown, kept)
    parts = split_dataset(
        golden, {"odd": [*range(1, total, 2)], "even": [*range(0, total, 2)]}, tmp_path / "s"
    )
    assert_same(parts["odd"], shown, [*range(1, total, 2)])
    assert_same(parts["even"], shown, [*range(0, total, 2)])
    merged = merge_datasets([parts["odd"], parts["even"]], "me/merged", tmp_path / "merged")
    assert_same(merged, shown, [*range(1, total, 2), *range(0, total, 2)])
    apart = merge_datasets(
        [parts["odd"], parts["even"]], "me/apart", tmp_path / "apart", concatenate_videos=False
    )
    assert_same(apart, shown, [*range(1, total, 2), *range(0, total, 2)])


@pytest.mark.parametrize("size", [0.01, 100])
def test_repacking_changes_files_and_no_picture(golden, tmp_path, size):
    packed = repack_dataset(
        golden, tmp_path / "packed", data_files_size_in_mb=size, video_files_size_in_mb=size
    )
    assert_same(packed, all_pictures(golden), [*range(golden.meta.total_episodes)])
    files = {
        packed.meta.get_video_file_path(e, k)
        for e in range(len(packed.meta.episodes))
        for k in packed.meta.video_keys
    }
    if size == 100:
        assert len(files) == len(packed.meta.video_keys)
        assert len(list(packed.root.glob("data/*/*"))) == 1
    assert packed.meta.video_files_size_in_mb == size
    assert all(np.array_equal(a["action"], b["action"]) for a, b in zip(packed, golden, strict=True))


def test_frames_of_a_joined_file_are_shown_on_the_beat(golden, tmp_path):
    new = delete_episodes(golden, [0], tmp_path / "new")
    for path in new.root.rglob("*.mp4"):
        order = stored_order(path)
        assert np.array_equal(order.pts[order.place] * order.time_base * 10, np.arange(len(order)))
        assert np.all(np.diff(order.dts) > 0) and np.all(order.dts <= order.pts)


def test_a_file_that_is_kept_whole_is_copied_byte_for_byte(tmp_path):
    golden = LeRobotDataset("golden/roll", root=GOLDEN / "v30_rollover" / "dataset")
    new = delete_episodes(golden, [golden.meta.total_episodes - 1], tmp_path / "new")
    key = "observation.images.a"
    old_files = [(golden.root / golden.meta.get_video_file_path(e, key)).read_bytes() for e in range(3)]
    assert [(new.root / new.meta.get_video_file_path(e, key)).read_bytes() for e in range(3)] == old_files


# ------------------------------------------------------------------------------------- files by others
LENGTHS = [6, 6, 8, 4]
OTHERS = {
    "long_h264": ("libx264", {"g": "250", "bf": "2", "crf": "10", "x264-params": "scenecut=0"}),
    "open_hevc": (
        "libx265",
        {"x265-params": "keyint=4:min-keyint=4:bframes=3:b-adapt=0:open-gop=1:scenecut=0:log-level=none"},
    ),
}


@pytest.fixture(params=OTHERS)
def foreign(request, tmp_path) -> LeRobotDataset:
    """A dataset whose one video was encoded in one go, so that episodes begin and end anywhere."""
    dataset = made.make(tmp_path / "foreign", LENGTHS)
    path = dataset.root / dataset.meta.get_video_file_path(0, TOP)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    codec, options = OTHERS[request.param]
    with av.open(str(path), "w", format="mp4") as target:
        stream = target.add_stream(codec, rate=Fraction(10), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for k, frame in enumerate(frames):
            frame = frame.reformat(width=WIDTH, height=HEIGHT)
            frame.pts, frame.time_base, frame.pict_type = k, Fraction(1, 10), 0
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    dataset = LeRobotDataset("me/foreign", root=tmp_path / "foreign")
    dataset.meta.features[TOP]["shape"] = (HEIGHT, WIDTH, 3)
    dataset.meta.features[TOP]["info"]["video.codec"] = "h264" if codec == "libx264" else "hevc"
    dataset.meta.features[TOP]["info"]["video.crf"] = 1
    dataset.meta.save_info()
    return dataset


def test_nothing_is_encoded_by_surprise(foreign, tmp_path):
    before = (foreign.root / foreign.meta.get_video_file_path(0, TOP)).read_bytes()
    with pytest.raises(
        DatasetError, match=r"episode \d of 'me/foreign', camera observation.images.top.*reencode=allowed"
    ):
        delete_episodes(foreign, [1], tmp_path / "new")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".new*"))
    assert (foreign.root / foreign.meta.get_video_file_path(0, TOP)).read_bytes() == before


def test_only_what_cannot_be_cut_is_encoded_when_allowed(foreign, tmp_path):
    shown, target = all_pictures(foreign), new_target("me/new", tmp_path / "new")
    job = plan_delete(foreign.meta, [1], target=target, may_encode=True)
    encoded = [k for piece in job.pieces[TOP] if piece.encodes for k in piece.episodes]
    is_open = foreign.meta.features[TOP]["info"]["video.codec"] == "hevc"
    assert encoded == ([0] if is_open else [0, 1, 2])  # the open one has a key frame where episode 2 begins
    new = job.run()
    assert list(new.meta.episodes["length"]) == [6, 8, 4]
    for k, episode in enumerate([0, 2, 3]):
        got, wanted = pictures(new, TOP, k), shown[TOP, episode]
        assert k in encoded or got == wanted
        for one, other in zip(got, wanted, strict=True):
            difference = np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8)
            assert np.abs(difference).max() <= 6


def test_neighbours_that_stay_together_are_not_encoded(foreign, tmp_path):
    shown = all_pictures(foreign)
    whole = merge_datasets([foreign], "me/same", tmp_path / "same")
    assert_same(whole, shown, [0, 1, 2, 3])
    assert (whole.root / whole.meta.get_video_file_path(0, TOP)).read_bytes() == (
        foreign.root / foreign.meta.get_video_file_path(0, TOP)
    ).read_bytes()


def test_an_open_group_is_never_spliced_behind_another(tmp_path):
    """Frame 8 is a key frame that earlier pictures hang on; decoders would mix up the order behind a join."""
    path = tmp_path / "open.mp4"
    with av.open(str(path), "w", format="mp4") as target:
        words = ["keyint=4:min-keyint=4:bframes=2:b-adapt=0:open-gop=1:scenecut=0:lossless=1:log-level=none"]
        options = {"x265-params": words[0]}
        stream = target.add_stream("libx265", rate=Fraction(10), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for k in range(16):
            frame = av.VideoFrame.from_ndarray(made.picture(0, k), format="rgb24")
            frame = frame.reformat(width=WIDTH, height=HEIGHT, format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    order, shown = stored_order(path), decoded(path)
    starts = [k for k in range(4, 16) if order.is_key[order.place[k]]]
    first = Segment(path=path, start=0, length=16)
    for start in starts:
        tail = Segment(path=path, start=start, length=16 - start)
        assert begins_cleanly([first, tail]) == [True, False]
        join_videos([tail], tmp_path / "tail.mp4", fps=10)
        assert decoded(tmp_path / "tail.mp4") == shown[start:]
    assert starts


def decoded(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def test_two_clocks_in_one_file(tmp_path):
    """Files whose clocks tick differently are joined on one beat."""
    dataset = made.make(tmp_path / "made", [4, 4])
    path = dataset.root / dataset.meta.get_video_file_path(0, TOP)
    other = tmp_path / "other.mp4"
    with (
        av.open(str(path)) as source,
        av.open(str(other), "w", options={"video_track_timescale": "90000"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.pts is not None:
                packet.stream = stream
                out.mux(packet)
    assert stored_order(other).time_base == Fraction(1, 90000)
    segments = [Segment(path=path, start=0, length=4), Segment(path=other, start=4, length=4)]
    join_videos(segments, tmp_path / "joined.mp4", fps=10)
    assert decoded(tmp_path / "joined.mp4") == decoded(path)
    assert np.allclose(stored_order(tmp_path / "joined.mp4").seconds, np.arange(8) / 10, atol=1e-9)


def test_any_part_of_a_file_can_be_decoded(golden, foreign):
    for dataset in (golden, foreign):
        for path in sorted(dataset.root.rglob("*.mp4")):
            shown = decoded(path)
            for start in range(len(shown)):
                segment = Segment(path=path, start=start, length=min(5, len(shown) - start))
                got = [frame.to_ndarray().tobytes() for frame in encoding.decode_segment(segment)]
                assert got == shown[start : start + 5], (path, start)


def test_sound_that_is_not_carried_over_is_said(tmp_path, caplog):
    dataset = made.make(tmp_path / "made", [4, 4])
    path = dataset.root / dataset.meta.get_video_file_path(0, TOP)
    loud = tmp_path / "loud.mp4"
    with av.open(str(path)) as source, av.open(str(loud), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        sound = out.add_stream("aac", rate=8000)
        sound.layout = "mono"
        for packet in source.demux(video=0):
            if packet.pts is not None:
                packet.stream = stream
                out.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        out.mux(sound.encode(silence))
        out.mux(sound.encode(None))
    shutil.move(loud, path)
    shown = all_pictures(dataset)
    assert_same(delete_episodes(dataset, [0], tmp_path / "new"), shown, [1])
    assert "The sound of" in caplog.text


def test_a_video_out_of_step_is_named(tmp_path):
    dataset = made.make(tmp_path / "made", [4, 4])
    path = dataset.root / dataset.meta.get_video_file_path(0, TOP)
    join_videos([Segment(path=path, start=0, length=6)], tmp_path / "short.mp4", fps=10)
    shutil.move(tmp_path / "short.mp4", path)
    with pytest.raises(DatasetError, match="episode 1 of 'me/made' ends after 2 of 4 frames"):
        delete_episodes(dataset, [0], tmp_path / "new")


# --------------------------------------------------------------------------------------- encoding anew
def test_encoding_anew_keeps_times_and_counts(tmp_path):
    dataset = made.make(tmp_path / "made", [5, 3], {**made.NUMBERS, **made.VIDEO, **made.DEPTH})
    depth = [dataset[i]["observation.images.depth"] for i in range(8)]
    new = reencode_dataset(
        dataset,
        RGBEncoderConfig(vcodec="h264", crf=3, g=3),
        num_workers=2,
        output_dir=tmp_path / "new",
    )
    made.check(new, [5, 3])
    info = new.meta.features[TOP]["info"]
    assert info["video.codec"] == "h264" and info["video.g"] == 3 and info["video.crf"] == 3
    assert all(bool((new[i]["observation.images.depth"] == depth[i]).all()) for i in range(8))
    order = stored_order(new.root / new.meta.get_video_file_path(1, TOP))
    assert order.is_key[order.place[5]]  # each episode begins with a key frame
    assert new.meta.stats.keys() == dataset.meta.stats.keys()


def test_in_place_keeps_the_original(tmp_path):
    dataset = made.make(tmp_path / "made", [3])
    before = (dataset.root / dataset.meta.get_video_file_path(0, TOP)).read_bytes()
    new = reencode_dataset(dataset, RGBEncoderConfig(vcodec="h264", crf=9))
    assert new.root == tmp_path / "made"
    old = LeRobotDataset("me/made", root=tmp_path / "made_old")
    assert (old.root / old.meta.get_video_file_path(0, TOP)).read_bytes() == before


def test_an_encoder_that_loses_a_frame_is_noticed(tmp_path, monkeypatch):
    dataset = made.make(tmp_path / "made", [4])
    segment = Segment(path=dataset.root / dataset.meta.get_video_file_path(0, TOP), start=0, length=4)
    whole = encoding.decode_segment
    monkeypatch.setattr(encoding, "decode_segment", lambda segment: list(whole(segment))[:-1])
    with pytest.raises(DatasetError, match="gave 3 of 4 frames"):
        encoding.encode_segment(segment, tmp_path / "out.mp4", fps=10, config=made.FAST)
