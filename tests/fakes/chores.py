"""Two small chores with scripted experts: walk to a place on a line. Nothing here loads torch.

Episode `seed` begins at `seed` % 7 / 10 metres. An action is a step; within 0.05 of the place it succeeds.
The expert "stumbler" stands still in every third episode.
"""

import os
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np

from lerobot.core import keys
from lerobot.envs.base import EnvConfig, Task, policy_view, vector_feature

PLACES = {"left": -1.0, "right": 1.0}


@dataclass(kw_only=True)
class ChoresConfig(EnvConfig):
    """Not registered: the families of a test process stay as they are."""

    type: ClassVar[str] = "chores"
    task: str | None = "left,right"
    episode_length: int = 30
    crash_seed: int | None = None  # the simulator crashes in this episode
    step_s: float = 0.0  # that a step takes

    @property
    def tasks(self):
        return [Task("chores", list(PLACES).index(name), name) for name in str(self.task).split(",")]

    def build(self):
        return Chore(self)

    @property
    def features(self):
        return policy_view(self.dataset_features())

    def dataset_features(self) -> dict[str, Any]:
        return {keys.STATE: vector_feature(["x", "has_torch"]), keys.ACTION: vector_feature(["step"])}


class Chore(gymnasium.Env):
    def __init__(self, cfg: ChoresConfig):
        (task,) = cfg.tasks
        self.cfg, self.place = cfg, PLACES[str(task.name)]
        self.task_description = f"walk {task.name}"
        self.experts = {"walker": self.make_expert, "stumbler": self.make_stumbler}
        self.expert_noise = 0.01

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps, self.x = seed, 0, seed % 7 / 10
        return self.observe(), {}

    def step(self, action):
        time.sleep(self.cfg.step_s)
        if self.seed == self.cfg.crash_seed:
            os._exit(11)
        self.steps += 1
        self.x += float(action[0])
        is_there = abs(self.x - self.place) < 0.05
        is_over_time = self.steps >= self.cfg.episode_length and not is_there
        return self.observe(), float(is_there), is_there, is_over_time, {"is_success": is_there}

    def observe(self):
        return {"agent_pos": np.array([self.x, "torch" in sys.modules], np.float32)}

    def make_expert(self, noise=0.0):
        rng = np.random.default_rng(self.seed)

        def step():
            clean = np.clip(self.place - self.x, -0.2, 0.2)
            executed = np.array([clean + noise * rng.standard_normal()], np.float32)
            return SimpleNamespace(recorded=np.array([clean], np.float32), executed=executed)

        return SimpleNamespace(step=step)

    def make_stumbler(self, noise=0.0):
        still = SimpleNamespace(recorded=np.zeros(1, np.float32), executed=np.zeros(1, np.float32))
        return SimpleNamespace(step=lambda: still) if self.seed % 3 == 0 else self.make_expert(noise)
