"""Checks of settings that several policies have; each error names the flag."""

from collections.abc import Iterable
from typing import Any

from lerobot.core.errors import ConfigError


def check_least(config: Any, names: Iterable[str], *, least: int = 1) -> None:
    """Refuse a config in which one of these numbers is smaller.

    Raises:
        ConfigError: that is so.
    """
    for name in names:
        if getattr(config, name) < least:
            raise ConfigError(f"--policy.{name}={getattr(config, name)}: expected at least {least}.")


def check_backbone(config: Any) -> None:
    """Refuse a `vision_backbone` that is no ResNet, or one whose weights do not go with its norms.

    Raises:
        ConfigError: that is so.
    """
    if not config.vision_backbone.startswith("resnet"):
        raise ConfigError(
            f"vision_backbone={config.vision_backbone!r} must be a ResNet, for example resnet18."
        )
    if getattr(config, "use_group_norm", False) and config.pretrained_backbone_weights:
        raise ConfigError(
            "use_group_norm=true replaces the norms that pretrained_backbone_weights="
            f"{config.pretrained_backbone_weights} were trained with. Type: "
            "--policy.pretrained_backbone_weights=null or --policy.use_group_norm=false"
        )


def check_size(config: Any, name: str) -> None:
    """Refuse a size of pictures that is neither null nor a positive height and width.

    Raises:
        ConfigError: that is so.
    """
    size = getattr(config, name)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(
            f"{name}={list(size)} must be two positive numbers, height and width. For example: "
            f"--policy.{name}='[84, 84]'"
        )
