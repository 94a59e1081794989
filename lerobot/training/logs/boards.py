"""Dashboards of others that show a run: Weights & Biases, Trackio; a resumed run goes on where it was.

row {"step", "loss", "eval/..."} -> train/loss, eval/...;  checkpoint folder -> artifact;  video -> eval/video
"""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lerobot.core import keys
from lerobot.core.errors import ConfigError, TrainingError
from lerobot.core.optional import require
from lerobot.training.logs.metrics import Row, grouped
from lerobot.training.sections import TrackioConfig, WandBConfig

logger = logging.getLogger(__name__)
INIT_TIMEOUT_S = 30.0  # per attempt; without network W&B makes three
FINISH_TIMEOUT_S = 120.0  # for what is not uploaded yet; it stays on disk for `wandb sync`
TAG_LENGTH = 64  # W&B refuses longer ones
ARTIFACT_LENGTH = 128
WEIGHTS = (keys.WEIGHTS_FILE, keys.ADAPTER_FILE, keys.ADAPTER_CONFIG_FILE)  # what an artifact holds


class WeightsAndBiases:
    """A run on Weights & Biases, named and grouped as other LeRobot installations do.

    Args:
        tags: `policy:act`, `seed:1000` ...; they also name the group and the artifacts.
        is_resumed: whether the run goes on; without a run id it is the one in `<folder>/wandb/latest-run`.

    Raises:
        MissingExtraError: the package `wandb` is not installed.
        ConfigError: nobody is logged in.
        TrainingError: its server cannot be reached, or refuses.
    """

    name = "Weights & Biases"

    def __init__(
        self,
        folder: Path,
        *,
        settings: WandBConfig,
        name: str,
        tags: Sequence[str],
        config: Mapping[str, Any],
        is_resumed: bool = False,
    ) -> None:
        wandb = require("wandb", extra="wandb")
        self.tags, self.has_artifacts, self.wandb = tags, not settings.disable_artifact, wandb
        run_id = settings.run_id or (latest_run_id(folder) if is_resumed else None)
        own_tags = [*(tags if settings.add_tags else ()), *(settings.tags or ())]
        os.environ.setdefault("WANDB_SILENT", "True")  # it would write over the bar
        try:
            self.run = wandb.init(
                project=settings.project,
                entity=settings.entity,
                notes=settings.notes,
                name=name,
                group="-".join(tags)[:TAG_LENGTH],
                id=run_id,
                resume="allow" if run_id else None,
                mode=settings.mode,
                tags=[tag[:TAG_LENGTH] for tag in own_tags],
                dir=str(folder),
                job_type="train_eval",
                config=dict(config),
                save_code=False,
                settings=self._limits(),
            )
        except wandb.errors.UsageError as error:
            raise ConfigError(
                f"--wandb.enable=true: {_first_line(error)} Type: wandb login, or keep the run on this "
                "machine with --wandb.mode=offline"
            ) from error
        except wandb.errors.Error as error:  # CommError, AuthenticationError ...
            raise TrainingError(
                f"Weights & Biases does not answer or refuses: {_first_line(error)} Keep the run on this "
                "machine and upload it later with --wandb.mode=offline, or log in anew: wandb login --relogin"
            ) from error
        self.kept_step = self.run.starting_step - 1 if run_id else -1  # the server has rows up to here
        self.last_step = 0

    def _limits(self) -> Any:
        known = self.wandb.Settings.model_fields
        limits: dict[str, Any] = {"init_timeout": INIT_TIMEOUT_S, "finish_timeout": FINISH_TIMEOUT_S}
        if sys.stderr.isatty():
            limits["console"] = "off"  # a bar is no log
        return self.wandb.Settings(**{key: value for key, value in limits.items() if key in known})

    @property
    def run_id(self) -> str:
        """The id by which a resumed run finds this one."""
        return self.run.id

    @property
    def place(self) -> str:
        """Where to look at it."""
        if self.run.offline:
            return f"W&B offline (upload it with: wandb sync {Path(self.run.dir).parent})"
        return f"W&B: {self.run.url}"

    def write(self, row: Row) -> None:
        """Log numbers under `train/` and `eval/`."""
        self._log(grouped(row), step=int(row["step"]))

    def video(self, path: Path, *, step: int) -> None:
        """Show a video of an evaluation as `eval/video`."""
        self._log({"eval/video": self.wandb.Video(str(path), format="mp4")}, step=step)

    def checkpoint(self, folder: Path) -> None:
        """Upload the weights in a checkpoint's folder as an artifact `<tags>-<step>`."""
        if not self.has_artifacts:
            return
        artifact = self.wandb.Artifact(artifact_name(self.tags, folder.name), type="model")
        for name in WEIGHTS:
            path = folder / keys.PRETRAINED_FOLDER / name
            if path.exists():
                artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def _log(self, values: Mapping[str, Any], *, step: int) -> None:
        if step <= self.kept_step:  # logged before an interruption; the server takes no step twice
            return
        # Nor does it take an earlier step, such as that of an evaluation which ran beside the training.
        self.last_step = max(self.last_step, step)
        self.run.log(dict(values), step=self.last_step)

    def close(self) -> None:
        """Finish the run; failed, when an error ends it."""
        self.run.finish(exit_code=1 if sys.exc_info()[0] is not None else 0)


def artifact_name(tags: Sequence[str], step: str) -> str:
    """`policy_act-seed_1000-dataset_me_data-005000`, at most as long as W&B allows, the step complete."""
    start = re.sub(r"[^\w.-]", "_", "-".join(tags))
    return f"{start[: ARTIFACT_LENGTH - len(step) - 1]}-{step}"


def latest_run_id(folder: Path) -> str | None:
    """The id of the last W&B run that was kept in a run's folder, as its own link there says."""
    files = sorted((folder / "wandb" / "latest-run").glob("run-*.wandb"))
    return files[-1].stem.removeprefix("run-") if files else None


class Trackio:
    """A run on Trackio, which keeps it on this machine or in a Space.

    Raises:
        MissingExtraError: the package `trackio` is not installed.
        ConfigError: its settings are refused, such as a Space without a login.
        TrainingError: its Space cannot be reached.
    """

    name = "Trackio"

    def __init__(
        self, *, settings: TrackioConfig, job_name: str, tags: Sequence[str], config: Mapping[str, Any]
    ) -> None:
        trackio = require("trackio", extra="trackio")
        now = datetime.now().astimezone()
        # Trackio finds a run by its name, so each run gets its own.
        self.run_name = settings.run_name or f"{job_name}_{now:%Y-%m-%d_%H-%M-%S}"
        self.project, self.space_id = settings.project, settings.space_id
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                self.run = trackio.init(
                    project=settings.project,
                    name=self.run_name,
                    group="-".join(tags)[:TAG_LENGTH],
                    space_id=settings.space_id,
                    config=dict(config),
                    resume="allow",
                    embed=False,
                )
            except (ValueError, OSError) as error:  # what the Hub refuses is an OSError, too
                raise ConfigError(f"--trackio.enable=true: {_first_line(error)}") from error
            except Exception as error:  # its network library has errors of its own, which no base class joins
                raise TrainingError(
                    f"--trackio.enable=true: {_first_line(error)} Without --trackio.space_id the run is kept "
                    "on this machine."
                ) from error
        self.video_class = trackio.Video

    @property
    def place(self) -> str:
        """Where to look at it."""
        where = self.space_id or f"trackio show --project {self.project}"
        return f"Trackio, {self.run_name}: {where}"

    def write(self, row: Row) -> None:
        """Log numbers under `train/` and `eval/`."""
        self.run.log(grouped(row), step=int(row["step"]))

    def video(self, path: Path, *, step: int) -> None:
        """Show a video of an evaluation as `eval/video`."""
        self.run.log({"eval/video": self.video_class(str(path), format="mp4")}, step=step)

    def checkpoint(self, folder: Path) -> None:
        """Checkpoints stay where they are."""

    def close(self) -> None:
        """Finish the run."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.run.finish()


def _first_line(error: Exception) -> str:
    """The first line of another package's message, as a sentence."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith((".", "!")) else f"{line}."
