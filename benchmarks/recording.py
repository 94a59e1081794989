"""What recording costs the control loop: add_frame and save_episode of two 480x640 cameras, in real time.

    .venv/bin/python benchmarks/recording.py [--reference PYTHON] [--episodes 5] [--seconds 20]

A loop that is paced without drift adds one frame per tick, as a robot would. `--reference` runs the same loop
with the `lerobot` of another interpreter and prints the ratios. Pictures are smooth shapes that move, with
sensor noise; what the encoder costs depends on them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 480, 640
NUM_PICTURES = 60  # different pictures per camera, shown again and again
JOINTS = [f"joint_{i}.pos" for i in range(6)]


def pictures(seed: int) -> np.ndarray:
    """(N, H, W, 3) uint8: colour waves and a bright square that move, with noise of a few levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    shown = np.empty((NUM_PICTURES, HEIGHT, WIDTH, 3), np.uint8)
    for k in range(NUM_PICTURES):
        turn = 2 * np.pi * k / NUM_PICTURES
        waves = [128 + 70 * np.sin(x / 90 + y / (60 + 20 * c) + turn + c + seed) for c in range(3)]
        picture = np.stack(waves, -1) + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
        top, left = int(180 + 120 * np.sin(turn)), int(280 + 200 * np.cos(turn))
        picture[top : top + 60, left : left + 60] = (230, 60, 40)
        shown[k] = np.clip(picture, 0, 255).astype(np.uint8)
    return shown


def features(num_cameras: int) -> dict[str, dict]:
    """Six joints, six targets and the cameras."""
    joints = {"dtype": "float32", "shape": (6,), "names": JOINTS}
    camera = {"dtype": "video", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    return {
        "observation.state": joints,
        "action": joints,
        **{f"observation.images.{k}": camera for k in range(num_cameras)},
    }


def record(root: Path, *, cameras: int, episodes: int, seconds: float, fps: int, options: dict) -> dict:
    """Record in real time; times in ms, `frames` that were added, and what is on disk at the end."""
    try:
        from lerobot.datasets import LeRobotDataset
    except ImportError:  # the reference does not export it there
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

    table = features(cameras)
    dataset = LeRobotDataset.create("bench/recording", fps, table, root=root, **options)
    shown = [pictures(k) for k in range(cameras)]
    adds, saves, held, per_episode = [], [], [], round(seconds * fps)
    cpu, begun = time.process_time(), time.perf_counter()
    for episode in range(episodes):
        start = time.perf_counter()
        for k in range(per_episode):
            wait_s = start + k / fps - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            values = np.sin(np.arange(6) + k / fps).astype(np.float32)
            frame = {"observation.state": values, "action": values, "task": "Wave."}
            for c in range(cameras):
                frame[f"observation.images.{c}"] = shown[c][k % NUM_PICTURES]
            began = time.perf_counter()
            dataset.add_frame(frame)
            adds.append(time.perf_counter() - began)
        held.append((per_episode - 1) / (began - start))
        began = time.perf_counter()
        dataset.save_episode()
        saves.append(time.perf_counter() - began)
        print(f"episode {episode}: {held[-1]:.2f} fps, saved in {1000 * saves[-1]:.0f} ms", file=sys.stderr)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begun
    dataset.finalize()
    adds_ms, saves_ms = 1000 * np.array(adds), 1000 * np.array(saves)
    stored = LeRobotDataset("bench/recording", root=root)
    return {
        "add_frame p50 ms": float(np.percentile(adds_ms, 50)),
        "add_frame p99 ms": float(np.percentile(adds_ms, 99)),
        "add_frame max ms": float(adds_ms.max()),
        "save_episode median ms": float(np.median(saves_ms)),
        "save_episode max ms": float(saves_ms.max()),
        "fps held": float(min(held)),
        "frames added": len(adds),
        "frames stored": len(stored),
        "CPU cores used": cpu / wall,
        "MiB on disk": sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) / 2**20,
    }


def measure(python: str, args: argparse.Namespace, *, folder: Path) -> dict:
    """Run `record` in an interpreter of its own, on `--cores` cores."""
    words = [f"--{name}={value}" for name, value in vars(args).items() if name != "reference"]
    path = str(ROOT) if python == sys.executable else ""
    result = subprocess.run(
        [python, str(Path(__file__).resolve()), *words, f"--worker={folder}"],
        cwd=folder.parent,  # a `lerobot` in the working directory would be found first
        env={"SVT_LOG": "1", **os.environ, "PYTHONPATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", help="another interpreter, whose lerobot records the same")
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of an episode")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--cores", type=int, default=2, help="cores that the recording may use")
    parser.add_argument("--options", default="{}", help="JSON: further arguments of LeRobotDataset.create")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
        shape = {"cameras": args.cameras, "episodes": args.episodes, "seconds": args.seconds}
        options = json.loads(args.options)
        print(json.dumps(record(args.worker, fps=args.fps, options=options, **shape)))
        return
    del args.worker
    folder = Path(tempfile.mkdtemp(prefix="recording_"))
    try:
        ours = measure(sys.executable, args, folder=folder / "ours")
        other = measure(args.reference, args, folder=folder / "reference") if args.reference else {}
    finally:
        shutil.rmtree(folder)
    print(f"{'':<24} {'lerobot':>10}" + (f" {'reference':>10} {'ratio':>8}" if other else ""))
    for name, value in ours.items():
        ratio = f" {other[name]:>10.2f} {other[name] / value:>8.2f}" if other else ""
        print(f"{name:<24} {value:>10.2f}{ratio}")


if __name__ == "__main__":
    main()
