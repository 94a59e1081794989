"""How long it takes to delete one of many episodes; beside LeRobot where it is installed.

    .venv/bin/python benchmarks/editing.py [--reference /path/to/python] [--episodes 1000] [--data FOLDER]

The data is made once: two small cameras, a few frames an episode, files of 2 MiB, so that work per episode
and per file is what counts. Both delete the episode in the middle, each in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
LENGTH, SIDE = 14, 96


def make(root: Path, episodes: int) -> None:
    """Ten recorded episodes, again and again, as one dataset."""
    from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.edit.copying import Copy
    from lerobot.datasets.edit.target import Target

    camera = {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (6,), "names": None}
    features = {"observation.state": vector, "action": vector}
    features |= {f"observation.images.{name}": camera for name in ("top", "wrist")}
    with tempfile.TemporaryDirectory() as folder:
        ten = LeRobotDataset.create("bench/ten", 10, features, root=Path(folder) / "ten")
        rng = np.random.default_rng(0)
        for _ in range(10):
            for _ in range(LENGTH):
                frame = {
                    "observation.state": rng.normal(size=6),
                    "action": rng.normal(size=6),
                    "task": "edit",
                }
                ten.add_frame(
                    frame | {k: rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8) for k in ten.meta.video_keys}
                )
            ten.save_episode()
        ten.finalize()
        picks = [(ten.meta, k % 10) for k in range(episodes)]
        sizes = {"data_files_size_in_mb": 2, "video_files_size_in_mb": 2}
        target = Target(repo_id="bench/many", root=root)
        Copy(target=target, picks=picks, features=ten.meta.features, info=sizes, scatters=True).run()


def delete(root: Path) -> None:
    """Print the seconds of one deletion; runs under either package."""
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError:
        from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.dataset_tools import delete_episodes

    dataset = LeRobotDataset("bench/many", root=root)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        start = time.perf_counter()
        less = delete_episodes(
            dataset, [len(dataset.meta.episodes) // 2], Path(folder) / "less", "bench/less"
        )
        print(f"SECONDS {time.perf_counter() - start:.2f} {less.meta.total_episodes}")


def run(python: str, root: Path, path: str) -> float:
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "SVT_LOG": "1"}
    words = [python, str(Path(__file__).resolve()), "--delete", str(root)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, cwd=root.parent)
    said = [line.split() for line in done.stdout.splitlines() if line.startswith("SECONDS")]
    if not said:
        sys.exit(done.stderr[-2000:])
    return float(said[0][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", help="a Python that has LeRobot installed")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lerobot-bench-editing")
    parser.add_argument("--delete", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.delete:
        delete(args.delete)
        return
    root = args.data.resolve() / f"many{args.episodes}"
    if not root.exists():
        make(root, args.episodes)
    ours = run(sys.executable, root, str(ROOT))
    print(f"delete 1 of {args.episodes} episodes, two cameras: {ours:.2f} s, no frame encoded")
    if args.reference:
        theirs = run(args.reference, root, "")
        print(
            f"LeRobot: {theirs:.2f} s, files with the episode encoded again; {theirs / ours:.0f} times ours"
        )


if __name__ == "__main__":
    main()
