"""How long `lerobot-doctor` takes on a dataset of many episodes, as a whole command in a fresh Python.

    .venv/bin/python benchmarks/doctor.py [--episodes 1000] [--frames 100] [--folder FOLDER] [--separate]

The dataset has a state and an action of 14 numbers and two cameras of 64 x 96 pixels. --separate leaves it as
a recording that was not finalized: a data file and two videos for every episode. A folder that is there is
used again.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIZE = 14
HEIGHT, WIDTH = 64, 96
RUN = "import sys; from lerobot.scripts.doctor import main; main()"


def make(folder: Path, *, episodes: int, frames: int, separate: bool) -> None:
    """Record the dataset: numbers differ from episode to episode, pictures are copies of a few."""
    import numpy as np

    from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.config import RGBEncoderConfig

    vector = {"dtype": "float32", "shape": (SIZE,), "names": [f"joint_{k}.pos" for k in range(SIZE)]}
    camera = {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector}
    features |= {f"observation.images.{name}": camera for name in ("top", "wrist")}
    encoder = RGBEncoderConfig(vcodec="h264", preset="ultrafast", crf=40, g=2)
    dataset = LeRobotDataset.create("me/many", 30, features, root=folder, rgb_encoder=encoder)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (8, 8, 12, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    for episode in range(episodes):
        numbers = random.normal(size=(frames, SIZE)).astype(np.float32).cumsum(axis=0)
        for k, row in enumerate(numbers):
            shown = pictures[(episode + k // 8) % len(pictures)]
            frame = {name: shown for name in features if "images" in name}
            dataset.add_frame({**frame, "observation.state": row, "action": row * 0.9, "task": "go"})
        dataset.save_episode()
    if not separate:
        dataset.finalize()


def seconds(*words: str) -> float:
    """Wall time of the command; it must find the dataset sound."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", RUN, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lerobot-doctor failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--separate", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = args.folder or Path(home) / "many"
        if not folder.exists():
            make(folder, episodes=args.episodes, frames=args.frames, separate=args.separate)
        for name, words in {"": (), " --quick": ("--quick=true",)}.items():
            took = [seconds(str(folder), *words) for _ in range(args.runs)]
            print(
                f"lerobot-doctor{name}: {statistics.median(took):.2f} s median, {min(took):.2f} s best "
                f"of {args.runs} ({args.episodes} episodes of {args.frames} frames, 2 cameras)"
            )


if __name__ == "__main__":
    main()
