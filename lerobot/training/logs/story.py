"""What the report of a run says besides numbers: state, facts, checkpoints, a video of each evaluation."""

import time
from pathlib import Path

from lerobot.core import keys
from lerobot.core.clock import readable_duration
from lerobot.evaluation.curves import TrainingStory
from lerobot.training.run import Run


def tell(run: Run) -> TrainingStory:
    """The story of a run, finished or stopped."""
    return TrainingStory(
        title=f"{run.policy.config.type} on {run.cfg.dataset.label}",
        state=_state(run),
        facts=run.console.facts | {"took": readable_duration(time.perf_counter() - run.started_s)},
        checkpoints=_checkpoints(run.output_dir),
        films=_films(run.output_dir),
    )


def _state(run: Run) -> str:
    if run.finished:
        return f"The run has taken all its {run.cfg.steps:,} steps."
    if run.patience is not None and run.has_stalled:
        return f"The run ended early after {run.step:,} steps: {run.patience.reason()}."
    return f"The run was stopped after {run.step:,} of {run.cfg.steps:,} steps."


def _checkpoints(folder: Path) -> list[list[str]]:
    """Step, folder and size of each checkpoint that is there."""
    last = folder / keys.CHECKPOINTS_FOLDER / keys.LAST_LINK
    rows = []
    for path in sorted(last.parent.glob("[0-9]*")):
        size_mb = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        mark = " (last)" if last.exists() and last.resolve() == path.resolve() else ""
        rows.append(
            [f"{int(path.name):,}", f"{path.relative_to(folder).as_posix()}{mark}", f"{size_mb:,.1f} MB"]
        )
    return rows


def _films(folder: Path) -> dict[str, Path]:
    """The first video of every evaluation."""
    found = {}
    for step in sorted((folder / "eval").glob("videos_step_*")):
        video = next(iter(sorted(step.rglob("*.mp4"))), None)
        if video is not None:
            found[f"step {int(step.name.rpartition('_')[2]):,}"] = video
    return found
