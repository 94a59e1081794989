"""Places that keep a run's numbers: always `metrics.jsonl` and event files, and the dashboards asked for.

Run.log(row) -> Tracker: MetricsFile, EventFile, [WeightsAndBiases], [Trackio]

A dashboard that fails before the first step ends the run with a message; one that fails later is given up
with a warning, and the training goes on.
"""

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lerobot.core.config import encode
from lerobot.core.errors import LeRobotError
from lerobot.training.config import TrainConfig
from lerobot.training.logs.boards import Trackio, WeightsAndBiases
from lerobot.training.logs.events import EventFile
from lerobot.training.logs.metrics import MetricsFile, Row

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """A place that keeps rows of metrics."""

    def write(self, row: Row) -> None:
        """Keep one row; it holds `step`."""

    def close(self) -> None:
        """Flush and release."""


class Board(Sink, Protocol):
    """A dashboard, which also shows videos and may keep checkpoints."""

    name: str

    @property
    def place(self) -> str:
        """Where to look at it."""

    def video(self, path: Path, *, step: int) -> None:
        """Show a video of an evaluation."""

    def checkpoint(self, folder: Path) -> None:
        """Keep a checkpoint."""


class Tracker:
    """All places that a run's numbers go to.

    Raises:
        UserError: a dashboard that was asked for is not installed, or nobody is logged in there.
        TrainingError: it cannot be reached. Of a new run's folder nothing is left then.
    """

    def __init__(self, cfg: TrainConfig, folder: Path, *, resume_step: int = 0) -> None:
        was_there = folder.exists() and any(folder.iterdir())
        self.boards: list[Board] = []
        try:
            self._open_boards(cfg, folder)
        except LeRobotError:
            self.close_boards()
            if not was_there:  # so that the same command can be given again
                shutil.rmtree(folder, ignore_errors=True)
            raise
        folder.mkdir(parents=True, exist_ok=True)
        self.files: list[Sink] = [
            MetricsFile(folder, resume_step=resume_step),
            EventFile(folder, resume_step=resume_step),
        ]
        self.has_warned = False

    def _open_boards(self, cfg: TrainConfig, folder: Path) -> None:
        tags, config = tags_of(cfg), encode(cfg)
        if cfg.wandb.enable and cfg.wandb.mode != "disabled":
            folder.mkdir(parents=True, exist_ok=True)
            wandb = WeightsAndBiases(
                folder, settings=cfg.wandb, name=cfg.name, tags=tags, config=config, is_resumed=cfg.resume
            )
            cfg.wandb.run_id = wandb.run_id  # saved with the config, so that a resumed run goes on there
            self.boards.append(wandb)
        if cfg.trackio.enable:
            trackio = Trackio(settings=cfg.trackio, job_name=cfg.name, tags=tags, config=config)
            cfg.trackio.run_name = trackio.run_name
            self.boards.append(trackio)

    @property
    def places(self) -> list[str]:
        """Where the numbers can be seen, dashboards last."""
        return ["metrics.jsonl", "tensorboard/", *(board.place for board in self.boards)]

    def write(self, row: Row) -> None:
        """Keep one row everywhere; it holds `step`."""
        for file in self.files:
            self._keep(partial(file.write, row))
        self._tell(lambda board: board.write(row))

    def video(self, path: Path, *, step: int) -> None:
        """Show a video of an evaluation on the dashboards."""
        self._tell(lambda board: board.video(path, step=step))

    def checkpoint(self, folder: Path) -> None:
        """Tell the dashboards of a complete checkpoint."""
        self._tell(lambda board: board.checkpoint(folder))

    def close(self) -> None:
        """Flush and release everything."""
        for file in self.files:
            self._keep(file.close)
        self.close_boards()

    def close_boards(self) -> None:
        """Finish the runs on the dashboards."""
        self._tell(lambda board: board.close())
        self.boards = []

    def _keep(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:  # what could not be written waits in the file's buffer for the next row
            if not self.has_warned:
                logger.warning("The metrics cannot be written now: %s. The training goes on.", error.strerror)
            self.has_warned = True

    def _tell(self, say: Callable[[Board], Any]) -> None:
        for board in list(self.boards):
            try:
                say(board)
            except Exception as error:  # noqa: BLE001 - a dashboard's trouble, whatever it is, ends no training
                words = " ".join(str(error).split()) or type(error).__name__
                logger.warning(
                    "%s failed and is given up for this run: %s. metrics.jsonl goes on.", board.name, words
                )
                # A checkpoint is told of by the thread that has written it, maybe at the same time.
                self.boards = [one for one in self.boards if one is not board]


def tags_of(cfg: TrainConfig) -> list[str]:
    """What a run is called by on a dashboard: policy, seed, datasets, environment."""
    assert cfg.policy is not None
    datasets = [f"dataset:{name}" for name in cfg.dataset.names]
    envs = [f"env:{cfg.env.type}"] if cfg.env is not None else []
    return [f"policy:{cfg.policy.type}", f"seed:{cfg.seed}", *datasets, *envs]
