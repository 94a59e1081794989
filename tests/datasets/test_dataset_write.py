"""Recording: what is accepted, what lands on disk, what happens when something fails."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lerobot.core.errors import ConfigError, DatasetError, FrameError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig
from lerobot.datasets.encoder import encode_frames
from tests.fakes import dataset as made

TOP, WRIST = "observation.images.top", "observation.images.wrist"
FEATURES = {**made.NUMBERS, **made.VIDEO, **made.IMAGE}


def create(root: Path, features: dict = FEATURES, **options) -> LeRobotDataset:
    return LeRobotDataset.create("me/made", 10, features, root=root, rgb_encoder=made.FAST, **options)


def hashes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_everything_comes_back_before_and_after_finalize(tmp_path):
    dataset = create(tmp_path / "a", {**FEATURES, **made.DEPTH})
    made.record(dataset, [3, 5, 1])
    shutil.copytree(tmp_path / "a", tmp_path / "open")  # what a crash now would leave
    made.check(LeRobotDataset("me/made", root=tmp_path / "open"), [3, 5, 1])
    dataset.finalize()
    made.check(dataset, [3, 5, 1])
    files = [str(path.relative_to(tmp_path / "a")) for path in sorted((tmp_path / "a").rglob("*.parquet"))]
    assert files == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/tasks.parquet",
    ]
    assert pq.read_metadata(tmp_path / "a/data/chunk-000/file-000.parquet").num_row_groups == 3


def test_info_is_written_in_the_known_order(tmp_path):
    made.make(tmp_path / "a", [2, 2], FEATURES)
    info = json.loads((tmp_path / "a/meta/info.json").read_text())
    assert list(info) == [
        *(
            "codebase_version",
            "fps",
            "features",
            "total_episodes",
            "total_frames",
            "total_tasks",
            "chunks_size",
        ),
        *(
            "data_files_size_in_mb",
            "video_files_size_in_mb",
            "data_path",
            "video_path",
            "robot_type",
            "splits",
        ),
    ]
    assert list(info["features"])[-5:] == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    camera = info["features"][TOP]["info"]
    assert camera["video.codec"] == "h264" and camera["video.fps"] == 10 and camera["video.g"] == 2
    assert camera["is_depth_map"] is False and info["splits"] == {"train": "0:2"}


def test_default_encoder_is_av1(tmp_path):
    dataset = LeRobotDataset.create("me/made", 10, made.VIDEO, root=tmp_path / "a")
    made.record(dataset, [3])
    info = dataset.meta.features[TOP]["info"]
    assert (info["video.codec"], info["video.preset"], info["video.crf"]) == ("av1", 12, 30)


def test_size_limits_begin_new_files(tmp_path):
    dataset = create(tmp_path / "a", chunks_size=2, data_files_size_in_mb=0.001, video_files_size_in_mb=0.003)
    made.record(dataset, [3, 3, 3, 3, 3])  # each larger than a data file should be
    dataset.finalize()
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [3] * 5)
    places = list(zip(*(dataset.meta.episodes[f"data/{p}_index"] for p in ("chunk", "file")), strict=True))
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_resuming_adds_new_files(tmp_path):
    made.make(tmp_path / "a", [3, 2], FEATURES)
    before = hashes(tmp_path / "a")
    dataset = LeRobotDataset.resume("me/made", root=tmp_path / "a", rgb_encoder=made.FAST)
    made.record(dataset, [4, 2], first=2)
    dataset.finalize()
    made.check(LeRobotDataset("me/made", root=tmp_path / "a"), [3, 2, 4, 2])
    after = hashes(tmp_path / "a")
    kept = [name for name in before if name.startswith(("data", "videos", "meta/episodes"))]
    assert all(before[name] == after[name] for name in kept)
    assert dataset.meta.stats["action"]["count"].tolist() == [11]


def test_many_forms_of_a_frame_are_the_same(tmp_path):
    dataset = create(tmp_path / "a", {**made.IMAGE, **made.NUMBERS})
    plain = made.frame(dataset.features, 0, 1)
    forms = [
        lambda v: v,
        lambda v: v.tolist() if isinstance(v, np.ndarray) and v.ndim < 3 else v,
        lambda v: torch.from_numpy(v) if isinstance(v, np.ndarray) else v,
        lambda v: v.transpose(2, 0, 1) if isinstance(v, np.ndarray) and v.ndim == 3 else v,
        lambda v: (v / 255).astype(np.float32) if isinstance(v, np.ndarray) and v.ndim == 3 else v,
        lambda v: Image.fromarray(v) if isinstance(v, np.ndarray) and v.ndim == 3 else v,
        lambda v: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v,
        lambda v: v[0] if isinstance(v, np.ndarray) and v.shape == (1,) else v,
    ]
    for form in forms:
        dataset.add_frame({name: form(value) for name, value in plain.items()})
    dataset.save_episode()
    dataset.finalize()
    for k in range(len(forms)):
        assert torch.equal(dataset[k][WRIST], dataset[0][WRIST])
        assert torch.equal(dataset[k]["observation.state"], dataset[0]["observation.state"])
        assert dataset[k]["next.done"].item() is False


def test_the_caller_may_reuse_its_arrays(tmp_path):
    dataset = create(tmp_path / "a")
    frame = made.frame(dataset.features, 0, 0)
    for k in range(3):
        for name, value in made.frame(dataset.features, 0, k).items():
            if isinstance(value, np.ndarray):
                frame[name][...] = value
            else:
                frame[name] = value
        dataset.add_frame(frame)
    dataset.save_episode()
    dataset.finalize()
    made.check(dataset, [3])


def test_tensors_and_pictures_may_be_reused(tmp_path):
    dataset = create(tmp_path / "a")
    plain = made.frame(dataset.features, 0, 0)
    tensors = {name: torch.from_numpy(v.copy()) for name, v in plain.items() if isinstance(v, np.ndarray)}
    picture = Image.fromarray(plain[WRIST])
    views = tensors | {TOP: tensors[TOP].permute(2, 0, 1), WRIST: picture, "note": "", "task": ""}
    for k in range(3):
        given = made.frame(dataset.features, 0, k)
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(given[name]))
        picture.paste(Image.fromarray(given[WRIST]))
        dataset.add_frame(views | {"note": given["note"], "task": given["task"]})
        picture.paste((0, 0, 0), (0, 0, made.WIDTH, made.HEIGHT))
        for tensor in tensors.values():
            tensor.zero_()
    dataset.save_episode()
    dataset.finalize()
    made.check(dataset, [3])


BAD = [
    (
        {"observation.state": np.zeros(4)},
        r"'observation.state' is float64 of shape \(4,\); expected float32.*\(3,\)",
    ),
    ({"observation.state": [1, 2]}, r"a list of shape \(2,\) \(int64\); expected float32 of shape \(3,\)"),
    ({"observation.state": [1.0, np.nan, 0.0]}, "holds NaN or infinity"),
    ({"observation.state": [1e300, 0, 0]}, "too large for float32"),
    ({"observation.count": 1.5}, "'observation.count' is 1.5 .*expected int64"),
    ({"next.done": 1}, r"'next.done' is 1 \(int\); expected bool"),
    ({"note": 3}, r"'note' is 3 \(int\); expected a str"),
    ({"action": "left"}, "'action' is 'left'.*not numbers"),
    (
        {WRIST: np.zeros((made.WIDTH, made.HEIGHT, 3), np.uint8)},
        r"expected uint8, .*\(32, 48, 3\) or \(3, 32, 48\)",
    ),
    ({WRIST: np.zeros((32, 48, 3), np.int64)}, "int64 of shape .*expected uint8"),
    (
        {WRIST: np.full((32, 48, 3), 200.0)},
        "has values from 200.0 to 200.0; expected uint8, or floats in 0..1",
    ),
    ({WRIST: Image.new("RGB", (32, 48))}, "32 wide and 48 high"),
    ({WRIST: np.full((32, 48, 3), -0.1)}, "has values from -0.1 to -0.1; expected uint8, or floats in 0..1"),
    ({WRIST: np.full((32, 48, 3), np.nan)}, "has values from nan to nan"),
    ({WRIST: np.zeros((32, 48, 3), bool)}, "bool of shape .*expected uint8"),
    ({WRIST: np.zeros((32, 48, 4), np.uint8)}, r"uint8 of shape \(32, 48, 4\); expected"),
    ({TOP: np.zeros((64, 96, 3), np.uint8)}, r"'observation.images.top' is uint8 of shape \(64, 96, 3\)"),
    ({WRIST: Image.new("L", (48, 32))}, "a L picture 48 wide and 32 high; expected"),
    ({WRIST: None}, "'observation.images.wrist' is None"),
    ({"observation.state": [1.0, -np.inf, 0.0]}, "holds NaN or infinity"),
    (
        {"observation.state": [[1.0, 2.0, 3.0]]},
        r"a list of shape \(1, 3\) .*expected float32 of shape \(3,\)",
    ),
    ({"observation.count": 2**63}, "'observation.count' is 9223372036854775808"),
    ({"task": None}, "'task' is None"),
    ({"task": ""}, "'task' is empty"),
    ({"task": " \n"}, "'task' is empty"),
    ({"timestamp": 0.1}, "timestamp must not be given"),
    ({"actoin": [1, 2, 3]}, "Did you mean 'action'"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_a_frame_that_does_not_fit_is_refused(tmp_path, change, words):
    dataset = create(tmp_path / "a")
    made.record(dataset, [2])
    with pytest.raises(FrameError, match=words):
        dataset.add_frame(made.frame(dataset.features, 1, 0) | change)
    assert not dataset.has_pending_frames()
    made.record(dataset, [2], first=1)  # nothing of the refused frame stays
    dataset.finalize()
    made.check(dataset, [2, 2])


@pytest.mark.parametrize("missing", ["task", "action", TOP])
def test_a_frame_that_lacks_something_is_refused(tmp_path, missing):
    dataset = create(tmp_path / "a")
    frame = made.frame(dataset.features, 0, 0)
    del frame[missing]
    with pytest.raises(FrameError, match=f"{missing}.* missing"):
        dataset.add_frame(frame)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"a/b": {"dtype": "float32", "shape": (1,)}}, "contains '/'"),
        ({"a": {"dtype": "flaot32", "shape": (1,)}}, "Did you mean 'float32'"),
        ({"a": {"dtype": "float32", "shape": (0,)}}, "positive whole numbers"),
        ({"a": {"shape": (3,)}}, "needs 'dtype' and 'shape'"),
        ({"a": {"dtype": "video", "shape": (3, 4)}}, r"\(height, width, channels\)"),
    ],
)
def test_declarations_are_checked(tmp_path, features, words):
    with pytest.raises(DatasetError, match=words):
        create(tmp_path / "a", features)
    assert not (tmp_path / "a").exists()


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DatasetError, match="exists already.*resume"):
        create(tmp_path / "a")


def test_a_failed_encode_leaves_the_dataset_as_it_was(tmp_path):
    dataset = create(tmp_path / "a")
    made.record(dataset, [3])
    before = hashes(tmp_path / "a")
    dataset.writer.rgb_encoder = RGBEncoderConfig(vcodec="h264", pix_fmt="no_such_format")
    with pytest.raises(DatasetError, match="Encoding .* failed: .*no_such_format"):
        made.record(dataset, [40], first=1)
    dataset.clear_episode_buffer()
    assert hashes(tmp_path / "a") == before
    dataset.writer.rgb_encoder = made.FAST
    made.record(dataset, [2], first=1)
    dataset.finalize()
    made.check(dataset, [3, 2])


def test_an_episode_that_found_no_room_is_saved_later(tmp_path, monkeypatch):
    dataset = create(tmp_path / "a")
    made.record(dataset, [3])
    before = hashes(tmp_path / "a")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for k in range(2):
        dataset.add_frame(made.frame(dataset.features, 1, k))
    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        with pytest.raises(DatasetError, match=r"file-001.*no room left.*call save_episode\(\) again"):
            dataset.save_episode()
    kept = {name: data for name, data in hashes(tmp_path / "a").items() if not name.endswith(".part")}
    assert kept == before and dataset.has_pending_frames()
    with pytest.raises(DatasetError, match=r"The 2 frames of the last episode could not be saved"):
        dataset.add_frame(made.frame(dataset.features, 1, 2))
    dataset.save_episode()
    made.record(dataset, [2], first=2)
    dataset.finalize()
    made.check(dataset, [3, 2, 2])


def test_a_cleared_episode_leaves_nothing(tmp_path):
    dataset = create(tmp_path / "a")
    for k in range(3):
        dataset.add_frame(made.frame(dataset.features, 7, k))
    assert dataset.has_pending_frames()
    dataset.clear_episode_buffer()
    assert not dataset.has_pending_frames()
    made.record(dataset, [2])
    dataset.finalize()
    made.check(dataset, [2])
    assert not list((tmp_path / "a").rglob("*.part"))


def test_order_of_calls_is_checked(tmp_path):
    dataset = create(tmp_path / "a")
    with pytest.raises(DatasetError, match="no frames to save"):
        dataset.save_episode()
    made.record(dataset, [2])
    with pytest.raises(DatasetError, match=r"Call finalize\(\) before reading"):
        dataset[0]
    dataset.finalize()
    with pytest.raises(DatasetError, match="Use LeRobotDataset.resume"):
        LeRobotDataset("me/made", root=tmp_path / "a").add_frame({})


def test_metres_and_millimetres_are_not_mixed(tmp_path):
    dataset = create(tmp_path / "a", made.DEPTH)
    name = "observation.images.depth"
    metres = made.depth(0, 0).astype(np.float32) / 1000
    dataset.add_frame({name: metres, "task": "x"})
    with pytest.raises(FrameError, match=r"uint16 \(mm\) and earlier frames are in m\. Give float32 metres"):
        dataset.add_frame({name: made.depth(0, 1), "task": "x"})
    dataset.save_episode()
    dataset.finalize()
    assert dataset.meta.features[name]["info"]["depth_unit"] == "m"
    assert np.abs(dataset[0][name][0].numpy() - made.depth(0, 0)).max() <= 2


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_hevc_clips_of_any_length_have_decoding_times(tmp_path, num_frames):
    levels = [np.full((16, 24), 100 * k, np.uint16) for k in range(num_frames)]
    encode_frames(levels, tmp_path / "a.mp4", fps=10, config=DepthEncoderConfig(g=30))
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [(packet.pts, packet.dts) for packet in container.demux(video=0) if packet.size]
    assert len(times) == num_frames
    assert all(pts == dts for pts, dts in times)


def test_joined_hevc_clips_play_on_from_every_key_frame(tmp_path):
    """A player may land on the last key frame of an episode: the next episode must follow it."""
    lengths = [5, 3, 7]
    made.make(tmp_path / "a", lengths, made.DEPTH)
    path = tmp_path / "a/videos/observation.images.depth/chunk-000/file-000.mp4"
    with av.open(str(path)) as container:
        keys = [packet.pts for packet in container.demux(video=0) if packet.is_keyframe]
        unit = container.streams.video[0].duration // sum(lengths)
    assert len(keys) > 6
    for key in keys:
        with av.open(str(path)) as container:
            container.seek(key, stream=container.streams.video[0])
            shown = [frame.pts // unit for frame in container.decode(video=0)]
        assert shown == list(range(key // unit, sum(lengths)))


def test_encoder_settings_are_checked():
    with pytest.raises(ConfigError, match="Did you mean 'libsvtav1'"):
        RGBEncoderConfig(vcodec="libsvtav")


def test_large_small_spread_survives_in_the_statistics(tmp_path):
    features = {"observation.state": {"dtype": "float32", "shape": (2,), "names": None}}
    dataset = create(tmp_path / "a", features)
    values = np.stack([1000 + 0.01 * np.sin(np.arange(200)), 5 + 1e-3 * np.cos(np.arange(200))], 1).astype(
        np.float32
    )
    for episode in np.split(values, 4):
        for row in episode:
            dataset.add_frame({"observation.state": row, "task": "x"})
        dataset.save_episode()
    np.testing.assert_allclose(
        dataset.meta.stats["observation.state"]["std"], values.astype(np.float64).std(axis=0), rtol=1e-3
    )
