"""How fast each environment that is installed here steps and draws, as it is and with fast rendering.

python benchmarks/envs.py
.venv-envs/bin/python benchmarks/envs.py       (after: make envs; has ALOHA and Meta-World too)
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable

import numpy as np

from lerobot.core.errors import LeRobotError
from lerobot.envs.base import EnvConfig
from lerobot.sim import gl

SECONDS = 2.0
PLAIN = {"pusht": "environment_state_agent_pos", "so101": "state", "aloha": "state", "metaworld": "state"}
SIZES = {"small": (96, 96), "as published": None}


def main() -> None:
    """Measure and print one line per figure."""
    ability = "can" if gl.has_renderer() else "cannot"
    print(f"MUJOCO_GL={gl.choose_backend()}, {ability} draw, {os.cpu_count()} cores")
    for name in EnvConfig.get_known_choices():
        try:
            measure(name)
        except LeRobotError as error:
            print(f"{'':10}  {name}: {error}")


def measure(name: str) -> None:
    """Print the figures of one environment."""
    kind = EnvConfig.get_choice_class(name)
    if name in PLAIN:
        report(kind(obs_type=PLAIN[name]), f"{name}: control steps/s without pictures")
    fields = {field.name for field in dataclasses.fields(kind)}
    speeds = (
        ((False, "as the package draws"), (True, "fast")) if "fast_rendering" in fields else ((None, ""),)
    )
    for size_name, size in SIZES.items():
        for is_fast, how in speeds:
            settings = {} if is_fast is None else {"fast_rendering": is_fast}
            if size is not None:
                settings |= {"observation_height": size[0], "observation_width": size[1]}
            cfg = kind(**settings)
            shown = f"{cfg.observation_height}x{cfg.observation_width}, {size_name}"
            report(cfg, f"{name}: control steps/s, every camera {shown}{', ' if how else ''}{how}")


def report(cfg: EnvConfig, what: str) -> None:
    """One line: steps per second with an action that holds still."""
    env = cfg.with_task(cfg.tasks[0]).build()
    observation, _ = env.reset(seed=0)
    shape = env.action_space.shape
    state = observation["agent_pos"]
    still = state if state.shape == shape and cfg.type != "metaworld" else np.zeros(shape, dtype=np.float32)
    print(f"{rate(functools.partial(step, env, still)):10.1f}  {what}")
    env.close()


def step(env: object, action: np.ndarray) -> None:
    """One step, and a new episode where one has ended."""
    *_, is_done, is_over_time, _ = env.step(action)
    if is_done or is_over_time:
        env.reset(seed=0)


def rate(call: Callable[[], object]) -> float:
    """Calls per second, after one that does not count."""
    call()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        call()
        count += 1
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
