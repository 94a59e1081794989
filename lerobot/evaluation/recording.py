"""Datasets of the episodes of an evaluation, instead of videos: `--eval.recording=true`.

    environment's process    begin, step, step, ... -> EpisodeRecorder -> a file of frames   (loads no torch)
    evaluating process       episode is done        -> Recordings -> the dataset of its task, in order

Episodes end in any order and in other processes; a dataset gets them in the order of their numbers, so it is
the same one however the evaluation was spread. Frames wait on the disk, not in memory.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.core.files import part_path
from lerobot.core.observation import OUTCOME_FEATURES, features_of
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.result import EpisodeResult, TaskKey, task_name

if TYPE_CHECKING:
    from lerobot.datasets.dataset import LeRobotDataset

RECORDING_FOLDER = "recordings"  # of an evaluation's folder
WAITING_FOLDER = "waiting"  # of frames that are not in a dataset yet; gone at the end
OUTCOMES = (keys.ACTION, *OUTCOME_FEATURES)  # what a frame has besides the observation, in this order


class EpisodeRecorder:
    """Keeps what one episode sees, does and gets, frame by frame, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def begin(self, observation: Mapping[str, Any]) -> None:
        """The episode starts here: what `reset` returned."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = part_path(self.path).open("wb")
        self._write(np.array(sorted(features_of(observation))))
        self._see(observation)

    def step(
        self,
        action: np.ndarray,
        observation: Mapping[str, Any],
        *,
        reward: float,
        is_done: bool,
        is_success: bool,
    ) -> None:
        """A control step: the action (A,) in the environment's units, and what `step` returned.

        Args:
            is_done: whether the episode ends here, in whichever way.
            is_success: whether the task is done now.
        """
        outcomes = (
            np.asarray(action, np.float32),
            np.array([reward], np.float32),
            np.array([is_done]),
            np.array([is_success]),
        )
        for value in outcomes:
            self._write(value)
        self._see(observation)

    def finish(self) -> Path:
        """The file, complete: frames of one episode, which `frames` reads."""
        assert self._file is not None, "begin() comes before finish()"
        self._file.close()
        part_path(self.path).replace(self.path)
        return self.path

    def abort(self) -> None:
        """Delete the unfinished file."""
        if self._file is not None:
            self._file.close()
        part_path(self.path).unlink(missing_ok=True)

    def _see(self, observation: Mapping[str, Any]) -> None:
        features = features_of(observation)
        for name in sorted(features):
            value = np.asarray(features[name])
            self._write(value if value.dtype == np.uint8 else value.astype(np.float32))

    def _write(self, value: np.ndarray) -> None:
        assert self._file is not None, "begin() comes before step()"
        np.save(self._file, value, allow_pickle=False)


def frames_file(folder: Path, task: TaskKey, index: int) -> Path:
    """Where in a folder the frames of an episode of a task wait."""
    return folder / task_name(task) / f"episode_{index}.npys"


def frames(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """The frames that a recorder kept, one at a time: observation, action, and what came of it.

    What was seen after the last action is left out: nothing was done there.
    """
    end = path.stat().st_size
    with path.open("rb") as file:
        names = np.load(file, allow_pickle=False).tolist()
        observation = {name: np.load(file, allow_pickle=False) for name in names}
        while file.tell() < end:
            outcomes = {name: np.load(file, allow_pickle=False) for name in OUTCOMES}
            yield observation | outcomes
            observation = {name: np.load(file, allow_pickle=False) for name in names}


class Recordings:
    """The datasets of an evaluation, one per task: `<folder>/<group>_<task id>`; use it in a `with`.

    Args:
        folder: must not hold datasets of an earlier evaluation.
        env_config: says what observations and actions are.
        repo_id: what the datasets are called on the Hub, where they have to get there; that of one of several
            tasks ends in its name.

    Raises:
        ConfigError: the folder holds recordings already.
    """

    def __init__(self, folder: Path, env_config: EnvConfig, *, repo_id: str | None = None) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                f"{folder} holds recordings of an earlier evaluation, which are kept. Choose another "
                "--output_dir=FOLDER, or remove them yourself."
            )
        self.folder, self.env_config, self.repo_id = folder, env_config, repo_id
        self.datasets: dict[TaskKey, LeRobotDataset] = {}
        self.waiting: dict[TaskKey, dict[int, EpisodeResult]] = {}

    @property
    def waiting_folder(self) -> Path:
        """Where the recorders keep their frames: see `frames_file`."""
        return self.folder / WAITING_FOLDER

    def add(self, result: EpisodeResult) -> None:
        """An episode is done and its recorder finished: into the dataset with it, once it is its turn."""
        waiting = self.waiting.setdefault(result.task_key, {})
        waiting[result.index] = result
        while (following := waiting.pop(self._num_saved(result.task_key), None)) is not None:
            self._save(following)

    def _num_saved(self, task: TaskKey) -> int:
        return self.datasets[task].num_episodes if task in self.datasets else 0

    def _save(self, result: EpisodeResult) -> None:
        dataset = self.datasets.get(result.task_key) or self._new_dataset(result.task_key)
        self.datasets[result.task_key] = dataset
        path = frames_file(self.waiting_folder, result.task_key, result.index)
        for step, frame in enumerate(frames(path)):
            simulated_s = step / self.env_config.fps
            dataset.add_frame({**frame, keys.TASK: result.task}, captured_at_s=simulated_s)
        dataset.save_episode()
        path.unlink()

    def _new_dataset(self, task: TaskKey) -> "LeRobotDataset":
        from lerobot.datasets.dataset import LeRobotDataset  # torch: the environments' processes do without

        name = task_name(task)
        repo_id = self.repo_id or f"{RECORDING_FOLDER}/{name}"
        if self.repo_id is not None and len(self.env_config.tasks) > 1:
            repo_id = f"{self.repo_id}_{name}"
        return LeRobotDataset.create(
            repo_id,
            self.env_config.fps,
            {**self.env_config.dataset_features(), **OUTCOME_FEATURES},
            root=self.folder / name,
            robot_type=self.env_config.type,
        )

    @property
    def folders(self) -> list[Path]:
        """Where the datasets are."""
        return [dataset.root for dataset in self.datasets.values()]

    def push(self, *, private: bool) -> list[str]:
        """Upload the datasets, which must be complete; the addresses of what was made.

        Raises:
            HubError: the Hub was not reached or refused; the datasets stay on this machine.
        """
        return [dataset.push_to_hub(private=private) for dataset in self.datasets.values()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the datasets with the episodes that they have; frames of others are dropped."""
        for dataset in self.datasets.values():
            dataset.finalize()
        shutil.rmtree(self.waiting_folder, ignore_errors=True)
