"""Episodes per second of `lerobot-eval` on PushT, beside LeRobot's with the same checkpoint if it is given.

    .venv/bin/python benchmarks/evaluation.py [--reference /path/to/python --reference_path FOLDER] [CASE ...]

The policies are ACTs of random weights, so an episode is as long as it may be. Both sides run the same
command in turn. "eval" is the time that they write down themselves, without Python's start and the policy's
loading; "all" is the command from its start to its end. In both, ten episodes are filmed.

The reference's processes of environments do not know gym-pusht, and stumble over its lack of a task text;
both is mended for it here. "reference, one process" is --eval.use_async_envs=false, which needs no mending.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ONE_PROCESS = "reference, one process"
ROOT = Path(__file__).parents[1]
MODULES = {"ours": "lerobot.scripts.eval", "reference": "lerobot.scripts.lerobot_eval"}
MENDING = """
from gym_pusht.envs.pusht import PushTEnv
PushTEnv.task = PushTEnv.task_description = "Push the T-shaped block onto the T-shaped target."
"""
SMALL = {"dim_model": 128, "n_heads": 4, "dim_feedforward": 256, "n_encoder_layers": 2}
CASES: dict[str, tuple[int, dict]] = {  # sides of the picture, fields of the config
    "published": (384, {}),
    "small": (96, SMALL),
    "often": (96, SMALL | {"n_action_steps": 8}),  # as Diffusion does
    "always": (96, SMALL | {"n_action_steps": 1}),
}


def make(folder: Path, case: str) -> list[str]:
    """Store a policy of random weights with its processors, and return the flags of the environment."""
    from lerobot.envs.pusht import PushTEnvConfig
    from lerobot.policies.act.config import ACTConfig
    from lerobot.policies.act.policy import ACTPolicy
    from lerobot.policies.processors import make_pre_post_processors

    side, fields = CASES[case]
    env = PushTEnvConfig(observation_height=side, observation_width=side)
    features = dict(env.features)
    outputs = {"action": features.pop("action")}
    config = ACTConfig(
        input_features=features,
        output_features=outputs,
        pretrained_backbone_weights=None,
        device="cpu",
        **fields,
    )
    torch.manual_seed(0)
    ACTPolicy(config).save_pretrained(folder)
    plane = {"mean": torch.full((2,), 256.0), "std": torch.full((2,), 100.0)}
    color = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)}
    stats = {name: color if "image" in name else plane for name in (*features, *outputs)}
    for pipeline in make_pre_post_processors(config, dataset_stats=stats):
        pipeline.save_pretrained(folder)
    return ["--env.type=pusht", f"--env.observation_height={side}", f"--env.observation_width={side}"]


def run(side: str, python: str, folder: Path, flags: list[str], args: argparse.Namespace) -> dict[str, float]:
    """Seconds of one command, in all and by its own account."""
    out = folder / f"{side}_{time.monotonic_ns()}"
    (folder / "mending").mkdir(exist_ok=True)
    (folder / "mending" / "sitecustomize.py").write_text(MENDING)
    paths = [str(ROOT)] if side == "ours" else [str(folder / "mending"), args.reference_path or ""]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"HF_HUB_OFFLINE": "1", "SDL_VIDEODRIVER": "dummy", "PYTHONPATH": os.pathsep.join(paths)}
    words = [
        f"--policy.path={folder}",
        "--policy.device=cpu",
        f"--eval.n_episodes={args.episodes}",
        f"--eval.batch_size={args.batch_size}",
        f"--output_dir={out}",
        *(["--eval.use_async_envs=false"] if side == ONE_PROCESS else []),
        *flags,
    ]
    started_s = time.perf_counter()
    subprocess.run(
        [python, "-m", MODULES[side.split(",")[0]], *words],
        env=env,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=None if args.verbose else subprocess.DEVNULL,
    )
    all_s = time.perf_counter() - started_s
    found = json.loads((out / "eval_info.json").read_text())
    return {"eval": found["overall"]["eval_s"], "all": all_s}


def main() -> None:
    """Print a row per policy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=[], metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--reference", help="a Python that has LeRobot 0.6.1")
    parser.add_argument("--reference_path", help="its PYTHONPATH, for gym-pusht")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=4, help="environments")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--verbose", action="store_true", help="show what the commands say")
    args = parser.parse_args()
    sides = {"ours": sys.executable}
    if args.reference:
        sides |= {"reference": args.reference, ONE_PROCESS: args.reference}
    print(f"{args.episodes} episodes, {args.batch_size} environments, {os.cpu_count()} cores; episodes/s")
    print(
        f"{'policy':10} {'':5}" + "".join(f" {side:>10}" for side in sides) + " ratio" * bool(args.reference)
    )
    for case in args.cases or CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            flags = make(folder, case)
            found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for _ in range(args.repeats):
                for side, python in sides.items():
                    found[side].append(run(side, python, folder, flags, args))
        for what in ("eval", "all"):
            rates = [args.episodes / statistics.median(one[what] for one in runs) for runs in found.values()]
            row = f"{case:10} {what:5}"
            row += "".join(
                f" {rate:{max(10, len(side))}.3f}" for side, rate in zip(sides, rates, strict=True)
            )
            print(row + (f" {rates[0] / max(rates[1:]):5.2f}" if args.reference else ""), flush=True)


if __name__ == "__main__":
    main()
