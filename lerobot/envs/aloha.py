"""ALOHA in simulation: two arms insert a peg or hand over a cube (Zhao et al. 2023), from `gym-aloha`.

The package's scene and reward are used; steps, seeds and pictures are ours. Its own environment draws three
pictures of 480x640 per step, whatever is observed, and keeps the layout of an episode in a global variable.

    action (14,) rad, grippers 0..1 --10 physics steps--> agent_pos (14,), pixels {"top": (H, W, 3)}

Reward: 4 when the task is done, 1 to 3 for the steps towards it; the episode ends with 4.
"""

import threading
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from lerobot.core import keys
from lerobot.core.errors import ConfigError, suggest
from lerobot.core.optional import require
from lerobot.core.types import PolicyFeature
from lerobot.envs.base import (
    SLOW_DRAWING,
    EnvConfig,
    checked_action,
    observation_space,
    policy_view,
    vector_feature,
    video_feature,
)
from lerobot.envs.experts.aloha import AlohaExpert
from lerobot.sim import gl
from lerobot.sim.drawing import Drawing

CAMERA = "top"
SUCCESS_REWARD = 4
NUM_ARM_VALUES = 16  # of the simulation: each arm has 6 joints and two fingers
ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
JOINTS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ARM)
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
_LAYOUT = threading.Lock()  # over the package's global variable


@dataclass(frozen=True)
class AlohaTask:
    """One of the two tasks, and what it is called in the package."""

    description: str
    model: str
    judge: str
    things: tuple[str, ...]


TASKS = {
    "AlohaInsertion-v0": AlohaTask(
        description="Insert the peg into the socket.",
        model="bimanual_viperx_insertion.xml",
        judge="InsertionTask",
        things=("peg", "socket"),
    ),
    "AlohaTransferCube-v0": AlohaTask(
        description="Pick up the cube with the right arm and transfer it to the left arm.",
        model="bimanual_viperx_transfer_cube.xml",
        judge="TransferCubeTask",
        things=("cube",),
    ),
}


@EnvConfig.register_subclass("aloha")
@dataclass(kw_only=True)
class AlohaEnvConfig(EnvConfig):
    """ALOHA of the gym-aloha package."""

    packages: ClassVar[tuple[str, ...]] = ("gym-aloha", "dm-control", "mujoco")

    # Name of the task: AlohaInsertion-v0 or AlohaTransferCube-v0.
    task: str | None = "AlohaInsertion-v0"
    # Control steps per second.
    fps: int = 50
    # Control steps after which an episode that has not succeeded is cut off.
    episode_length: int = 400
    # A picture and joints, the picture alone, or joints and the poses of things (needs no renderer).
    obs_type: Literal["pixels_agent_pos", "pixels", "state"] = "pixels_agent_pos"
    # Height of observed pictures, in pixels.
    observation_height: int = 480
    # Width of observed pictures, in pixels.
    observation_width: int = 640
    # What `render()` gives; there is one way.
    render_mode: Literal["rgb_array"] = "rgb_array"
    # Draw without shadows, reflections and smooth edges: many times as fast in software, other pictures.
    fast_rendering: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in TASKS:
            raise ConfigError(
                f"--env.task={self.task}: the tasks of aloha are {', '.join(TASKS)}."
                f"{suggest(str(self.task), TASKS)}"
            )
        if self.fps != 50:
            raise ConfigError(f"--env.fps={self.fps}: gym-aloha always runs at 50 control steps per second.")

    def build(self) -> "AlohaEnv":
        """A new environment.

        Raises:
            MissingExtraError: gym-aloha is not installed.
        """
        return AlohaEnv(self)

    @property
    def features(self) -> dict[str, PolicyFeature]:
        """One picture (3, H, W) or the poses of things (7 or 14,), joints (14,), action (14,)."""
        return policy_view(self.dataset_features())

    def dataset_features(self) -> dict[str, dict[str, Any]]:
        """The feature table of a data set recorded here."""
        table = {keys.ACTION: vector_feature(JOINTS)}
        if self.obs_type != "pixels":
            table[keys.STATE] = vector_feature(JOINTS)
        if self.obs_type == "state":
            names = [f"{thing}.{axis}" for thing in TASKS[str(self.task)].things for axis in POSE]
            return table | {keys.ENV_STATE: vector_feature(names)}
        picture = video_feature(height=self.observation_height, width=self.observation_width)
        return table | {keys.IMAGES_PREFIX + CAMERA: picture}


class AlohaEnv(gymnasium.Env):
    """Two ViperX arms over a table: see `lerobot.envs.base`.

    Joints are in radians; a gripper is 0 when closed and 1 when open.
    """

    render_mode = "rgb_array"

    def __init__(self, cfg: AlohaEnvConfig):
        gl.choose_backend()
        self._sim = require("gym_aloha.tasks.sim", extra="aloha")
        self._layouts = require("gym_aloha.utils", extra="aloha")
        constants = require("gym_aloha.constants", extra="aloha")
        control = require("dm_control.mujoco", extra="aloha")
        self.cfg = cfg
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": cfg.fps}
        self.task = cfg.task
        task = TASKS[str(cfg.task)]
        self.task_description = task.description
        self.physics = control.Physics.from_xml_path(str(constants.ASSETS_DIR / task.model))
        self._judge = getattr(self._sim, task.judge)()
        self._substeps = round(1 / (cfg.fps * self.physics.timestep()))
        self._drawing = Drawing(self.physics.model.ptr, advice=SLOW_DRAWING)
        self._limits = self.physics.model.actuator_ctrlrange.T.copy()  # (2, 16)
        self.action_space = spaces.Box(-np.pi, np.pi, (len(JOINTS),), np.float32)
        self.observation_space = observation_space(cfg.dataset_features())
        self.is_watched = True
        self.experts, self.expert_noise = {"scripted": self.make_expert}, 0.005
        self.episode_seed = 0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode; `seed` fixes all of it, and of those that follow without one."""
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        with _LAYOUT, self.physics.reset_context():
            self._sim.BOX_POSE[0] = self._layout(self.episode_seed)
            self._judge.initialize_episode(self.physics)
        self._steps = 0
        return self._observe(), {"is_success": False, "is_clipped": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Hold the joint targets `action` (14,) for one control step.

        Raises:
            UserError: the action has another shape or holds numbers that are not finite.
        """
        self._judge.before_step(checked_action(action, JOINTS), self.physics)
        self.physics.step(self._substeps)
        self._steps += 1
        reward = float(self._judge.get_reward(self.physics))
        is_success = reward == SUCCESS_REWARD
        is_over_time = self._steps >= self.cfg.episode_length and not is_success
        targets, (lower, upper) = self.physics.data.ctrl, self._limits
        is_clipped = bool(((targets < lower) | (targets > upper)).any())
        info = {"is_success": is_success, "is_clipped": is_clipped}
        return self._observe(), reward, is_success, is_over_time, info

    def render(self) -> np.ndarray:
        """The `top` camera, (480, 640, 3) uint8."""
        return self._picture(height=480, width=640)

    def close(self) -> None:
        """Free the drawing contexts."""
        self._drawing.close()

    def make_expert(self, noise: float = 0.0) -> AlohaExpert:
        """An expert for the episode that has just been reset; the episode's seed fixes its noise too.

        Args:
            noise: standard deviation in rad of executed joints around recorded ones.
        """
        model, data = self.physics.model.ptr, self.physics.data.ptr
        is_transfer = self.task == "AlohaTransferCube-v0"
        task = "transfer_cube" if is_transfer else "insertion"
        return AlohaExpert(model, data, task=task, noise=noise, seed=self.episode_seed)

    def _layout(self, seed: int) -> np.ndarray:
        """Poses of the things (7,) or (14,), drawn as the package draws them: seeds mean the same there."""
        if self.task == "AlohaInsertion-v0":
            return np.concatenate(self._layouts.sample_insertion_pose(seed))
        return self._layouts.sample_box_pose(seed)

    def _observe(self) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        if self.cfg.obs_type != "pixels":
            seen["agent_pos"] = self._judge.get_qpos(self.physics).astype(np.float32)
        if self.cfg.obs_type == "state":
            return seen | {"environment_state": self.physics.data.qpos[NUM_ARM_VALUES:].astype(np.float32)}
        if not self.is_watched:
            return seen
        picture = self._picture(height=self.cfg.observation_height, width=self.cfg.observation_width)
        return seen | {"pixels": {CAMERA: picture}}

    def _picture(self, *, height: int, width: int) -> np.ndarray:
        data, is_fast = self.physics.data.ptr, self.cfg.fast_rendering
        return self._drawing.picture(data, CAMERA, width=width, height=height, is_fast=is_fast)
