"""Meta-World: fifty tasks of one arm at one table (Yu et al. 2019, McLean et al. 2025), from `metaworld`.

The package's scenes, rewards and success are used; seeds and pictures are ours. Its `reset` ignores seeds.

    action (4,): x, y, z, grip in -1..1 --5 physics steps--> agent_pos (4,), pixels (H, W, 3), is_success

`state` observes what the package's own agents see, the goal included: hand, grip, two objects, all of it one
step before, goal. Difficulties are those of Seo et al. 2022 (Masked World Models).
"""

import functools
import logging
import re
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
    Task,
    checked_action,
    observation_space,
    policy_view,
    vector_feature,
    video_feature,
)
from lerobot.envs.experts.metaworld import MetaworldExpert
from lerobot.sim import gl
from lerobot.sim.drawing import Drawing

logger = logging.getLogger(__name__)
# Published pictures come from "corner2", moved to where "corner4" stands, and turned by half a turn.
CAMERA = "corner4"
PICTURE_SIZE = 480
LONGEST_EPISODE = 500  # the package refuses further steps
STATE_NAMES = ("hand.x", "hand.y", "hand.z", "grip")
ACTION_NAMES = ("x", "y", "z", "grip")
NOW = [f"object_{i}.{axis}" for i in (0, 1) for axis in ("x", "y", "z", "qx", "qy", "qz", "qw")]
ENV_STATE_NAMES = (
    *(name + when for when in ("", ".before") for name in (*STATE_NAMES, *NOW)),
    *(f"goal.{axis}" for axis in "xyz"),
)

DESCRIPTIONS = {
    "easy": {
        "button-press": "Push the button on the front of the box.",
        "button-press-topdown": "Press the button on the box down from above.",
        "button-press-topdown-wall": "Reach over the wall and press the button down from above.",
        "button-press-wall": "Reach around the wall and push the button on the box.",
        "coffee-button": "Push the button of the coffee machine.",
        "dial-turn": "Turn the dial half a turn.",
        "door-close": "Swing the open door shut.",
        "door-lock": "Turn the lock of the door until it is locked.",
        "door-open": "Pull the door open by its handle.",
        "door-unlock": "Turn the lock of the door until it is unlocked.",
        "drawer-close": "Push the open drawer shut.",
        "drawer-open": "Pull the drawer open by its handle.",
        "faucet-close": "Turn the handle of the faucet to close it.",
        "faucet-open": "Turn the handle of the faucet to open it.",
        "handle-press": "Press the handle down.",
        "handle-press-side": "Press the handle, which is turned sideways, down.",
        "handle-pull": "Pull the handle up.",
        "handle-pull-side": "Pull the handle, which is turned sideways, up.",
        "lever-pull": "Pull the lever up.",
        "peg-unplug-side": "Pull the peg out of the hole in the side of the box.",
        "plate-slide": "Slide the plate forward into the goal.",
        "plate-slide-back": "Slide the plate out of the goal, back to the mark.",
        "plate-slide-back-side": "Slide the plate sideways out of the goal to the mark.",
        "plate-slide-side": "Slide the plate sideways into the goal.",
        "reach": "Move the gripper to the goal.",
        "reach-wall": "Move the gripper past the wall to the goal.",
        "window-close": "Slide the window shut.",
        "window-open": "Slide the window open.",
    },
    "medium": {
        "basketball": "Pick up the ball and drop it through the hoop.",
        "bin-picking": "Take the block out of one bin and put it into the other.",
        "box-close": "Pick up the lid and put it on the box.",
        "coffee-pull": "Pull the mug away from the coffee machine to the goal.",
        "coffee-push": "Push the mug under the spout of the coffee machine.",
        "hammer": "Pick up the hammer and drive the nail into the wall with it.",
        "peg-insert-side": "Pick up the peg and push it into the hole in the side of the box.",
        "push-wall": "Push the puck around the wall to the goal.",
        "soccer": "Kick the ball into the net.",
        "sweep": "Sweep the block across the table to the goal.",
        "sweep-into": "Sweep the block into the hole in the table.",
    },
    "hard": {
        "assembly": "Pick up the nut by its handle and put it over the peg.",
        "hand-insert": "Pick up the block and lower it into the hole in the table.",
        "pick-out-of-hole": "Lift the block out of the hole and take it to the goal.",
        "pick-place": "Pick up the puck and take it to the goal.",
        "push": "Push the puck to the goal.",
        "push-back": "Pull the block back to the goal.",
    },
    "very_hard": {
        "disassemble": "Lift the nut off the peg by its handle.",
        "pick-place-wall": "Pick up the puck and take it over the wall to the goal.",
        "shelf-place": "Pick up the block and put it on the shelf.",
        "stick-pull": "Pick up the stick, hook the box's handle with it, and pull the box to the goal.",
        "stick-push": "Pick up the stick and push the box to the goal with it.",
    },
}
GROUP_OF = {name: group for group, names in DESCRIPTIONS.items() for name in names}
MT10 = """reach push pick-place door-open drawer-open drawer-close button-press-topdown peg-insert-side
    window-open window-close"""
ML10_TRAIN = """reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open
    sweep basketball"""
ML10_TEST = "drawer-open door-close shelf-place sweep-into lever-pull"
SETS: dict[str, list[str]] = {
    **{group: list(names) for group, names in DESCRIPTIONS.items()},
    "all": list(GROUP_OF),
    "mt50": list(GROUP_OF),
    "mt10": MT10.split(),
    "ml10-train": ML10_TRAIN.split(),
    "ml10-test": ML10_TEST.split(),
}


@EnvConfig.register_subclass("metaworld")
@dataclass(kw_only=True)
class MetaworldEnvConfig(EnvConfig):
    """Meta-World of the metaworld package."""

    packages: ClassVar[tuple[str, ...]] = ("metaworld", "mujoco")

    # A task ("push-v3"), several with commas, or a set: easy, medium, hard, very_hard, all, mt10, mt50,
    # ml10-train, ml10-test.
    task: str | None = "metaworld-push-v2"
    # Control steps per second.
    fps: int = 80
    # Control steps after which an episode that has not succeeded is cut off; at most 500.
    episode_length: int = 400
    # A picture and the hand, the picture alone, or the hand and the whole state (39,) (needs no renderer).
    obs_type: Literal["pixels_agent_pos", "pixels", "state"] = "pixels_agent_pos"
    # Height of observed pictures, in pixels.
    observation_height: int = PICTURE_SIZE
    # Width of observed pictures, in pixels.
    observation_width: int = PICTURE_SIZE
    # What `render()` gives; there is one way.
    render_mode: Literal["rgb_array"] = "rgb_array"
    # Draw without shadows, reflections and smooth edges: many times as fast in software, other pictures.
    fast_rendering: bool = False
    # Whether each of several tasks is evaluated on its own; there is no other way.
    multitask_eval: Literal[True] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._names()
        if self.fps != 80:
            raise ConfigError(f"--env.fps={self.fps}: metaworld always runs at 80 control steps per second.")
        if self.episode_length > LONGEST_EPISODE:
            raise ConfigError(
                f"--env.episode_length={self.episode_length}: metaworld allows {LONGEST_EPISODE} at most."
            )

    @property
    def tasks(self) -> list[Task]:
        """The tasks that were named; a task's group is its difficulty."""
        return [
            Task(GROUP_OF[name], SETS[GROUP_OF[name]].index(name), f"{name}-v3") for name in self._names()
        ]

    def build(self) -> "MetaworldEnv":
        """A new environment.

        Raises:
            MissingExtraError: metaworld is not installed.
            ConfigError: several tasks are named; `with_task` chooses one.
        """
        return MetaworldEnv(self)

    @property
    def features(self) -> dict[str, PolicyFeature]:
        """One picture (3, H, W) or the whole state (39,), the hand (4,), action (4,)."""
        return policy_view(self.dataset_features())

    def dataset_features(self) -> dict[str, dict[str, Any]]:
        """The feature table of a data set recorded here."""
        table = {keys.ACTION: vector_feature(ACTION_NAMES)}
        if self.obs_type != "pixels":
            table[keys.STATE] = vector_feature(STATE_NAMES)
        if self.obs_type == "state":
            return table | {keys.ENV_STATE: vector_feature(ENV_STATE_NAMES)}
        picture = video_feature(height=self.observation_height, width=self.observation_width)
        return table | {keys.IMAGE: picture}

    def _names(self) -> list[str]:
        found = [name for word in (self.task or "").split(",") for name in _named(word.strip())]
        return list(dict.fromkeys(found))  # each once, in the order they were named


class MetaworldEnv(gymnasium.Env):
    """One task of Meta-World: see `lerobot.envs.base`.

    Positions are in metres, the grip goes from 0 (closed) to 1 (open). An action moves the hand by up to a
    centimetre along each axis, and closes (above 0) or opens the grip.
    """

    render_mode = "rgb_array"

    def __init__(self, cfg: MetaworldEnvConfig):
        if len(cfg.tasks) > 1:
            raise ConfigError(
                f"--env.task={cfg.task} names {len(cfg.tasks)} tasks, and one is expected here: "
                f"for example --env.task={cfg.tasks[0].name}"
            )
        (task,) = cfg.tasks
        gl.choose_backend()
        known = require("metaworld.env_dict", extra="metaworld").ALL_V3_ENVIRONMENTS
        self.cfg = cfg
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": cfg.fps}
        self.task = task.name
        self.task_description = DESCRIPTIONS[task.group][str(task.name).removesuffix("-v3")]
        self.inner = known[task.name]()
        _unfreeze(self.inner)
        self._drawing = Drawing(self.inner.model, advice=SLOW_DRAWING)
        self.action_space = spaces.Box(-1, 1, (len(ACTION_NAMES),), np.float32)
        self.observation_space = observation_space(cfg.dataset_features())
        self.is_watched = True
        self.experts, self.expert_noise = {"scripted": self.make_expert}, 0.05
        self.episode_seed = 0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode; `seed` fixes all of it, and of those that follow without one."""
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self.inner.seed(self.episode_seed)
        self.state, _ = self.inner.reset()  # (39,) what the package's own agents see
        self._steps = 0
        return self._observe(self.state), {"is_success": False, "is_clipped": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Move the hand by `action` (4,) for one control step.

        Raises:
            UserError: the action has another shape or holds numbers that are not finite.
        """
        action = checked_action(action, ACTION_NAMES)
        self.state, reward, _, _, info = self.inner.step(action.astype(np.float32))
        self._steps += 1
        is_success = bool(info["success"])
        is_over_time = self._steps >= self.cfg.episode_length and not is_success
        told = {"is_success": is_success, "is_clipped": bool((np.abs(action) > 1).any())}
        return self._observe(self.state), float(reward), is_success, is_over_time, told

    def render(self) -> np.ndarray:
        """The scene from the corner, (480, 480, 3) uint8."""
        return self._picture(height=PICTURE_SIZE, width=PICTURE_SIZE)

    def close(self) -> None:
        """Free the drawing contexts."""
        self._drawing.close()
        self.inner.close()

    def make_expert(self, noise: float = 0.0) -> MetaworldExpert:
        """The package's expert for the episode that has just been reset; the episode's seed fixes its noise.

        Args:
            noise: standard deviation of executed x, y, z around recorded ones, in the action's units.
        """
        return MetaworldExpert(self, noise=noise, seed=self.episode_seed)

    def _observe(self, state: np.ndarray) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        if self.cfg.obs_type != "pixels":
            seen["agent_pos"] = state[: len(STATE_NAMES)].astype(np.float32)
        if self.cfg.obs_type == "state":
            return seen | {"environment_state": state.astype(np.float32)}
        if not self.is_watched:
            return seen
        picture = self._picture(height=self.cfg.observation_height, width=self.cfg.observation_width)
        return seen | {"pixels": picture}

    def _picture(self, *, height: int, width: int) -> np.ndarray:
        data, is_fast = self.inner.data, self.cfg.fast_rendering
        picture = self._drawing.picture(data, CAMERA, width=width, height=height, is_fast=is_fast)
        return np.ascontiguousarray(picture[::-1, ::-1])


def _named(word: str) -> list[str]:
    """The tasks that one word of --env.task stands for, without their version.

    Raises:
        ConfigError: it stands for nothing.
    """
    if word in SETS:
        return SETS[word]
    name = re.sub(r"-v[23]$", "", word.removeprefix("metaworld-"))
    if name not in GROUP_OF:
        known = [*SETS, *GROUP_OF]
        raise ConfigError(
            f"--env.task={word}: Meta-World has no such task. Sets of tasks: {', '.join(SETS)}."
            f"{suggest(name, known)}"
        )
    if word.endswith("-v2"):
        _say_newer(word, f"{name}-v3")
    return [name]


@functools.cache
def _say_newer(old: str, new: str) -> None:
    logger.info("--env.task=%s is read as %s: the package no longer has the older version.", old, new)


def _unfreeze(inner: Any) -> None:
    """Let an environment of the package draw goal and objects from its seed, and observe the goal."""
    inner._set_task_called, inner._freeze_rand_vec, inner.seeded_rand_vec = True, False, True
    inner._partially_observable = False
    del inner.sawyer_observation_space  # cached with the goal hidden; observations are clipped to it
