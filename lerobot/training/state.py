"""A run's checkpoints: what is saved of it, and how a resumed run gets it back."""

from pathlib import Path

from lerobot.core.config import encode
from lerobot.core.errors import ConfigError
from lerobot.optim.rng import take_rng
from lerobot.training import checkpoint
from lerobot.training.checks import check_weights
from lerobot.training.run import Run


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
            extra={"scaler": run.scaler.state_dict()} if run.scaler else None,
        )
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
