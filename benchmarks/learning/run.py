"""Demonstrations, training, evaluation of one policy on one task, with the public commands; a row of results.

    python benchmarks/learning/run.py --policy=act --task=so101 --seed=0
    python benchmarks/learning/run.py --policy=diffusion --task=push --steps=5000
    python benchmarks/learning/run.py --policy=act --task=push --set policy.chunk_size=10 train.batch_size=32

The demonstrations of a task are collected once for a seed and shared by the policies. The row is printed, and
added to `results.md` in the output folder. The evaluation's episodes are the same for every policy and seed.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from settings import RECIPES, TASKS, Task

EVALUATION_SEED = 60_000  # far from those that settings were tried with; where it was not, RESULTS.md says so
HEADER = (
    "| task | policy | seed | steps | success | 95 % interval | mean highest reward | trained | evaluated "
    "| command |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def main() -> None:
    """Run the three commands and write the row."""
    args = read_args()
    task = TASKS[args.task]
    recipe = RECIPES[args.policy, task.sees]
    own = {"policy": dict(recipe.policy), "train": dict(recipe.train)}
    for word in args.set:
        name, value = word.split("=", 1)
        room, _, flag = name.partition(".")
        own[room][flag] = value
    if args.steps:
        own["train"]["steps"] = args.steps
    data = demonstrations(args.task, task, seed=args.seed, home=args.output_dir)
    folder = args.output_dir / f"{args.policy}_{args.task}_seed{args.seed}_{time.strftime('%m%d_%H%M%S')}"
    train = [
        *data,
        f"--policy.type={args.policy}",
        "--policy.push_to_hub=false",
        *flags("policy", own["policy"]),
    ]
    train += [*flags("", own["train"]), f"--seed={args.seed}", "--eval_freq=0", "--log_freq=100"]
    num_steps = int(str(own["train"]["steps"]))
    train += [f"--save_freq={num_steps // args.points}", f"--output_dir={folder / 'train'}"]
    train_s = run("train", train)
    for step in sorted((folder / "train/checkpoints").glob("[0-9]*")):
        average = step / "pretrained_model_ema"  # of the weights, where the policy keeps one
        checkpoint = average if average.exists() else step / "pretrained_model"
        evaluation = [
            f"--policy.path={checkpoint}",
            *flags("env", task.env),
            f"--seed={args.evaluation_seed}",
        ]
        evaluation += [f"--eval.n_episodes={args.episodes}", f"--eval.max_videos={task.videos}"]
        there = folder / "eval" / step.name
        eval_s = run("eval", [*evaluation, f"--output_dir={there}"])
        found = json.loads((there / "eval_info.json").read_text())["overall"]
        share = int(step.name) / num_steps
        write_row(args, found, step=int(step.name), train_s=share * train_s, eval_s=eval_s)


def demonstrations(name: str, task: Task, *, seed: int, home: Path) -> list[str]:
    """The flags of the task's dataset, which is collected if it is not there."""
    root = home / "data" / f"{name}_seed{seed}"
    dataset = [f"--dataset.repo_id=local/{name}", f"--dataset.root={root}"]
    finished = root.with_suffix(".collected")
    if not finished.exists():
        first_seed = 100_000 * (seed + 1)  # far from the evaluation's episodes, and from other seeds'
        collect = [f"--num_episodes={task.episodes}", f"--seed={first_seed}", *flags("", task.collect)]
        run("collect", [*flags("env", task.env), *dataset, *collect])
        finished.touch()
    return dataset


def write_row(args: argparse.Namespace, found: dict, *, step: int, train_s: float, eval_s: float) -> None:
    """Print the result, and add it to the others."""
    low, high = found["success_rate_interval"]
    cells = [
        args.task,
        args.policy,
        str(args.seed),
        f"{step:,}",
        f"{found['success_rate']:.3f}",
        f"{low:.2f} to {high:.2f}",
    ]
    cells += [f"{found['avg_max_reward']:.3f}", f"{train_s:.0f} s", f"{eval_s:.0f} s"]
    row = f"| {' | '.join(cells)} | `{shlex.join(['python', *sys.argv])}` |\n"
    path = args.output_dir / "results.md"
    is_new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write((HEADER if is_new else "") + row)
    print(f"\n{HEADER}{row}added to {path}")


def flags(room: str, values: dict[str, object]) -> list[str]:
    """Settings as words of a command line."""
    return [f"--{room}{'.' if room else ''}{name}={value}" for name, value in values.items()]


def run(command: str, words: list[str]) -> float:
    """Run one of our commands, printed as a person would type it; seconds it took. A failure ends all."""
    print(f"\n$ lerobot-{command} {shlex.join(words)}", flush=True)
    start_s = time.perf_counter()
    code = subprocess.run(
        [sys.executable, "-m", f"lerobot.scripts.{command}", *words], env=os.environ, check=False
    ).returncode
    if code:
        sys.exit(code)
    return time.perf_counter() - start_s


def read_args() -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", required=True, choices=sorted({policy for policy, _ in RECIPES}))
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--seed", type=int, default=0, help="of demonstrations, weights and sample order")
    parser.add_argument("--steps", type=int, default=None, help="training steps; default: the recipe's")
    parser.add_argument("--points", type=int, default=1, help="checkpoints on the way that are evaluated")
    parser.add_argument("--episodes", type=int, default=100, help="to evaluate")
    parser.add_argument(
        "--evaluation_seed",
        type=int,
        default=EVALUATION_SEED,
        help="of the first episode; take another one to choose settings by",
    )
    parser.add_argument(
        "--set", nargs="*", default=[], help="other values of the recipe, policy.x=y or train.x=y"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/learning"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
