"""How often the scripted experts succeed, and how fast they are; states only, nothing is drawn.

python benchmarks/experts.py --env=pusht                   its expert, without noise and with its usual noise
python benchmarks/experts.py --env=metaworld --task=all --episodes=10
python benchmarks/experts.py --env=aloha --task=AlohaTransferCube-v0
"""

import argparse
import time

from lerobot.control.attempts import Driver, world_with_expert
from lerobot.core import keys
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.interval import wilson_interval

FIRST_SEED = 1000
STATE_OBS = {"pusht": "environment_state_agent_pos"}  # how an environment calls states alone; others: "state"


def main() -> None:
    """Print one row for each task and noise."""
    args = read_args()
    kind = EnvConfig.get_choice_class(args.env)
    flags = {"obs_type": STATE_OBS.get(args.env, "state")} | ({"task": args.task} if args.task else {})
    cfg = kind(**flags)
    print("| task | noise | succeeded | 95 % interval | steps | s per episode |\n|---|---|---|---|---|---|")
    for task in cfg.tasks:
        env = cfg.with_task(task).build()
        usual = world_with_expert(env).expert_noise
        for noise in [0.0, usual] if args.noise is None else [args.noise]:
            print(row(env, noise=noise, episodes=args.episodes, name=f"{args.env} {task.name}"), flush=True)
        env.close()


def row(env, *, noise: float, episodes: int, name: str) -> str:
    """One line of the table."""
    driver, lengths = Driver(noise=noise), []
    start_s = time.perf_counter()
    for seed in range(FIRST_SEED, FIRST_SEED + episodes):
        frames = list(driver.attempt(env, seed=seed, is_stopped=lambda: False))
        lengths += [len(frames)] if frames[-1][keys.SUCCESS][0] else []
    each_s = (time.perf_counter() - start_s) / episodes
    low, high = wilson_interval(len(lengths), episodes)
    steps = f"{sum(lengths) / len(lengths):.0f}" if lengths else ""
    share = f"{len(lengths)} of {episodes} | {low:.2f} to {high:.2f}"
    return f"| {name} | {noise:g} | {share} | {steps} | {each_s:.2f} |"


def read_args() -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="so101", help="aloha, metaworld, pusht or so101")
    parser.add_argument(
        "--task", default=None, help="as --env.task of the commands; default: the environment's"
    )
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument(
        "--noise", type=float, default=None, help="default: 0, then the environment's usual one"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
