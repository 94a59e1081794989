"""Small datasets whose every value follows from episode and frame number, so that a reader can be checked."""

from pathlib import Path

import numpy as np

from lerobot.datasets import LeRobotDataset
from lerobot.datasets.config import RGBEncoderConfig

FAST = RGBEncoderConfig(vcodec="h264", preset="ultrafast", crf=5)
HEIGHT, WIDTH = 32, 48
TASKS = ("pick the cube", "close the drawer")

NUMBERS = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a.pos", "b.pos", "c.pos"]},
    "action": {"dtype": "float32", "shape": (3,), "names": ["a.pos", "b.pos", "c.pos"]},
    "observation.grid": {"dtype": "float64", "shape": (2, 3), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "observation.count": {"dtype": "int64", "shape": (1,), "names": None},
    "note": {"dtype": "string", "shape": (1,), "names": None},
}
SHAPE = {"shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
VIDEO = {"observation.images.top": {"dtype": "video", **SHAPE}}
IMAGE = {"observation.images.wrist": {"dtype": "image", **SHAPE}}
DEPTH = {
    "observation.images.depth": {
        "dtype": "video",
        "shape": (HEIGHT, WIDTH, 1),
        "names": ["height", "width", "channels"],
        "info": {"is_depth_map": True},
    }
}


def picture(episode: int, frame: int) -> np.ndarray:
    """(H, W, 3) uint8: flat, so that a lossy video keeps it; red tells the frame, green the episode."""
    return np.broadcast_to(
        np.array([(frame * 12 + 8) % 256, (episode * 24 + 8) % 256, 128], np.uint8), (HEIGHT, WIDTH, 3)
    ).copy()


def depth(episode: int, frame: int) -> np.ndarray:
    """(H, W) uint16 millimetres."""
    return (500 + 100 * episode + 10 * frame + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)).astype(
        np.uint16
    )


def frame(features: dict, episode: int, k: int) -> dict:
    """Frame k of an episode, for the declared features among those above."""
    full = {
        "observation.state": np.array([episode, k, episode + k / 10], np.float32),
        "action": np.array([k, -k, 0.5], np.float32),
        "observation.grid": np.arange(6.0).reshape(2, 3) + k,
        "next.done": np.array([k == 2]),
        "observation.count": np.array([10 * episode + k]),
        "note": f"episode {episode} frame {k}",
        "observation.images.top": picture(episode, k),
        "observation.images.wrist": picture(episode, k),
        "observation.images.depth": depth(episode, k),
    }
    return {name: full[name] for name in features if name in full} | {"task": TASKS[episode % 2]}


def record(dataset: LeRobotDataset, lengths: list[int], *, first: int = 0) -> None:
    """Add episodes of these lengths."""
    for episode, length in enumerate(lengths, start=first):
        for k in range(length):
            dataset.add_frame(frame(dataset.features, episode, k))
        dataset.save_episode()


def make(root: Path, lengths: list[int], features: dict | None = None, **options) -> LeRobotDataset:
    """A finished dataset."""
    features = {**NUMBERS, **VIDEO} if features is None else features
    dataset = LeRobotDataset.create("me/made", 10, features, root=root, rgb_encoder=FAST, **options)
    record(dataset, lengths)
    dataset.finalize()
    return dataset


def check(dataset: LeRobotDataset, lengths: list[int]) -> None:
    """Every item must be what `frame` gave."""
    assert dataset.meta.episodes["length"] == lengths
    at = 0
    for episode, length in enumerate(lengths):
        for k in range(length):
            item, given = dataset[at], frame(dataset.features, episode, k)
            check_item(item, given, at, f"episode {episode} frame {k}")
            at += 1
    assert len(dataset) == at


def check_stats(dataset: LeRobotDataset) -> None:
    """The dataset's statistics must be those of its items, sorted and counted here; videos only roughly.

    Episodes must be so short that every picture is sampled.
    """
    items = list(dataset)
    for name, feature in dataset.features.items():
        if feature["dtype"] == "string":
            assert name not in dataset.meta.stats
            continue
        values = np.stack([np.atleast_1d(item[name].numpy()) for item in items]).astype(np.float64)
        is_camera, is_video = feature["dtype"] in ("image", "video"), feature["dtype"] == "video"
        rows = values.transpose(0, 2, 3, 1) if is_camera else values
        rows = np.sort(rows.reshape(-1, rows.shape[-1]), axis=0)
        wanted = {"min": rows[0], "max": rows[-1], "mean": rows.mean(0), "std": rows.std(0)}
        for percent in (1, 10, 50, 90, 99):
            wanted[f"q{percent:02d}"] = rows[-(-len(rows) * percent // 100) - 1]
        found = dataset.meta.stats[name]
        assert set(found) == {*wanted, "count"} and found["count"].tolist() == [len(items)], name
        near = {"rtol": 0, "atol": 4 / 255 if "depth" not in name else 3} if is_video else {"rtol": 1e-6}
        for stat, value in wanted.items():
            shaped = value.reshape(-1, 1, 1) if is_camera else value
            assert found[stat].shape == shaped.shape, (name, stat)
            np.testing.assert_allclose(found[stat], shaped, err_msg=f"{name} {stat}", **near)


def check_item(item: dict, given: dict, index: int, where: str) -> None:
    assert int(item["index"]) == index, where
    for name, value in given.items():
        if isinstance(value, str):
            assert item[name] == value, where
        elif "images" not in name:
            assert np.array_equal(item[name].numpy(), value.astype(item[name].numpy().dtype).squeeze()), (
                where,
                name,
            )
        elif "depth" in name:
            assert np.abs(item[name][0].numpy() - value).max() <= 2, (where, name)
        else:
            error = np.abs(item[name].numpy() - value.transpose(2, 0, 1) / 255)
            assert error.max() <= 4 / 255, (where, name, error.max())
