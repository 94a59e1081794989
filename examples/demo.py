"""The main job: collect demonstrations in simulation, train ACT on them, evaluate it, show the result.

    python examples/demo.py             minutes on two CPU cores; a GPU is used when there is one
    python examples/demo.py --seed=1    other demonstrations, weights and order of the data

It only runs the public commands and prints each of them, so that they can be copied. Without a library that
renders pictures it goes on with joint positions and object poses, and without videos.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lerobot.core.clock import readable_duration
from lerobot.sim.gl import has_renderer

EPISODES, STEPS, EVALUATIONS = 60, 1000, 50
# A small ACT: short chunks, a ten-layer ResNet, a narrow transformer.
SMALL_ACT = {
    "vision_backbone": "resnet10",
    "pretrained_backbone_weights": "null",
    "chunk_size": 20,
    "n_action_steps": 10,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 256,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 2,
    "latent_dim": 16,
    "dropout": 0.0,
    "optimizer_lr": 1e-3,
    "optimizer_lr_backbone": 1e-3,
}


def main() -> None:
    """Run the three commands and say where everything is."""
    args = read_args()
    folder = Path(args.output_dir) / f"seed_{args.seed}"
    if folder.exists():
        print(f"Removing the earlier demo in {folder}.")
        shutil.rmtree(folder)
    env = ["--env.type=so101", f"--env.difficulty={args.difficulty}"]
    if not has_renderer():
        print("No renderer: going on without cameras. On Debian: apt-get install libegl1 libgl1-mesa-dri")
        env.append("--env.obs_type=state")
    data = ["--dataset.repo_id=local/so101_demo", f"--dataset.root={folder / 'dataset'}"]
    policy = [f"--policy.{name}={value}" for name, value in SMALL_ACT.items()]
    schedule = ["--lr_scheduler=diffuser", "--scheduler.name=cosine", "--scheduler.num_warmup_steps=50"]
    train = ["--policy.type=act", "--policy.push_to_hub=false", *policy, *schedule, f"--seed={args.seed}"]
    train += ["--batch_size=16", f"--steps={args.steps}", "--log_freq=50", f"--save_freq={args.steps}"]
    train += ["--num_workers=1", "--eval_freq=0", f"--output_dir={folder / 'train'}"]
    checkpoint = folder / "train/checkpoints/last/pretrained_model"

    started_s = time.perf_counter()
    run("collect", [*env, *data, f"--num_episodes={args.episodes}", f"--seed={10_000 * (args.seed + 1)}"])
    run("train", [*data, *train])
    evaluation = [f"--policy.path={checkpoint}", *env, f"--eval.n_episodes={args.evaluations}", "--seed=1000"]
    run("eval", [*evaluation, f"--output_dir={folder / 'eval'}"])
    overall = json.loads((folder / "eval/eval_info.json").read_text())["overall"]
    low, high = overall["success_rate_interval"]
    took = readable_duration(time.perf_counter() - started_s)
    print(f"\nThe cube went into the bin in {overall['success_rate']:.0%} of {args.evaluations} episodes")
    print(f"it had never seen (95 % interval {low:.0%} to {high:.0%}). All of it took {took}.")
    print(f"Curve, table and videos: {folder / 'eval/report.html'}")


def run(command: str, flags: list[str]) -> None:
    """Run one of our commands, printed as a person would type it; a failure ends the demo."""
    print(f"\n$ lerobot-{command} {shlex.join(flags)}", flush=True)
    words = [sys.executable, "-m", f"lerobot.scripts.{command}", *flags]
    code = subprocess.run(words, env=os.environ, check=False).returncode
    if code:
        sys.exit(code)


def read_args() -> argparse.Namespace:
    """The demo's own few flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of demonstrations, weights and sample order"
    )
    parser.add_argument("--difficulty", default="easy", choices=("easy", "medium", "hard"))
    parser.add_argument("--episodes", type=int, default=EPISODES, help="demonstrations to collect")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help="episodes to evaluate")
    parser.add_argument("--output_dir", default="outputs/demo")
    return parser.parse_args()


if __name__ == "__main__":
    main()
