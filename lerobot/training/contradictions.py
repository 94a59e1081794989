"""Settings that cannot be meant together, or numbers that no run can use: said before anything is opened."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lerobot.core.errors import ConfigError
from lerobot.training.sections import EarlyStoppingConfig, EMAConfig

if TYPE_CHECKING:
    from lerobot.training.config import TrainConfig


def check_objective(cfg: "TrainConfig") -> None:
    """Check what a step optimises: averaging, adapters, frozen parts, learning rates, stopping early.

    Raises:
        ConfigError: settings contradict each other; the message says what to type.
    """
    for message in (*_of_average(cfg), *_of_parts(cfg), *_of_stopping(cfg)):
        raise ConfigError(message)


def check_processes(cfg: "TrainConfig") -> None:
    """Check how many processes train together, and how.

    Raises:
        ConfigError: the message says what to type.
    """
    if cfg.num_processes is not None and cfg.num_processes < 1:
        raise ConfigError(f"--num_processes={cfg.num_processes}: expected at least 1.")
    if cfg.parallelism != "fsdp":
        return
    if cfg.mixed_precision == "fp16":
        raise ConfigError("--parallelism=fsdp computes in bf16 or float32. Type: --mixed_precision=bf16")
    if cfg.peft is not None:
        raise ConfigError("--peft trains few weights, which need no shards: leave out --parallelism=fsdp.")
    if cfg.compile:
        raise ConfigError(
            "--compile makes one graph, which shards cut: leave out --parallelism=fsdp, or --compile."
        )
    if cfg.auto_batch_size:
        raise ConfigError("--batch_size=auto does not know shards: give a number with --parallelism=fsdp.")


def check_keeping(cfg: "TrainConfig") -> None:
    """Check which checkpoints are kept, and that evaluations on the way are not asked to keep their episodes.

    Raises:
        ConfigError: the message says what to type.
    """
    if cfg.eval.recording:
        raise ConfigError(
            "--eval.recording=true records the episodes of lerobot-eval; evaluations during training leave "
            "none. Leave it out, and evaluate a checkpoint with it afterwards."
        )
    if cfg.keep_last is not None and cfg.keep_last < 1:
        raise ConfigError(f"--keep_last={cfg.keep_last}: expected at least 1; leave it out to keep all.")
    metric = cfg.keep_best
    if metric is None:
        return
    if is_better_lower(metric) is None:
        raise ConfigError(
            f"--keep_best={metric}: whether more of it is better cannot be told from its name. Give a metric "
            "such as loss, eval/loss or eval/success_rate."
        )
    if metric == "eval/loss" and not cfg.eval_steps:
        raise ConfigError(f"--keep_best={metric} is never measured in this run: give --eval_steps=N.")
    if metric.startswith("eval/") and metric != "eval/loss" and (cfg.env is None or not cfg.eval_freq):
        raise ConfigError(
            f"--keep_best={metric} is never measured in this run: give --env.type=NAME and --eval_freq=N."
        )


def check_online(cfg: "TrainConfig") -> None:
    """Check what is learned from: recorded data, or what the policy does in an environment.

    Raises:
        ConfigError: the message says what to type.
    """
    if not cfg.online_training:
        if not cfg.dataset.names:
            raise ConfigError(
                "There is nothing to learn from. Give --dataset.repo_id=user/name, or --online_training=true "
                "with --env.type=NAME."
            )
        return
    assert cfg.policy is not None
    if cfg.env is None:
        raise ConfigError("--online_training=true acts in an environment. Give --env.type=NAME.")
    if cfg.policy.reward_delta_indices is None:
        raise ConfigError(
            f"--online_training=true learns from rewards, which {cfg.policy.type} does not read. "
            "Type: --policy.type=tdmpc"
        )
    for is_given, flag in (
        (len(cfg.dataset.names) > 1, "more than one --dataset.repo_id"),
        (cfg.dataset.streaming, "--dataset.streaming"),
        (cfg.curriculum.difficulty is not None, "--curriculum.difficulty"),
        (cfg.sample_weighting is not None, "--sample_weighting"),
        (cfg.num_epochs is not None, "--num_epochs"),
        ((cfg.num_processes or 1) > 1, f"--num_processes={cfg.num_processes}"),
    ):
        if is_given:
            raise ConfigError(f"--online_training=true and {flag} do not go together. Leave one of them out.")


def _of_average(cfg: "TrainConfig") -> Iterator[str]:
    ema: EMAConfig = cfg.ema
    shares = {"decay": ema.decay, "min_decay": ema.min_decay, "max_decay": ema.max_decay}
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            yield f"--ema.{name}={value}: expected a share from 0 to 1."
    if ema.min_decay > ema.max_decay:
        yield f"--ema.min_decay={ema.min_decay} is more than --ema.max_decay={ema.max_decay}."
    for name in ("inv_gamma", "power"):
        if getattr(ema, name) <= 0:
            yield f"--ema.{name}={getattr(ema, name)}: expected a number above 0."
    if ema.update_after_step < 0:
        yield f"--ema.update_after_step={ema.update_after_step}: expected at least 0."
    if cfg.uses_ema:
        other = "--parallelism=fsdp" if cfg.parallelism == "fsdp" else "--peft" if cfg.peft else None
        if other:
            yield f"No average of the weights is kept with {other}. Type: --ema.enable=false"


def _of_parts(cfg: "TrainConfig") -> Iterator[str]:
    for name, factor in cfg.lr_scale.items():
        if factor <= 0:
            yield (
                f"--lr_scale: {name} has {factor}; expected a number above 0. "
                f"To keep it still, type: --freeze={name}"
            )
    if cfg.peft is None:
        return
    assert cfg.policy is not None
    if cfg.freeze:
        yield "--peft freezes all but its adapters by itself: leave out --freeze."
    if not cfg.policy.pretrained_path:
        yield (
            "--peft adapts a trained policy, and this one begins with random weights. "
            "Give --policy.path=CHECKPOINT, or leave out --peft."
        )


def _of_stopping(cfg: "TrainConfig") -> Iterator[str]:
    stopping: EarlyStoppingConfig = cfg.early_stopping
    if stopping.metric is None:
        return
    if stopping.patience < 1:
        yield f"--early_stopping.patience={stopping.patience}: expected at least 1."
    if stopping.min_delta < 0:
        yield f"--early_stopping.min_delta={stopping.min_delta}: expected at least 0."
    if is_better_lower(stopping.metric) is None:
        yield (
            f"--early_stopping.metric={stopping.metric}: that name does not tell whether lower or higher is "
            "better. Give one with loss, mse, mae, error, success or reward in it."
        )
    if stopping.metric == "eval/loss" and not cfg.eval_steps:
        yield (
            "--early_stopping.metric=eval/loss is never measured: "
            "give --eval_steps=N and --dataset.eval_split=0.1."
        )
    is_of_env = stopping.metric.startswith("eval/") and stopping.metric != "eval/loss"
    if is_of_env and (cfg.env is None or not cfg.eval_freq):
        yield (
            f"--early_stopping.metric={stopping.metric} is never measured: give --env.type=NAME "
            "and --eval_freq=N."
        )


LOWER, HIGHER = ("loss", "mse", "mae", "error"), ("success", "reward", "return", "accuracy")


def is_better_lower(metric: str) -> bool | None:
    """Whether a smaller value of a metric is a better one, by its name; None where that cannot be told."""
    name = metric.lower()
    if any(word in name for word in LOWER):
        return True
    return False if any(word in name for word in HIGHER) else None
