"""A run's checkpoints: what is saved of it, and how a resumed run gets it back."""

import logging
from dataclasses import replace
from pathlib import Path

from lerobot.core.config import encode
from lerobot.core.errors import ConfigError
from lerobot.datasets.sampler import compute_sampler_state
from lerobot.optim.rng import take_rng
from lerobot.training import checkpoint
from lerobot.training.checkpoint import Progress
from lerobot.training.checks import check_weights
from lerobot.training.data import Position
from lerobot.training.processors import save_per_dataset
from lerobot.training.run import Run

logger = logging.getLogger(__name__)


def save_checkpoint(run: Run) -> None:
    """Write the run's checkpoint; every process enters, the first one writes.

    Raises:
        TrainingError: its weights are no longer numbers.
    """
    check_weights(run.policy, step=run.step)
    rng = run.world.gather(take_rng())
    if run.world.is_main:
        cfg = run.cfg
        run.last_checkpoint = checkpoint.save(
            run.output_dir,
            step=run.step,
            total_steps=cfg.steps,
            policy=run.policy,
            train_config=encode(cfg),
            batch_size=cfg.batch_size,
            num_processes=run.world.size,
            preprocessor=run.processors[0],
            postprocessor=run.processors[1],
            optimizer=run.optimizer,
            scheduler=run.scheduler,
            rng=rng,
            write_more=lambda folder: save_per_dataset(cfg, [run.processors, *run.other_processors], folder),
            extra={"sampler": run.position.state()}
            | ({"scaler": run.scaler.state_dict()} if run.scaler else {}),
        )
        assert run.tracker is not None
        run.tracker.checkpoint(run.last_checkpoint)
    run.world.wait()


def restore_state(run: Run) -> None:
    """Bring a new run to where its checkpoint stood; learning rates that were changed since apply.

    Raises:
        CheckpointError: the checkpoint is damaged or belongs to another model.
        ConfigError: the run has already taken all its steps.
    """
    assert run.cfg.checkpoint_path is not None
    folder = Path(run.cfg.checkpoint_path)
    progress = checkpoint.load(folder, optimizer=run.optimizer, scheduler=run.scheduler, rank=run.world.rank)
    if progress.step >= run.cfg.steps:
        raise ConfigError(
            f"{folder} has taken all its {progress.step} steps. "
            f"To train longer, type: --steps={2 * progress.step}"
        )
    if run.scaler and "scaler" in progress.extra:
        run.scaler.load_state_dict(progress.extra["scaler"])
    run.step, run.last_checkpoint = progress.step, folder
    run.loader.start = position_of(run, progress)


def position_of(run: Run, progress: Progress) -> Position:
    """Where the order of frames goes on: also with another number of processes or another batch size.

    Checkpoints of other releases hold the step alone, from which it follows if those two are as they were.
    """
    loader, saved = run.loader, progress.extra.get("sampler")
    if saved is None:
        state = compute_sampler_state(
            progress.step * run.cfg.gradient_accumulation_steps,
            loader.frames_per_epoch,
            progress.batch_size or loader.batch_size,
            progress.num_processes or loader.num_ranks,
        )
        return replace(loader.start, epoch=state["epoch"], offset=state["start_index"])
    position = Position.from_state(saved)
    if position.seed != loader.start.seed:
        logger.warning(
            "--seed=%s: the order of frames goes on with the run's first seed, %s.",
            run.cfg.seed,
            position.seed,
        )
        loader.reseed(position.seed)
    if position.frames_per_epoch != loader.frames_per_epoch:
        logger.warning(
            "The data has %d frames per epoch and had %d when the run was saved; a new epoch begins.",
            loader.frames_per_epoch,
            position.frames_per_epoch,
        )
        return replace(position, epoch=position.epoch + 1, offset=0, frames_per_epoch=loader.frames_per_epoch)
    return loader.fitting(position, progress.num_processes)
