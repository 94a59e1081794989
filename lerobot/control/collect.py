"""A scripted expert drives a simulated robot, and what it does well becomes episodes of a dataset.

    environments, seeds --attempts.py--> frames of an episode --it succeeded--> dataset

The environments are anything of `gymnasium` with experts; what they observe is written as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lerobot.control.attempts import Buildable, Driver, Elsewhere, Frame, Here
from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.core.observation import OUTCOME_FEATURES
from lerobot.datasets.config import VideoEncoderConfig
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.schema import DEFAULT_FEATURES

MAX_FAILURES = 10  # before the first success; afterwards nine more for every success


@dataclass
class Tally:
    """How many episodes of a task were saved, and how many were thrown away because the expert failed."""

    saved: int = 0
    failed: int = 0


def collect(
    envs: Sequence[Buildable],
    dataset: LeRobotDataset,
    *,
    num_episodes: int,
    driver: Driver,
    first_seed: int,
    keep_failures: bool = False,
    num_processes: int = 1,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[list[Tally]], None] = lambda tallies: None,
) -> list[Tally]:
    """Record so many episodes of each environment, or until `is_stopped`; every saved one is on disk at once.

    Args:
        envs: configs of environments with one task each and the same features.
        driver: which expert acts, and with how much noise.
        first_seed: of the first attempt; attempt k, of all of them, is reset with `first_seed` + k.
        keep_failures: also save episodes without success.
        num_processes: that attempt episodes side by side; the dataset is the same for every number.
        is_stopped: asked at every step; episodes that it interrupts are dropped.
        tell: is called after every attempt with what was done of each environment so far.

    Returns:
        A tally for each environment.

    Raises:
        ConfigError: an environment has no such expert.
        DatasetError: the expert nearly always fails.
        LeRobotError: a process ended amid an episode.
    """
    tallies = [Tally() for _ in envs]
    stage: Here | Elsewhere = (
        Here(driver, is_stopped=is_stopped)
        if num_processes == 1
        else Elsewhere(driver, num_processes=num_processes, is_stopped=is_stopped)
    )
    with stage:
        for env, tally in zip(envs, tallies, strict=True):
            seed = first_seed + sum(each.saved + each.failed for each in tallies)
            left = lambda tally=tally: num_episodes - tally.saved  # noqa: E731
            with closing(stage.attempts(env, first_seed=seed, wanted=left)) as attempts:
                for frames in attempts:
                    is_success = add(dataset, frames)
                    if is_stopped():
                        dataset.clear_episode_buffer()
                        return tallies
                    if is_success or keep_failures:
                        dataset.save_episode()
                        tally.saved += 1
                    else:
                        dataset.clear_episode_buffer()
                        tally.failed += 1
                    tell(tallies)
                    check_successes(tally)
    return tallies


def add(dataset: LeRobotDataset, frames: Iterable[Frame]) -> bool:
    """Add the frames of one episode to the dataset, unsaved; tells whether the expert succeeded."""
    is_success = False
    for step, frame in enumerate(frames):
        dataset.add_frame(frame, captured_at_s=step / dataset.fps)  # simulated time
        is_success = is_success or bool(frame[keys.SUCCESS][0])
    return is_success


def check_successes(tally: Tally) -> None:
    """Return while the expert succeeds now and then.

    Raises:
        DatasetError: it does not.
    """
    if tally.failed > MAX_FAILURES + 9 * tally.saved:
        raise DatasetError(
            f"The expert failed in {tally.failed} episodes and succeeded in {tally.saved}. Try a smaller "
            "--noise, or keep such episodes with --keep_failures=true."
        )


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
