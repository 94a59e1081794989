"""How soon `lerobot-train` takes its first step, how many it takes per second; beside LeRobot if installed.

    .venv/bin/python benchmarks/training.py [--reference /path/to/python] [--steps 120] [--repeats 2]
                                            [--workers 0 1 2] [--batch_size 8] [--data FOLDER]
                                            [--network published | small]

ACT (ResNet-18 from random weights), as published or small, learns from a recorded dataset with two 96x96
cameras (AV1, the recorder's default settings), on the CPU, with the same flags on both sides and every number
of loader workers in turn; the best of each side counts. Both run alternately, since other work on the machine
comes and goes. A step is seen by its line in the log, which comes with every step; seconds count from the
start of the process. The rate is taken between step 10 and the last.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reading import record

ROOT = Path(__file__).parents[1]
WARM = 10  # steps before the rate is taken
STEP_LINE = re.compile(r"\bstep[: ](\d+)")  # "step 7/120 ..." and "... step:7 smpl:56 ..."
POLICY = {
    "type": "act",
    "device": "cpu",
    "push_to_hub": "false",
    "vision_backbone": "resnet18",
    "pretrained_backbone_weights": "null",
}
SIZES = {
    "published": {},  # the defaults: chunk 100, width 512, 52 million parameters
    "small": {
        "chunk_size": 20,
        "n_action_steps": 20,
        "dim_model": 128,
        "n_heads": 4,
        "dim_feedforward": 256,
        "n_encoder_layers": 2,
        "n_vae_encoder_layers": 2,
    },
}
MODULES = {"ours": "lerobot.scripts.train", "reference": "lerobot.scripts.lerobot_train"}


def flags(args: argparse.Namespace, output: Path, *, workers: int) -> list[str]:
    """The same command line for both sides."""
    words = {"dataset.repo_id": "bench/it", "dataset.root": args.data, "output_dir": output}
    words |= {f"policy.{name}": value for name, value in (POLICY | SIZES[args.network]).items()}
    words |= {"batch_size": args.batch_size, "steps": args.steps, "num_workers": workers, "log_freq": 1}
    words |= {"save_checkpoint": "false", "wandb.enable": "false"}
    return [f"--{name}={value}" for name, value in words.items()]


def run(side: str, python: str, words: list[str]) -> tuple[float, float]:
    """Seconds until the first step, and steps per second after the first ten."""
    env = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    cwd = ROOT if side == "ours" else tempfile.gettempdir()
    began, seen, said = time.perf_counter(), {}, []
    command = [python, "-m", MODULES[side], *words]
    with subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        for line in process.stdout:
            said.append(line)
            found = STEP_LINE.search(line)
            if found:
                seen.setdefault(int(found[1]), time.perf_counter() - began)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{''.join(said[-20:])}")
    last = max(seen)
    return seen[1], (last - WARM) / (seen[last] - seen[WARM])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", help="a Python that has LeRobot 0.6")
    parser.add_argument("--network", choices=SIZES, default="published")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lerobot_bench_training")
    args = parser.parse_args()
    if not (args.data / "meta/info.json").exists():
        record(args.data, episodes=10, length=150, cameras=["top", "wrist"], height=96, width=96)
    pythons = {"ours": sys.executable} | ({"reference": args.reference} if args.reference else {})
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for workers in args.workers:
                for side, python in pythons.items():
                    output = Path(folder) / f"{side}_{workers}_{repeat}"
                    measured = run(side, python, flags(args, output, workers=workers))
                    found.setdefault((side, workers), []).append(measured)
                    print(f"{side:<10} {workers} workers: first step after {measured[0]:6.2f} s, ", end="")
                    print(f"{measured[1]:6.2f} steps/s", flush=True)
    best = {}
    for side in pythons:
        runs = [found[side, workers] for workers in args.workers]
        start = min(statistics.median(one[0] for one in some) for some in runs)
        rate = max(statistics.median(one[1] for one in some) for some in runs)
        best[side] = start, rate
        print(f"best of {side}: first step after {start:.2f} s, {rate:.2f} steps/s")
    if args.reference:
        print(f"start: {best['ours'][0] / best['reference'][0]:.2f} of the reference's (wanted <= 0.33)")
        print(f"rate: {best['ours'][1] / best['reference'][1]:.2f} x the reference's (wanted >= 2)")


if __name__ == "__main__":
    main()
