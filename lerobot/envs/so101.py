"""A simulated SO-101 that puts a cube in a bin, with the feature names and units of the real arm.

Joints are in degrees with zero in the middle of their range, the gripper goes from 0 (closed) to 100 (open).
An action is six joint targets in these units, held by position servos for one control step. Reward is 1 on
the step on which the cube has rested in the bin, let go of, for `HOLD_STEPS` steps; the episode ends there.

    action (6,) --6 servos, MuJoCo--> agent_pos (6,), pixels {camera: (H, W, 3)}, is_success
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from lerobot.core import keys
from lerobot.core.errors import ConfigError, suggest
from lerobot.core.types import PolicyFeature
from lerobot.envs.base import EnvConfig, checked_action, policy_view, vector_feature, video_feature
from lerobot.sim import tabletop
from lerobot.sim.expert import DEFAULT_NOISE, PickPlaceExpert
from lerobot.sim.geometry import FEATURE_NAMES, POSITION_LOWER, POSITION_UPPER, from_radians, to_radians
from lerobot.sim.physics import Physics
from lerobot.sim.scene import CAMERAS

HOLD_STEPS = 8
MAX_TIMESTEP_S = 0.0042
ENV_STATE_NAMES = (
    *(f"cube.{axis}" for axis in ("x", "y", "z", "qw", "qx", "qy", "qz")),
    *(f"bin.{axis}" for axis in ("x", "y", "z")),
)
ROUNDING = 1e-4  # degrees; a limit written as float32 is still inside
OVERSHOOT = 20.0  # degrees, and parts of 100, that a joint pushed against its stop may be measured beyond it


@EnvConfig.register_subclass("so101")
@dataclass(kw_only=True)
class SO101EnvConfig(EnvConfig):
    """The simulated SO-101 tabletop."""

    packages: ClassVar[tuple[str, ...]] = ("mujoco",)

    # Name of the task; there is one.
    task: str | None = "pick_place"
    # Control steps after which an episode that has not succeeded is cut off; the expert needs about 85.
    episode_length: int = 150
    # Where the cube may lie: easy, medium or hard.
    difficulty: Literal["easy", "medium", "hard"] = "easy"
    # Pictures and joints, or joints and the poses of cube and bin (needs no renderer).
    obs_type: Literal["pixels_agent_pos", "state"] = "pixels_agent_pos"
    # Cameras that are observed: front, wrist, overview.
    cameras: list[str] = field(default_factory=lambda: ["front", "wrist"])
    # Height of observed pictures, in pixels.
    observation_height: int = 96
    # Width of observed pictures, in pixels.
    observation_width: int = 96
    # Height of the pictures of `render()`, in pixels.
    visualization_height: int = 480
    # Width of the pictures of `render()`, in pixels.
    visualization_width: int = 640

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "pick_place":
            raise ConfigError(f"--env.task={self.task}: the only task of so101 is pick_place.")
        unknown = [name for name in self.cameras if name not in CAMERAS]
        if unknown or len(set(self.cameras)) < len(self.cameras):
            hint = suggest(unknown[0], CAMERAS) if unknown else ""
            raise ConfigError(
                f"--env.cameras={self.cameras}: expected different ones of {', '.join(CAMERAS)}.{hint}"
            )
        if self.obs_type == "pixels_agent_pos" and not self.cameras:
            raise ConfigError("--env.cameras=[]: give at least one, or ask for --env.obs_type=state.")

    def build(self) -> "SO101TabletopEnv":
        """A new environment."""
        return SO101TabletopEnv(self)

    @property
    def features(self) -> dict[str, PolicyFeature]:
        """Pictures (3, H, W) or the environment's state (10,), joints (6,), action (6,)."""
        return policy_view(self.dataset_features())

    def dataset_features(self) -> dict[str, dict[str, Any]]:
        """The feature table of a data set recorded here."""
        table = {keys.STATE: vector_feature(FEATURE_NAMES), keys.ACTION: vector_feature(FEATURE_NAMES)}
        if self.obs_type == "state":
            return table | {keys.ENV_STATE: vector_feature(ENV_STATE_NAMES)}
        picture = video_feature(height=self.observation_height, width=self.observation_width)
        return table | {f"{keys.IMAGES_PREFIX}{camera}": dict(picture) for camera in self.cameras}


class SO101TabletopEnv(gymnasium.Env):
    """The pick-and-place task as a Gymnasium environment.

    `info` holds "is_success", and "is_clipped": whether the last action went beyond a joint's limit and was
    held at it, as the real servos do.
    """

    render_mode = "rgb_array"

    def __init__(self, cfg: SO101EnvConfig | None = None):
        self.cfg = cfg or SO101EnvConfig()
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.cfg.fps}
        self.task = self.cfg.task
        self.task_description = tabletop.TASK
        self._substeps = int(np.ceil(1 / (self.cfg.fps * MAX_TIMESTEP_S)))
        self.physics = Physics(timestep_s=1 / (self.cfg.fps * self._substeps))
        self.action_space = spaces.Box(POSITION_LOWER.astype(np.float32), POSITION_UPPER.astype(np.float32))
        self.observation_space = self._observation_space()
        self.is_watched = True
        self.experts, self.expert_noise = {"scripted": self.make_expert}, DEFAULT_NOISE
        self.episode_seed = 0
        self._steps = self._held = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode; `seed` fixes all of it, and of those that follow without one."""
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31))
        layout = tabletop.draw_layout(self.cfg.difficulty, np.random.default_rng(self.episode_seed))
        self.physics.reset(angles=tabletop.HOME, cube=layout.cube, bin_position=layout.bin_position)
        self._steps = self._held = 0
        return self._observe(), {"is_success": False, "is_clipped": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Hold the joint targets `action` (6,) for one control step.

        Raises:
            UserError: the action has another shape or holds numbers that are not finite.
        """
        action = checked_action(action, FEATURE_NAMES)
        self.physics.set_targets(to_radians(action))
        self.physics.step(self._substeps)
        self._steps += 1
        self._held = self._held + 1 if tabletop.is_placed(self.physics) else 0
        is_success = self._held >= HOLD_STEPS
        is_over_time = self._steps >= self.cfg.episode_length and not is_success
        is_clipped = bool(((action < POSITION_LOWER - ROUNDING) | (action > POSITION_UPPER + ROUNDING)).any())
        info = {"is_success": is_success, "is_clipped": is_clipped}
        return self._observe(), float(is_success), is_success, is_over_time, info

    def render(self) -> np.ndarray:
        """The `overview` camera, (H, W, 3) uint8."""
        width, height = self.cfg.visualization_width, self.cfg.visualization_height
        return self.physics.render("overview", width=width, height=height)

    def close(self) -> None:
        """Free the drawing contexts."""
        self.physics.close()

    def make_expert(self, noise: float = 0.0) -> PickPlaceExpert:
        """An expert for the episode that has just been reset; the episode's seed fixes its noise too.

        Args:
            noise: standard deviation in rad of what is executed around what is recorded.
        """
        return PickPlaceExpert(self.physics, noise=noise, seed=self.episode_seed)

    def _observation_space(self) -> spaces.Dict:
        low, high = POSITION_LOWER - OVERSHOOT, POSITION_UPPER + OVERSHOOT
        found: dict[str, spaces.Space] = {
            "agent_pos": spaces.Box(low.astype(np.float32), high.astype(np.float32))
        }
        if self.cfg.obs_type == "state":
            far = np.full(len(ENV_STATE_NAMES), 10.0, dtype=np.float32)  # m; nothing leaves the table further
            found["environment_state"] = spaces.Box(-far, far)
        else:
            shape = (self.cfg.observation_height, self.cfg.observation_width, 3)
            found["pixels"] = spaces.Dict(
                {name: spaces.Box(0, 255, shape, np.uint8) for name in self.cfg.cameras}
            )
        return spaces.Dict(found)

    def _observe(self) -> dict[str, Any]:
        joints = from_radians(self.physics.positions).astype(np.float32)
        if self.cfg.obs_type == "state":
            things = np.concatenate([self.physics.cube_pose, self.physics.bin_position])
            return {"agent_pos": joints, "environment_state": things.astype(np.float32)}
        if not self.is_watched:
            return {"agent_pos": joints}
        width, height = self.cfg.observation_width, self.cfg.observation_height
        pixels = {name: self.physics.render(name, width=width, height=height) for name in self.cfg.cameras}
        return {"agent_pos": joints, "pixels": pixels}
