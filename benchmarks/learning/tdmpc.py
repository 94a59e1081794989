"""TD-MPC learns to swing a pendulum up, online, from nothing: its return before, on the way, and in the end.

    .venv/bin/python benchmarks/learning/tdmpc.py [--seeds 1 2 3] [--steps 4000] [--output_dir FOLDER]

Each seed is one `lerobot-train --online_training=true` (printed before it runs) on Gymnasium's Pendulum-v1,
whose rewards are dense: 0 upright and still, down to -16 per step. The first 1,000 steps in the environment
are random; then there is one optimizer step per step. The policy is small, so that a CPU does it in minutes.

"random" is the mean return of the episodes with random actions, "at step N" that of fixed episodes that
training never meets, with its 95 % interval (Student's t over the episodes).
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

ENV = ["--env.type=gym", "--env.task=Pendulum-v1", "--env.episode_length=200"]
SETTINGS = [
    "--policy.type=tdmpc",
    "--policy.device=cpu",
    "--policy.push_to_hub=false",
    "--policy.mlp_dim=128",
    "--policy.latent_dim=32",
    "--policy.state_encoder_hidden_dim=64",
    "--policy.n_gaussian_samples=128",
    "--policy.n_pi_samples=16",
    "--policy.n_elites=16",
    "--policy.cem_iterations=4",
    "--policy.discount=0.95",
    "--policy.optimizer_lr=1e-3",
    *ENV,
    "--online_training=true",
    "--online.steps_before_learning=1000",
    "--batch_size=64",
    "--log_freq=500",
    "--eval_freq=0",
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
RANDOM_EPISODES = 5  # of 200 steps: all before learning begins
EVALUATED = 20  # episodes
T_95 = 2.093  # 97.5 % quantile of Student's t for so many


def train(folder: Path, *, seed: int, steps: int) -> float:
    """One run with a checkpoint half-way and at the end; the seconds it took."""
    words = [*SETTINGS, f"--output_dir={folder}", f"--seed={seed}"]
    words += [f"--steps={steps}", f"--save_freq={steps // 2}"]
    print(shlex.join(["lerobot-train", *words]), flush=True)
    began_s = time.perf_counter()
    run("lerobot.scripts.train", *words)
    return time.perf_counter() - began_s


def evaluate(checkpoint: Path) -> list[float]:
    """The returns of fixed episodes."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--policy.path={checkpoint}", "--policy.device=cpu", *ENV, "--seed=500000"]
        words += [f"--eval.n_episodes={EVALUATED}", "--eval.batch_size=1", f"--output_dir={folder}/eval"]
        run("lerobot.scripts.eval", *words)
        found = json.loads(Path(folder, "eval", "eval_info.json").read_text(encoding="utf-8"))
    return found["per_task"][0]["metrics"]["sum_rewards"]


def run(module: str, *words: str) -> None:
    """Run a command of ours; what it says is shown if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words], env=ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def random_return(folder: Path) -> float:
    """The mean return of a run's first episodes."""
    paths = sorted((folder / "experience").glob("episode_*.safetensors"))[:RANDOM_EPISODES]
    return statistics.mean(float(load_file(path)["next.reward"].sum()) for path in paths)


def with_interval(returns: list[float]) -> str:
    """Mean and 95 % interval."""
    half = T_95 * statistics.stdev(returns) / math.sqrt(len(returns))
    return f"{statistics.mean(returns):.0f} ± {half:.0f}"


def main() -> None:
    """Print a row per seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps")
    parser.add_argument("--output_dir", type=Path, help="where the runs stay; else they are deleted")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in args.seeds:
            folder = (args.output_dir or Path(temporary)) / f"seed_{seed}"
            took_s = train(folder, seed=seed, steps=args.steps)
            steps = (args.steps // 2, args.steps)
            returns = [evaluate(folder / "checkpoints" / f"{step:06d}") for step in steps]
            row = [f"{random_return(folder):.0f}", *map(with_interval, returns), f"{took_s:.0f} s"]
            rows.append(f"| {seed} | {' | '.join(row)} |")
            print(rows[-1], flush=True)
    print(f"\n| seed | random | at step {args.steps // 2:,} | at step {args.steps:,} | training took |")
    print("\n".join(["|---|---|---|---|---|", *rows]))


if __name__ == "__main__":
    main()
