"""Places that show a run's metrics to people: event files for TensorBoard, Weights & Biases."""

import logging
from pathlib import Path
from typing import Any, Protocol

from lerobot.core.config import encode
from lerobot.core.errors import MissingExtraError
from lerobot.core.optional import require
from lerobot.training.config import TrainConfig
from lerobot.training.metrics import MetricsFile, Row

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """A place that keeps rows of metrics."""

    def write(self, row: Row) -> None:
        """Keep one row; it holds `step`."""

    def close(self) -> None:
        """Flush and release."""


def open_sinks(cfg: TrainConfig, folder: Path, *, resume_step: int = 0) -> list[Sink]:
    """Every place the metrics of the run in `folder` go.

    Raises:
        MissingExtraError: Weights & Biases was asked for and is not installed.
    """
    sinks: list[Sink] = [MetricsFile(folder, resume_step=resume_step)]
    try:
        sinks.append(TensorBoard(folder, resume_step=resume_step))
    except MissingExtraError as error:
        logger.info("No TensorBoard files: %s", error)
    if cfg.wandb.enable:
        assert cfg.policy is not None
        tags = [
            f"policy:{cfg.policy.type}",
            *(f"dataset:{name}" for name in cfg.dataset.names),
            f"seed:{cfg.seed}",
        ]
        board = WeightsAndBiases(
            folder,
            settings=cfg.wandb,
            name=cfg.name,
            tags=(tags if cfg.wandb.add_tags else []) + (cfg.wandb.tags or []),
            config=encode(cfg),
        )
        cfg.wandb.run_id = board.run_id  # saved with the config, so that a resumed run goes on there
        sinks.append(board)
    return sinks


class TensorBoard:
    """Event files under `<run>/tensorboard`.

    Raises:
        MissingExtraError: the package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path, *, resume_step: int = 0) -> None:
        require("tensorboard", extra="tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(
            str(folder / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
        )

    def write(self, row: Row) -> None:
        """One point per number."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and name != "step":
                self.writer.add_scalar(name if "/" in name else f"train/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Flush the event file."""
        self.writer.close()


class WeightsAndBiases:
    """A run on Weights & Biases; `run_id` continues an earlier one.

    Raises:
        MissingExtraError: the package `wandb` is not installed.
    """

    def __init__(
        self, folder: Path, *, settings: Any, name: str, tags: list[str], config: dict[str, Any]
    ) -> None:
        wandb = require("wandb", extra="wandb")
        self.run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            notes=settings.notes,
            name=name,
            id=settings.run_id,
            resume="allow" if settings.run_id else None,
            mode=settings.mode,
            tags=[tag[:64] for tag in tags],
            dir=str(folder),
            config=config,
            save_code=False,
        )

    @property
    def run_id(self) -> str:
        """The id by which a resumed run finds this one."""
        return self.run.id

    def write(self, row: Row) -> None:
        """Log numbers under `train/` and `eval/`."""
        step = int(row["step"])
        values = {k if "/" in k else f"train/{k}": v for k, v in row.items() if isinstance(v, (int, float))}
        self.run.log({k: v for k, v in values.items() if k != "train/step"}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()
