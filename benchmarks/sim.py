"""How fast the simulated SO-101 runs here, and how often its expert succeeds.

python benchmarks/sim.py
MUJOCO_GL=osmesa python benchmarks/sim.py
"""

import functools
import os
import time
from collections.abc import Callable

from lerobot.envs.so101 import SO101EnvConfig, SO101TabletopEnv
from lerobot.sim import gl
from lerobot.sim.expert import DEFAULT_NOISE
from lerobot.sim.geometry import from_radians
from lerobot.sim.tabletop import HOME

SECONDS = 2.0
EPISODES = 50


def main() -> None:
    """Measure and print one line per figure."""
    env = SO101EnvConfig(obs_type="state").build()
    env.reset(seed=0)
    home = from_radians(HOME)
    report("control steps/s, joints and poses observed", rate(lambda: env.step(home)))
    report("expert episodes/s, joints and poses observed", rate(lambda: run_episode(env)))
    for difficulty in ("easy", "medium", "hard"):
        for noise in (0.0, DEFAULT_NOISE):
            count = successes(difficulty, noise)
            print(f"{count:7d}/{EPISODES}  expert episodes succeeded, {difficulty}, noise {noise:g} rad")
    if not gl.has_renderer():
        print(gl.renderer_problem())
        return
    backend = os.environ.get("MUJOCO_GL", "")
    for height, width in ((96, 96), (480, 640)):
        draw = functools.partial(env.physics.render, "front", width=width, height=height)
        report(f"frames/s at {height}x{width}, MUJOCO_GL={backend}", rate(draw))
    for cameras in (["front"], ["front", "wrist"]):
        seeing = SO101EnvConfig(cameras=cameras).build()
        seeing.reset(seed=0)
        report(f"control steps/s, 96x96 {' and '.join(cameras)}", rate(functools.partial(seeing.step, home)))
        seeing.close()
    env.close()


def rate(call: Callable[[], object]) -> float:
    """Calls per second, after one that does not count."""
    call()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        call()
        count += 1
    return count / (time.perf_counter() - start)


def successes(difficulty: str, noise: float) -> int:
    """How many of the episodes with seeds 0 to EPISODES - 1 the expert solves."""
    env = SO101EnvConfig(difficulty=difficulty, obs_type="state").build()
    return sum(run_episode(env, seed=seed, noise=noise) for seed in range(EPISODES))


def run_episode(env: SO101TabletopEnv, *, seed: int | None = None, noise: float = DEFAULT_NOISE) -> bool:
    """Whether the expert succeeds in one episode."""
    env.reset(seed=seed)
    expert = env.make_expert(noise)
    while True:
        _, _, is_done, is_over_time, info = env.step(expert.step().executed)
        if is_done or is_over_time:
            return bool(info["is_success"])


def report(what: str, per_second: float) -> None:
    """One line."""
    print(f"{per_second:10.1f}  {what}")


if __name__ == "__main__":
    main()
