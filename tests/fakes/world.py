"""A world as small as can be: a walker on a line, and an environment config for it. Loads without torch.

Episode `seed` begins at 1 + seed % 5 metres; an action is a step in metres; within 0.15 of zero it succeeds.
"""

import os
import random
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from lerobot.core.errors import EnvironmentSetupError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs.base import EnvConfig, Task, vector_feature, video_feature

HEIGHT, WIDTH = 9, 13  # odd on purpose
STATE, IMAGE, ACTION = "observation.state", "observation.images.top", "action"


@dataclass(kw_only=True)
class WalkConfig(EnvConfig):
    """Not registered: the families of a test process stay as they are."""

    type: ClassVar[str] = "walk"
    episode_length: int = 30
    height: int = HEIGHT
    action_size: int = 1
    can_draw: bool = True
    is_endless: bool = False  # never says that time is over
    fails_at: tuple[int, int] | None = None  # (seed, step)
    dies_at: tuple[int, int] | None = None  # (seed, step): the whole process
    pause_s: float = 0.0  # that every step takes
    wind: float = 0.0  # pushes by numbers drawn from the generators that the whole process shares
    names: tuple[str, ...] = ()  # of tasks, where there are several
    skips_pictures: bool = True  # when nobody looks
    diary: Path | None = None  # a file that gets a line for every environment and every episode
    log: list = field(default_factory=list)  # (seed, event) of every environment built from this

    def build(self):
        self.write(f"build {self.task}")
        return Walk(self)

    def write(self, line):
        if self.diary is not None:
            with self.diary.open("a") as file:
                file.write(f"{os.getpid()} {line}\n")

    @property
    def tasks(self):
        return [Task("hills", i, name) for i, name in enumerate(self.names)] or super().tasks

    def with_task(self, task):
        return replace(self, task=task.name)

    @property
    def features(self):
        return {
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, self.height, WIDTH)),
            ACTION: PolicyFeature(FeatureType.ACTION, (self.action_size,)),
        }

    def dataset_features(self):
        return {
            STATE: vector_feature(("x", "steps")),
            IMAGE: video_feature(height=self.height, width=WIDTH),
            ACTION: vector_feature([f"step_{i}" for i in range(self.action_size)]),
        }


class Walk(gymnasium.Env):
    render_mode = "rgb_array"

    def __init__(self, cfg):
        self.cfg = cfg
        self.task_description = cfg.task or "walk home"
        if cfg.skips_pictures:
            self.is_watched = True
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
        self.action_space = spaces.Box(-1, 1, (cfg.action_size,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps, self.is_over = seed, 0, False
        self.x = 1.0 + (seed or 0) % 5
        self.cfg.write(f"reset {self.cfg.task} {seed} {options}")
        self.cfg.log.append((seed, "reset"))
        return self.observe(), {}

    def step(self, action):
        assert not self.is_over, "stepped after the end"
        assert action.shape == (self.cfg.action_size,)
        if self.cfg.fails_at == (self.seed, self.steps):
            raise RuntimeError("a leg broke")
        if self.cfg.dies_at == (self.seed, self.steps):
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(self.cfg.pause_s)
        gust = self.cfg.wind * (random.random() - np.random.rand())
        self.x += float(np.clip(action[0], -1, 1)) + gust
        self.steps += 1
        self.cfg.log.append((self.seed, "step"))
        is_home = abs(self.x) < 0.15
        self.is_over = is_home or (self.steps >= self.cfg.episode_length and not self.cfg.is_endless)
        return (
            self.observe(),
            1.0 - 0.1 * abs(self.x),
            is_home,
            self.is_over and not is_home,
            {"is_success": is_home},
        )

    def observe(self):
        state = np.array([self.x, self.steps], np.float32)
        if not getattr(self, "is_watched", True):
            return {"agent_pos": state}
        picture = np.full((self.cfg.height, WIDTH, 3), self.steps, np.uint8)
        return {"agent_pos": state, "pixels": {"top": picture}}

    def render(self):
        if not self.cfg.can_draw:
            raise EnvironmentSetupError("There is no screen. Type: buy one")
        return np.full((HEIGHT * 4, WIDTH * 4 + 1, 3), 40 * (self.steps % 6), np.uint8)

    def close(self):
        self.cfg.log.append((None, "close"))
