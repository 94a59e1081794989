"""PushT: push a T-shaped block onto its outline (Chi et al. 2023), from the `gym-pusht` package.

Its observations and actions are already what our environments use: one picture, the pusher's x and y, and a
wished x and y, in the units of its plane, 0 to 512. This file settles its screen and adds what it lacks: a
task text, an end to an episode, errors for bad actions.
"""

import os
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.core.optional import require
from lerobot.core.types import PolicyFeature
from lerobot.envs.base import EnvConfig, checked_action, policy_view, vector_feature, video_feature
from lerobot.envs.experts.pusht import PushTPlanner

TASK = "Push the T-shaped block onto the T-shaped target."
POSITION_NAMES = ("motor_0", "motor_1")
NUM_KEYPOINT_VALUES = 16  # x and y of eight corners of the block


@EnvConfig.register_subclass("pusht")
@dataclass(kw_only=True)
class PushTEnvConfig(EnvConfig):
    """PushT of the gym-pusht package."""

    packages: ClassVar[tuple[str, ...]] = ("gym-pusht", "pymunk", "pygame")

    # Name of the task; there is one.
    task: str | None = "PushT-v0"
    # Control steps per second.
    fps: int = 10
    # Control steps after which an episode that has not succeeded is cut off.
    episode_length: int = 300
    # A picture and the pusher, or the corners of the block and the pusher.
    obs_type: Literal["pixels_agent_pos", "environment_state_agent_pos"] = "pixels_agent_pos"
    # Height of observed pictures, in pixels.
    observation_height: int = 384
    # Width of observed pictures, in pixels.
    observation_width: int = 384
    # Height of the pictures of `render()`, in pixels.
    visualization_height: int = 384
    # Width of the pictures of `render()`, in pixels.
    visualization_width: int = 384

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "PushT-v0":
            raise ConfigError(f"--env.task={self.task}: the only task of pusht is PushT-v0.")
        if self.fps != 10:
            raise ConfigError(f"--env.fps={self.fps}: gym-pusht always runs at 10 control steps per second.")

    def build(self) -> "PushTEnv":
        """A new environment.

        Raises:
            MissingExtraError: gym-pusht is not installed.
        """
        return PushTEnv(self)

    @property
    def features(self) -> dict[str, PolicyFeature]:
        """One picture (3, H, W) or the block's corners (16,), the pusher (2,), action (2,)."""
        return policy_view(self.dataset_features())

    def dataset_features(self) -> dict[str, dict[str, Any]]:
        """The feature table of a data set recorded here."""
        table = {keys.STATE: vector_feature(POSITION_NAMES), keys.ACTION: vector_feature(POSITION_NAMES)}
        if self.obs_type == "pixels_agent_pos":
            return table | {
                keys.IMAGE: video_feature(height=self.observation_height, width=self.observation_width)
            }
        corners = [f"corner_{i}.{axis}" for i in range(NUM_KEYPOINT_VALUES // 2) for axis in "xy"]
        return table | {keys.ENV_STATE: vector_feature(corners)}


class PushTEnv(gymnasium.Wrapper):
    """gym-pusht with our habits: see `lerobot.envs.base`."""

    def __init__(self, cfg: PushTEnvConfig):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            os.environ.setdefault(
                "SDL_VIDEODRIVER", "dummy"
            )  # pygame draws in memory, but wants a screen to start
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        inner = require("gym_pusht.envs.pusht", extra="pusht").PushTEnv(
            obs_type=cfg.obs_type,
            render_mode="rgb_array",
            observation_width=cfg.observation_width,
            observation_height=cfg.observation_height,
            visualization_width=cfg.visualization_width,
            visualization_height=cfg.visualization_height,
        )
        super().__init__(inner)
        self.cfg = cfg
        self.is_watched = True
        self.task = cfg.task
        self.task_description = TASK
        self.experts, self.expert_noise = {"planner": self.make_expert}, 2.0
        self.episode_seed = 0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Start an episode; `seed` fixes all of it."""
        self._steps = 0
        inner: Any = self.env.unwrapped
        inner.obs_type = self.cfg.obs_type
        self.episode_seed = self.episode_seed + 1 if seed is None else seed
        return self.env.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        """Steer towards `action` (2,), x and y in 0..512, for one control step.

        Raises:
            UserError: the action has another shape or holds numbers that are not finite.
        """
        action = checked_action(action, POSITION_NAMES).astype(np.float32)
        # the inner environment draws a picture for every observation but a "state"
        inner: Any = self.env.unwrapped
        is_drawn = self.is_watched or self.cfg.obs_type != "pixels_agent_pos"
        inner.obs_type = self.cfg.obs_type if is_drawn else "state"
        observation, reward, is_done, is_over_time, info = self.env.step(action)
        if not is_drawn:
            observation = {"agent_pos": observation[:2]}
        self._steps += 1
        is_over_time = is_over_time or (self._steps >= self.cfg.episode_length and not is_done)
        return observation, float(reward), bool(is_done), is_over_time, info

    def make_expert(self, noise: float = 0.0) -> PushTPlanner:
        """A planner for the episode that has just been reset; the episode's seed fixes its noise.

        Args:
            noise: standard deviation of executed x and y around recorded ones.
        """
        return PushTPlanner(self.env, noise=noise, seed=self.episode_seed)
