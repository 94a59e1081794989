"""Other spellings of flags and config keys, in one table; each source is rewritten before it is checked.

One canonical spelling per idea. An alias never wins over its canonical spelling: both with different values
are an error. What was read as what is logged once at INFO.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lerobot.core.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alias:
    """`old` is read as `new`; a trailing `*` takes all keys of a section; `change` converts the value."""

    old: str
    new: str
    change: Callable[[Any], Any] | None = None
    is_quiet: bool = False  # a spelling of our own files: nothing to tell


def _keypoints(width: Any) -> int:
    """Diffusion's feature width is two coordinates per spatial-softmax keypoint."""
    try:
        number = int(str(width))
    except ValueError as error:
        raise ConfigError(
            f"--policy.visual_features={width}: expected a whole number, got {str(width)!r}."
        ) from error
    if number <= 0 or number % 2:
        raise ConfigError(f"--policy.visual_features={width}: it must be even (x and y of each keypoint).")
    return number // 2


POLICY_ALIASES = (
    Alias("-p", "policy.path"),
    Alias("policy.lr", "policy.optimizer_lr"),
    Alias("policy.backbone", "policy.vision_backbone"),
    Alias("policy.num_action_chunks", "policy.n_action_steps"),
    Alias("policy.visual_features", "policy.spatial_softmax_num_keypoints", _keypoints),
)
TRAIN_ALIASES = (
    Alias("training.device", "policy.device"),
    Alias("training.lr", "policy.optimizer_lr"),
    Alias("training.*", "*"),
    Alias("output.*", "*"),
    Alias("lr", "policy.optimizer_lr"),
    Alias("device", "policy.device"),
    *POLICY_ALIASES,
    Alias("policy.action_dim", "action_dim"),
    Alias("policy.num_epochs", "num_epochs"),
    Alias("policy.input_shapes", "input_shapes"),
    Alias("grad_clip_norm", "optimizer.grad_clip_norm"),
    Alias("env_eval_freq", "eval_freq", is_quiet=True),
)
EVAL_ALIASES = (*POLICY_ALIASES, Alias("num_episodes", "eval.n_episodes"), Alias("device", "policy.device"))


def apply_aliases(tree: dict[str, Any], aliases: Sequence[Alias]) -> dict[str, Any]:
    """A copy of the tree with every alias replaced by its canonical spelling.

    Raises:
        ConfigError: an alias and its canonical spelling were given different values.
    """
    tree = _copy(tree)
    for alias in aliases:
        if alias.old.endswith(".*"):
            section = tree.get(alias.old[:-2])
            if isinstance(section, dict):
                for key in list(section):
                    _move(tree, Alias(f"{alias.old[:-1]}{key}", key))
                tree.pop(alias.old[:-2])
        else:
            _move(tree, alias)
    return tree


def _move(tree: dict[str, Any], alias: Alias) -> None:
    section, old_name = _section(tree, alias.old)
    if section is None or old_name not in section:
        return
    given = section.pop(old_name)
    value = alias.change(given) if alias.change else given
    target, new_name = _section(tree, alias.new, make=True)
    if target is None:
        raise ConfigError(
            f"{_flag(alias.old)} is read as {_flag(alias.new)}, but that section was given as one value."
        )
    if new_name in target and not _same(target[new_name], value):
        raise ConfigError(
            f"{_flag(alias.old)}={given} and {_flag(alias.new)}={target[new_name]} disagree: the first is "
            "another spelling of the second. Give one of them."
        )
    target.setdefault(new_name, value)
    if not alias.is_quiet:
        logger.info("%s is read as %s", _flag(alias.old), _flag(alias.new))


def _flag(name: str) -> str:
    return name if name.startswith("-") else f"--{name}"


def _same(one: Any, other: Any) -> bool:
    if one == other or str(one) == str(other):
        return True
    try:
        return float(str(one)) == float(str(other))
    except ValueError:
        return False


def _section(tree: dict[str, Any], dotted: str, *, make: bool = False) -> tuple[dict[str, Any] | None, str]:
    """The dict that holds the last part of a dotted name, and that part."""
    *path, name = dotted.split(".")
    here: Any = tree
    for part in path:
        if not isinstance(here, dict):
            return None, name
        if make:
            here = here.setdefault(part, {})
        else:
            here = here.get(part)
    return (here if isinstance(here, dict) else None), name


def _copy(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in tree.items()}
