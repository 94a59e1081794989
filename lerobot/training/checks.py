"""What is checked before the first step of a run, and before its numbers are believed."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from torch import Tensor

from lerobot.core import hub, keys
from lerobot.core.errors import ConfigError, FeatureMismatchError, TrainingError
from lerobot.core.optional import require
from lerobot.core.types import FeatureType, policy_features
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.training.checkpoints.snapshot import is_finite
from lerobot.training.config import TrainConfig
from lerobot.training.sections import LOSS


def choose_output_dir(cfg: TrainConfig) -> Path:
    """The run's folder.

    Raises:
        ConfigError: it cannot be one, or it exists and the run is not a resumed one.
    """
    now = datetime.now().astimezone()
    folder = cfg.output_dir or Path("outputs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{cfg.name}"
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"--output_dir={folder}: {there} is a file. Give a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--output_dir={folder}: you may not write in {there}. Give another folder.")
    if cfg.resume or there != folder or not any(folder.iterdir()):
        return folder
    if any((folder / keys.CHECKPOINTS_FOLDER).glob("*")):
        raise ConfigError(
            f"--output_dir={folder} exists already. Give another folder, or continue that run: "
            f"lerobot-train --resume=true --output_dir={folder}"
        )
    raise ConfigError(
        f"--output_dir={folder} exists already and holds no checkpoint to continue from. Give another "
        "folder, or delete this one."
    )


def make_output_dir(folder: Path) -> None:
    """Make the run's folder.

    Raises:
        ConfigError: the system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output_dir={folder} cannot be made: {error.strerror}. Give another.") from error


def check_flags(cfg: TrainConfig, features: dict[str, dict]) -> None:
    """Check the flags that speak of the dataset's features against it.

    Raises:
        FeatureMismatchError: a flag contradicts the dataset.
    """
    offered = {cfg.rename_map.get(name, name): f for name, f in policy_features(features).items()}
    size = sum(f.shape[0] for f in offered.values() if f.type is FeatureType.ACTION)
    if cfg.action_dim is not None and cfg.action_dim != size:
        raise FeatureMismatchError(
            f"--policy.action_dim={cfg.action_dim}: the dataset's actions have size {size}."
        )
    cameras = {name: f for name, f in offered.items() if f.type is FeatureType.VISUAL}
    for name, shape in cfg.input_shapes.items():
        if name not in cameras or len(shape) != 3 or shape[0] != cameras[name].shape[0]:
            known = ", ".join(f"{n} {list(f.shape)}" for n, f in cameras.items())
            raise FeatureMismatchError(
                f"--policy.input_shapes.{name}={list(shape)}: expected [C, H, W] of a camera. "
                f"Cameras: {known or 'none'}."
            )


def check_item_losses(cfg: TrainConfig, policy: PreTrainedPolicy) -> None:
    """Check that a policy whose items are to be weighed, or ranked by their loss, tells them apart.

    Raises:
        ConfigError: its loss is that of a whole batch.
    """
    for is_given, flag in (
        (cfg.sample_weighting is not None, "--sample_weighting"),
        (cfg.curriculum.difficulty == LOSS, f"--curriculum.difficulty={LOSS}"),
    ):
        if is_given and not policy.has_item_losses:
            raise ConfigError(
                f"{flag} needs the loss of each item, and {policy.name} has one of the whole batch: its "
                "forward lacks the arguments reduction and totals of PreTrainedPolicy.forward. Leave it out."
            )


def check_publishing(cfg: TrainConfig) -> None:
    """Fail now, not after the last step, when the policy is to be uploaded and cannot be.

    Raises:
        ConfigError: no network is allowed, or nobody is logged in.
    """
    if cfg.policy is None or not cfg.policy.push_to_hub:
        return
    problem = (
        "HF_HUB_OFFLINE is set" if hub.is_offline() else None if hub.has_token() else "nobody is logged in"
    )
    if problem:
        raise ConfigError(
            f"The policy is to be published as {cfg.policy.repo_id}, but {problem}. Type: hf auth login, "
            "or leave it on this machine with --policy.push_to_hub=false."
        )


def check_tracking(cfg: TrainConfig) -> None:
    """Fail now, not with half a run on disk, when a dashboard was asked for and is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    if cfg.wandb.enable and cfg.wandb.mode != "disabled":
        require("wandb", extra="wandb")
    if cfg.trackio.enable:
        require("trackio", extra="trackio")


def check_weights(weights: Mapping[str, Tensor], *, step: int) -> None:
    """Stop a run whose weights, on the host, are no longer numbers, before they are saved.

    Raises:
        TrainingError: some are not.
    """
    if not all(map(is_finite, weights.values())):
        raise TrainingError(f"The weights became NaN or infinite before step {step}. {WHAT_TO_TRY}")


WHAT_TO_TRY = (
    "What was saved before is unharmed. Try a lower --policy.optimizer_lr, a smaller "
    "--optimizer.grad_clip_norm, or look for NaN in the data."
)
