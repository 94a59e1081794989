"""Find a learning rate: a search over ACT on the simulated SO-101, a minute or two on two CPU cores.

    python examples/tune_act.py                 about ten short trials, then the report
    python examples/tune_act.py --trials=30     more of them: it goes on where the last search ended

It runs the public commands and prints each, so that they can be copied: demonstrations of the scripted expert
(joints and object poses, no cameras), one training with ACT's published learning rate, and `lerobot-tune`.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

# A small ACT on joints and object poses.
SMALL_ACT = {
    "chunk_size": 10,
    "n_action_steps": 10,
    "dim_model": 64,
    "n_heads": 4,
    "dim_feedforward": 128,
    "n_encoder_layers": 1,
    "n_vae_encoder_layers": 1,
    "latent_dim": 8,
    "push_to_hub": "false",
}
SPACE = {"policy.optimizer_lr": "log[1e-6,1e-1]", "policy.dropout": "[0,0.2]"}


def main() -> None:
    """Collect, train as published, search, compare."""
    args = read_args()
    folder = Path(args.output_dir)
    data = ["--dataset.repo_id=local/so101_tune", f"--dataset.root={folder / 'dataset'}"]
    if not (folder / "dataset").exists():
        env = ["--env.type=so101", "--env.difficulty=easy", "--env.obs_type=state"]
        run("collect", [*env, *data, f"--num_episodes={args.episodes}", "--seed=0"])
    policy = ["--policy.type=act", *(f"--policy.{name}={value}" for name, value in SMALL_ACT.items())]
    train = [*data, *policy, "--dataset.eval_split=0.2", f"--eval_steps={max(1, args.steps // 3)}"]
    train += [f"--steps={args.steps}", "--batch_size=16", "--num_workers=0", "--log_freq=20"]
    published = folder / "published"
    if not published.exists():
        run("train", [*train, f"--output_dir={published}"])
    space = [f"--space.{name}={domain}" for name, domain in SPACE.items()]
    search = [*train, *space, f"--n_trials={args.trials}", f"--n_jobs={args.jobs}"]
    run("tune", [*search, f"--output_dir={folder / 'search'}"])

    rows = [json.loads(line) for line in (published / "metrics.jsonl").read_text().splitlines()]
    before = [row["eval/loss"] for row in rows if "eval/loss" in row][-1]
    best = json.loads((folder / "search/study.json").read_text())["best"]
    print(f"\nValidation loss after {args.steps} steps: {before:.3f} with the published learning rate,")
    print(f"{best['value']:.3f} with {best['params']['policy.optimizer_lr']:.2g}.")
    print(f"All trials: {folder / 'search/report.html'}")


def run(command: str, flags: list[str]) -> None:
    """Run one of our commands, printed as a person would type it; a failure ends the example."""
    print(f"\n$ lerobot-{command} {shlex.join(flags)}", flush=True)
    words = [sys.executable, "-m", f"lerobot.scripts.{command}", *flags]
    code = subprocess.run(words, env=os.environ, check=False).returncode
    if code:
        sys.exit(code)


def read_args() -> argparse.Namespace:
    """The example's own few flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=10, help="demonstrations to collect")
    parser.add_argument("--steps", type=int, default=150, help="training steps of a trial")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2, help="trials at once")
    parser.add_argument("--output_dir", default="outputs/tune_act")
    return parser.parse_args()


if __name__ == "__main__":
    main()
