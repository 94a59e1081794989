"""A scripted expert drives a simulated robot, and what it does well becomes episodes of a dataset.

    reset(seed) -> expert.step() -> executed -> environment;   observation + recorded + outcome -> dataset

The environment is anything of `gymnasium` that makes its own expert; what it observes is written as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np

from lerobot.core import keys
from lerobot.core.errors import ConfigError, DatasetError
from lerobot.core.observation import OUTCOME_FEATURES, features_of
from lerobot.datasets.config import VideoEncoderConfig
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.schema import DEFAULT_FEATURES

MAX_FAILURES = 10  # before the first success; afterwards nine more for every success


class Step(Protocol):
    """One decision of an expert."""

    recorded: np.ndarray  # (A,) the action that the dataset stores
    executed: np.ndarray  # (A,) the action that the robot is told


class Expert(Protocol):
    """Solves the episode that was just reset."""

    def step(self) -> Step:
        """The next decision."""


@runtime_checkable
class HasExpert(Protocol):
    """An environment that can make an expert for the episode it is in."""

    task_description: str

    def make_expert(self, noise: float = 0.0) -> Expert:
        """An expert whose executed actions stray from the recorded ones by `noise`."""


@dataclass
class Tally:
    """How many episodes were saved, and how many were thrown away because the expert failed."""

    saved: int = 0
    failed: int = 0


def collect(
    env: gymnasium.Env,
    dataset: LeRobotDataset,
    *,
    num_episodes: int,
    noise: float,
    first_seed: int,
    keep_failures: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Record episodes until so many were saved or `is_stopped`; every saved one is on disk at once.

    Args:
        first_seed: of the first attempt; attempt k is reset with `first_seed` + k.
        keep_failures: also save episodes without success.
        is_stopped: asked at every step; the episode it interrupts is dropped.
        tell: is called after every attempt.

    Raises:
        ConfigError: the environment has no expert.
        DatasetError: the expert nearly always fails.
    """
    tally = Tally()
    while tally.saved < num_episodes:
        is_success = record_episode(
            env, dataset, seed=first_seed + tally.saved + tally.failed, noise=noise, is_stopped=is_stopped
        )
        if is_stopped():
            dataset.clear_episode_buffer()
            break
        if is_success or keep_failures:
            dataset.save_episode()
            tally.saved += 1
        else:
            dataset.clear_episode_buffer()
            tally.failed += 1
        tell(tally)
        if tally.failed > MAX_FAILURES + 9 * tally.saved:
            raise DatasetError(
                f"The expert failed in {tally.failed} episodes and succeeded in {tally.saved}. Try a smaller "
                f"--noise than {noise}, or keep such episodes with --keep_failures=true."
            )
    return tally


def world_with_expert(env: gymnasium.Env) -> HasExpert:
    """The environment itself, without wrappers.

    Raises:
        ConfigError: it has no expert.
    """
    world = env.unwrapped
    if not isinstance(world, HasExpert):
        raise ConfigError(f"{type(world).__name__} has no scripted expert. Environments with one: so101.")
    return world


def record_episode(
    env: gymnasium.Env,
    dataset: LeRobotDataset,
    *,
    seed: int,
    noise: float,
    is_stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Add the frames of one episode to the dataset, unsaved; tells whether the expert succeeded."""
    world = world_with_expert(env)
    observation, _ = env.reset(seed=seed)
    expert, is_success, is_done = world.make_expert(noise), False, False
    while not is_done and not is_stopped():
        decision = expert.step()
        frame: dict[str, Any] = features_of(observation)
        observation, reward, has_ended, is_over_time, info = env.step(decision.executed)
        is_done = bool(has_ended or is_over_time)
        is_success = is_success or bool(info["is_success"])
        frame |= {
            keys.ACTION: decision.recorded,
            keys.REWARD: np.array([reward], np.float32),
            keys.DONE: np.array([is_done]),
            keys.SUCCESS: np.array([bool(info["is_success"])]),
            keys.TASK: world.task_description,
        }
        dataset.add_frame(frame)
    return is_success


def check_folder(folder: Path, *, resume: bool) -> None:
    """Return when a dataset's folder is there if, and only if, it is to be added to.

    Raises:
        DatasetError: it is not so.
    """
    if resume and not folder.exists():
        raise DatasetError(
            f"--resume=true: there is no dataset in {folder}. Leave --resume out to begin one."
        )
    if folder.exists() and not resume:
        raise DatasetError(
            f"{folder} exists already. Add episodes to it with --resume=true, or choose another "
            "--dataset.root=FOLDER."
        )


def open_dataset(
    repo_id: str,
    folder: Path,
    *,
    features: dict[str, dict[str, Any]],
    fps: int,
    robot_type: str,
    rgb_encoder: VideoEncoderConfig,
    resume: bool,
) -> LeRobotDataset:
    """A new dataset for an environment's features and outcomes, or the one to add to.

    Raises:
        DatasetError: the one to add to has other features or another rate.
    """
    features = {**features, **OUTCOME_FEATURES}
    if not resume:
        return LeRobotDataset.create(
            repo_id, fps, features, root=folder, robot_type=robot_type, rgb_encoder=rgb_encoder
        )
    dataset = LeRobotDataset.resume(repo_id, root=folder, rgb_encoder=rgb_encoder)
    ours = shapes(features)
    there = {name: shape for name, shape in shapes(dataset.features).items() if name not in DEFAULT_FEATURES}
    if ours != there or dataset.fps != fps:
        raise DatasetError(
            f"--resume=true: {folder} holds {there} at {dataset.fps} fps, but the environment gives {ours} "
            f"at {fps} fps. Give the --env.* flags it was recorded with."
        )
    return dataset


def shapes(features: dict[str, dict[str, Any]]) -> dict[str, list[int]]:
    """Feature name -> shape."""
    return {name: list(feature["shape"]) for name, feature in features.items()}
