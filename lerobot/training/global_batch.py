"""How many frames `--batch_size` means: per process as everywhere else, or of all processes together."""

from dataclasses import replace

from lerobot.core.errors import ConfigError
from lerobot.training.config import TrainConfig


def per_process(cfg: TrainConfig, *, num_processes: int) -> TrainConfig:
    """The config with `batch_size` per micro-batch and process, as files and other installations mean it.

    A global size is kept in `global_batch_size`, by which a run that goes on with another number of processes
    keeps its steps as large as they were.

    Raises:
        ConfigError: a global size cannot be cut into equal parts.
    """
    if cfg.batch_size_is == "per_process" or cfg.auto_batch_size:  # `auto` finds a size per process
        return cfg
    parts = num_processes * cfg.gradient_accumulation_steps
    if cfg.batch_size % parts:
        below, above = cfg.batch_size // parts * parts, (cfg.batch_size // parts + 1) * parts
        nearest = min((below or above, above), key=lambda size: abs(size - cfg.batch_size))
        raise ConfigError(
            f"--batch_size={cfg.batch_size} --batch_size_is=global cannot be cut into {num_processes} "
            f"processes x {cfg.gradient_accumulation_steps} micro-batches of the same size. "
            f"Type: --batch_size={nearest}"
        )
    return with_size(cfg, cfg.batch_size // parts, num_processes=num_processes)


def with_size(cfg: TrainConfig, size: int, *, num_processes: int) -> TrainConfig:
    """The config with this size per micro-batch and process, and with that of a step, where steps count."""
    whole = size * num_processes * cfg.gradient_accumulation_steps
    is_global = cfg.batch_size_is == "global"
    return replace(
        cfg,
        batch_size=size,
        auto_batch_size=False,
        batch_size_is="per_process",
        global_batch_size=whole if is_global else cfg.global_batch_size,
    )
