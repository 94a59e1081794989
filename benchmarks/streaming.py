"""Streaming from a folder and from a Hub on this machine, against the map-style class read in order.

    python benchmarks/streaming.py [--frames 600] [--threads 2]

Prints items/s of two 480x640 cameras (AV1, two frames per key frame), and the share of the files' bytes that
two episodes fetch.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from lerobot.datasets import LeRobotDataset, StreamingLeRobotDataset
from tests.fakes.hub import FakeHub

HEIGHT, WIDTH, LENGTH = 480, 640, 60
CAMERAS = ("observation.images.top", "observation.images.wrist")


def main() -> None:
    """Make a dataset, read it in every way, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "made"
        os.environ |= {"HF_HOME": f"{folder}/hf", "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        record(root, num_episodes=args.frames // LENGTH)
        whole = LeRobotDataset("me/made", root=root, return_uint8=True)
        how = {"return_uint8": True, "num_threads": args.threads, "buffer_size": 100}
        print(f"{len(whole)} items of 2 x {HEIGHT}x{WIDTH}, {args.threads} threads")
        rate("map-style, in order, one thread", lambda: (whole.batch(range(i, i + 8)) for i in steps(whole)))
        local = StreamingLeRobotDataset("me/made", root=root, **how)
        rate("streamed from a folder, shuffled", lambda: local.batches(8))
        ordered = StreamingLeRobotDataset("me/made", root=root, shuffle=False, **how)
        rate("streamed from a folder, in order", lambda: ordered.batches(8))
        files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        with FakeHub() as hub:
            os.environ["HF_ENDPOINT"] = hub.url
            repo = hub.add("dataset", "me/made", files)
            repo.tags["v3.0"] = repo.branches["main"]
            remote = StreamingLeRobotDataset("me/made", **how)
            rate("streamed from a Hub, shuffled", lambda: remote.batches(8))
            few = StreamingLeRobotDataset("me/made", episodes=[1, 4], **how)
            started_s = time.perf_counter()
            next(iter(few))
            print(f"first item of two episodes from a Hub: {time.perf_counter() - started_s:.2f} s")
            few.set_epoch(0)
            list(few)
            size = sum(len(data) for name, data in files.items() if not name.startswith("meta/"))
            print(
                f"bytes: two of {whole.num_episodes} episodes {few.fetched_bytes / size:.1%}, "
                f"an epoch {remote.fetched_bytes / size:.1%} of {size / 1e6:.1f} MB"
            )


def steps(dataset: LeRobotDataset) -> range:
    """First items of batches of 8."""
    return range(0, len(dataset) - 7, 8)


def rate(name: str, batches: Callable[[], Iterable[dict]]) -> None:
    """Print items per second of one pass."""
    started_s, worked_s, count = time.perf_counter(), time.process_time(), 0
    for batch in batches():
        count += len(batch["index"])
    taken_s, worked_s = time.perf_counter() - started_s, time.process_time() - worked_s
    print(f"{name}: {count / taken_s:.0f} items/s, {worked_s / count * 1e3:.2f} CPU-ms an item")


def record(root: Path, *, num_episodes: int) -> None:
    """Episodes of moving stripes with some noise, so that frames are as large as a camera's."""
    shape = {"shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    features = {name: {"dtype": "video", **shape} for name in CAMERAS}
    features["action"] = {"dtype": "float32", "shape": (6,), "names": None}
    dataset = LeRobotDataset.create("me/made", 30, features, root=root)
    rng = np.random.default_rng(0)
    stripes = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 4 % 200
    for episode in range(num_episodes):
        for k in range(LENGTH):
            noise = rng.integers(0, 24, (HEIGHT // 2, WIDTH // 2, 3)).repeat(2, 0).repeat(2, 1)
            scene = (stripes[..., None] + noise).astype(np.uint8)
            pictures = {name: np.roll(scene, 3 * k + episode, axis=c) for c, name in enumerate(CAMERAS)}
            dataset.add_frame({**pictures, "action": np.full(6, k, np.float32), "task": "move"})
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    main()
