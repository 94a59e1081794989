"""LIBERO: suites of tasks of one arm at one table, each with a list of initial states, from `hf-libero`.

Paper: Liu et al. 2023. The package's scenes, controller and success are used; pictures are drawn by us, and
mirrored, which is how published data sets have them.

    action (7,): move, turn, grip --controller--> agent_pos (8,): place, turn, two fingers; pixels; is_success

The package asks questions on its first import; `settle_paths` answers them. It does not hold its scenes, but
fetches them from the Hub when the first environment is built.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import gymnasium
import numpy as np
import yaml
from gymnasium import spaces

from lerobot.core import hub, keys
from lerobot.core.errors import ConfigError, EnvironmentSetupError, suggest
from lerobot.core.files import write_text
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
from lerobot.sim import gl
from lerobot.sim.drawing import Drawing

# Suite -> tasks, and control steps: enough for the longest demonstration.
SUITES = {
    "libero_spatial": (10, 280),
    "libero_object": (10, 280),
    "libero_goal": (10, 300),
    "libero_10": (10, 520),
    "libero_90": (90, 400),
}
FPS = 20
CAMERAS = {"agentview_image": "image", "robot0_eye_in_hand_image": "image2"}
STATE_NAMES = ("x", "y", "z", "turn.x", "turn.y", "turn.z", "finger.left", "finger.right")
ACTION_NAMES = ("x", "y", "z", "turn.x", "turn.y", "turn.z", "grip")
SETTLING_STEPS = 10  # things are placed a little above the table
STILL = np.array([0, 0, 0, 0, 0, 0, -1], dtype=np.float64)  # no movement, grip open
PLACING_ATTEMPTS = 100


@EnvConfig.register_subclass("libero")
@dataclass(kw_only=True)
class LiberoEnvConfig(EnvConfig):
    """LIBERO of the hf-libero package."""

    packages: ClassVar[tuple[str, ...]] = ("hf-libero", "robosuite", "mujoco")

    # A suite, or several with commas: libero_spatial, libero_object, libero_goal, libero_10, libero_90.
    task: str | None = "libero_10"
    # Numbers of the tasks in each suite; null: all of them.
    task_ids: list[int] | None = None
    # Control steps per second.
    fps: int = FPS
    # Control steps after which an episode that has not succeeded is cut off; null: 280 to 520, by suite.
    episode_length: int | None = None  # type: ignore[assignment]  # a number once a task is chosen
    # Pictures and the arm, or pictures alone.
    obs_type: Literal["pixels_agent_pos", "pixels"] = "pixels_agent_pos"
    # What `render()` gives; there is one way.
    render_mode: Literal["rgb_array"] = "rgb_array"
    # Cameras that are observed, with commas.
    camera_name: str = "agentview_image,robot0_eye_in_hand_image"
    # Whether episodes begin in the suite's recorded states; otherwise things are placed by chance.
    init_states: bool = True
    # Load the scene anew for every episode.
    hard_reset: bool = True
    # Camera -> its name in observation.images; null: image for the first, image2 for the hand's.
    camera_name_mapping: dict[str, str] | None = None
    # Height of observed pictures, in pixels.
    observation_height: int = 360
    # Width of observed pictures, in pixels.
    observation_width: int = 360
    # Whether the package installed is LIBERO-plus, whose suites have the same names and more tasks.
    is_libero_plus: bool = False
    # Whether actions are steps from where the arm is, or places to go to.
    control_mode: Literal["relative", "absolute"] = "relative"
    # Draw without shadows, reflections and smooth edges: many times as fast in software, other pictures.
    fast_rendering: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for suite in self.suites:
            if suite not in SUITES:
                raise ConfigError(
                    f"--env.task={suite}: the suites of libero are {', '.join(SUITES)}."
                    f"{suggest(suite, SUITES)}"
                )
        if self.fps != FPS:
            raise ConfigError(
                f"--env.fps={self.fps}: libero always runs at {FPS} control steps per second, also where "
                "files of earlier releases say 30."
            )
        ids = self.task_ids
        if ids is not None and (not ids or min(ids) < 0 or len(set(ids)) < len(ids)):
            raise ConfigError(f"--env.task_ids={ids}: expected different numbers from 0 on, such as [0,3].")
        names = self.cameras.values()
        if not self.camera_name.strip() or len(set(names)) < len(self.camera_name.split(",")):
            raise ConfigError(
                f"--env.camera_name={self.camera_name!r} with --env.camera_name_mapping="
                f"{self.camera_name_mapping}: expected different cameras with different names."
            )

    @property
    def suites(self) -> list[str]:
        """The suites that were named, each once."""
        return list(dict.fromkeys(word.strip() for word in (self.task or "").split(",")))

    @property
    def cameras(self) -> dict[str, str]:
        """Camera of the package -> its name in observation.images."""
        names = {**CAMERAS, **(self.camera_name_mapping or {})}
        return {camera: names.get(camera, camera) for camera in map(str.strip, self.camera_name.split(","))}

    @property
    def tasks(self) -> list[Task]:
        """The tasks of every suite that were chosen; `with_task` alone can name one of them.

        Raises:
            ConfigError: a suite has no task of that number.
        """
        found = []
        for suite in self.suites:
            count = len(load_suite(suite).tasks) if self.is_libero_plus else SUITES[suite][0]
            ids = range(count) if self.task_ids is None else self.task_ids
            if max(ids) >= count:
                raise ConfigError(f"--env.task_ids={self.task_ids}: {suite} has the tasks 0 to {count - 1}.")
            found += [Task(suite, number, None) for number in ids]
        return found

    def with_task(self, task: Task) -> Self:
        """The same environment with one task of one suite, and a number of steps."""
        length = self.episode_length or SUITES[task.group][1]
        return replace(self, task=task.group, task_ids=[task.id], episode_length=length)

    def build(self) -> "LiberoEnv":
        """A new environment.

        Raises:
            MissingExtraError: hf-libero is not installed.
            EnvironmentSetupError: its scenes are not here, or nothing can draw.
            ConfigError: several tasks are chosen; `with_task` chooses one.
        """
        return LiberoEnv(self)

    @property
    def features(self) -> dict[str, PolicyFeature]:
        """Pictures (3, H, W), the arm (8,), action (7,)."""
        return policy_view(self.dataset_features())

    def dataset_features(self) -> dict[str, dict[str, Any]]:
        """The feature table of a data set recorded here."""
        table = {keys.ACTION: vector_feature(ACTION_NAMES)}
        if self.obs_type != "pixels":
            table[keys.STATE] = vector_feature(STATE_NAMES)
        picture = video_feature(height=self.observation_height, width=self.observation_width)
        return table | {keys.IMAGES_PREFIX + name: dict(picture) for name in self.cameras.values()}


class LiberoEnv(gymnasium.Env):
    """A Panda arm at a table: see `lerobot.envs.base`.

    An action moves the hand by -1..1 of the controller's largest step (relative), or says where to be in
    metres and how to be turned, as an axis times an angle in radians (absolute); the grip closes above 0.
    """

    render_mode = "rgb_array"

    def __init__(self, cfg: LiberoEnvConfig):
        if len(cfg.tasks) > 1:
            raise ConfigError(
                f"--env.task={cfg.task} has {len(cfg.tasks)} tasks, and one is expected here: "
                f"for example --env.task={cfg.suites[0]} --env.task_ids=[0]"
            )
        (task,) = cfg.tasks
        self.cfg = cfg
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}
        suite = load_suite(task.group)
        self.task = suite.get_task(task.id).name
        self.task_description = suite.get_task(task.id).language
        self._longest = cfg.episode_length or SUITES[task.group][1]
        self._states = suite.get_task_init_states(task.id) if cfg.init_states else None
        self.inner = build_scene(suite.get_task_bddl_file_path(task.id), hard_reset=cfg.hard_reset)
        self._drawing: Drawing | None = None
        self._drawn: Any = None
        self.action_space = spaces.Box(-1, 1, (len(ACTION_NAMES),), np.float32)
        if cfg.control_mode == "absolute":
            self.action_space = spaces.Box(-np.inf, np.inf, (len(ACTION_NAMES),), np.float32)
        self.observation_space = observation_space(cfg.dataset_features())
        self.episode_seed = 0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode; `seed` fixes all of it, and of those that follow without one.

        Args:
            options: {"episode_index": i} begins in recorded state i, modulo their number; without it the seed
                stands for i.
        """
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        with _global_numpy_seed(self.episode_seed):
            self._place()
        if self._states is not None:
            index = (options or {}).get("episode_index", self.episode_seed)
            self.inner.set_init_state(self._states[index % len(self._states)])
        self._set_control(is_relative=True)
        for _ in range(SETTLING_STEPS):
            seen, *_ = self.inner.step(STILL)
        self._set_control(is_relative=self.cfg.control_mode == "relative")
        self._steps = 0
        return self._observe(seen), {"is_success": False, "is_clipped": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Follow `action` (7,) for one control step.

        Raises:
            UserError: the action has another shape or holds numbers that are not finite.
        """
        action = checked_action(action, ACTION_NAMES)
        seen, reward, *_ = self.inner.step(action)
        self._steps += 1
        is_success = bool(self.inner.check_success())
        is_over_time = self._steps >= self._longest and not is_success
        is_clipped = self.cfg.control_mode == "relative" and bool((np.abs(action) > 1).any())
        info = {"is_success": is_success, "is_clipped": is_clipped}
        return self._observe(seen), float(reward), is_success, is_over_time, info

    def render(self) -> np.ndarray:
        """The first camera, (H, W, 3) uint8."""
        return self._picture(next(iter(self.cfg.cameras)))

    def close(self) -> None:
        """Free the drawing contexts."""
        if self._drawing is not None:
            self._drawing.close()
        self.inner.close()

    def _place(self) -> None:
        """Reset the scene; not through `self.inner.reset`, which tries for ever, whatever the failure."""
        errors = require("robosuite.utils.errors", extra="libero")
        for _ in range(PLACING_ATTEMPTS):
            try:
                self.inner.env.reset()
                return
            except errors.RandomizationError:  # no room was found for a thing: place them all again
                continue
        raise EnvironmentSetupError(
            f"{self.task}: no room for all things was found in {PLACING_ATTEMPTS} attempts."
        )

    def _set_control(self, *, is_relative: bool) -> None:
        for robot in self.inner.robots:  # new ones after every hard reset
            robot.controller.use_delta = is_relative

    def _observe(self, seen: dict[str, Any]) -> dict[str, Any]:
        pixels = {name: self._picture(camera) for camera, name in self.cfg.cameras.items()}
        if self.cfg.obs_type == "pixels":
            return {"pixels": pixels}
        turn = axis_angle(seen["robot0_eef_quat"])
        state = np.concatenate([seen["robot0_eef_pos"], turn, seen["robot0_gripper_qpos"]])
        return {"pixels": pixels, "agent_pos": state.astype(np.float32)}

    def _picture(self, camera: str) -> np.ndarray:
        model, data = self.inner.sim.model._model, self.inner.sim.data._data
        if self._drawing is None or self._drawn is not model:
            if self._drawing is not None:
                self._drawing.close()
            self._drawing, self._drawn = Drawing(model, advice=SLOW_DRAWING, hidden_groups=(0,)), model
        picture = self._drawing.picture(
            data,
            camera.removesuffix("_image"),
            width=self.cfg.observation_width,
            height=self.cfg.observation_height,
            is_fast=self.cfg.fast_rendering,
        )
        return np.ascontiguousarray(picture[:, ::-1])


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """The turn (3,) of a quaternion x, y, z, w (4,): its axis times its angle in 0..2 pi rad."""
    *axis, w = np.asarray(quaternion, dtype=np.float64)
    w = np.clip(w, -1, 1)
    sine = np.sqrt(1 - w * w)
    return np.zeros(3) if sine < 1e-8 else np.array(axis) / sine * 2 * np.arccos(w)


def load_suite(name: str) -> Any:
    """A suite of the package: its tasks, their files and recorded states.

    Raises:
        MissingExtraError: hf-libero is not installed.
    """
    settle_paths()
    return require("libero.libero.benchmark", extra="libero").get_benchmark(name)()


def build_scene(bddl_file: str, *, hard_reset: bool) -> Any:
    """The package's environment for a task, without pictures of its own.

    Raises:
        EnvironmentSetupError: the scenes are not here, or nothing can draw.
    """
    gl.require_renderer()
    try:
        wrapper = importlib.import_module("libero.libero.envs.env_wrapper")
        return wrapper.ControlEnv(
            bddl_file_name=bddl_file,
            use_camera_obs=False,
            has_offscreen_renderer=False,
            control_freq=FPS,
            ignore_done=True,
            hard_reset=hard_reset,
        )
    except FileNotFoundError as error:
        raise EnvironmentSetupError(
            f"LIBERO's scenes are not here: {error.filename or error} is missing. The package fetches them "
            "from the Hub when it can. On a machine that reaches it, type: hf download lerobot/libero-assets "
            "--repo-type=dataset --local-dir=$HOME/.cache/libero/assets  and copy that folder here."
        ) from error


def settle_paths() -> None:
    """Let the package find its files without asking: a config of ours where nobody has written one.

    Raises:
        MissingExtraError: hf-libero is not installed.
    """
    package = Path(next(iter(require("libero", extra="libero").__path__))) / "libero"
    chosen = os.environ.get("LIBERO_CONFIG_PATH")
    if (Path(chosen or Path.home() / ".libero") / "config.yaml").is_file():
        return
    folder = Path(chosen) if chosen else hub.cache_home() / "libero"
    paths = {
        "benchmark_root": package,
        "bddl_files": package / "bddl_files",
        "init_states": package / "init_files",
        "datasets": package.parent / "datasets",
        "assets": package / "assets",
    }
    text = yaml.safe_dump({name: str(path) for name, path in paths.items()})
    write_text(folder / "config.yaml", text)
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)


@contextmanager
def _global_numpy_seed(seed: int) -> Iterator[None]:
    """The package places things by numpy's global random numbers; they are put back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
