"""Adapters for a run: `--peft.*` becomes small trainable layers in a policy whose other weights stay.

Paper: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.
"""

import dataclasses
import re
from typing import Any

from torch import nn

from lerobot.core.errors import ConfigError, suggest
from lerobot.core.optional import require
from lerobot.policies.adapter import attach
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.training.config import TrainConfig
from lerobot.training.parts import find_part, own_words
from lerobot.training.sections import PeftConfig

# Beginnings that leave the base's weights as they are; others would need those changed weights saved too.
INIT_TYPES = ("gaussian", "orthogonal")


def add_adapters(policy: PreTrainedPolicy, cfg: TrainConfig) -> None:
    """Put the adapters that `cfg.peft` describes into a trained policy, unless it came with its own.

    Raises:
        ConfigError: the policy has adapters already, or such adapters cannot be made.
        MissingExtraError: the package `peft` is not installed.
    """
    if cfg.peft is None:
        return
    assert cfg.policy is not None
    if policy.adapter is not None:
        if cfg.resume:
            return
        raise ConfigError(
            f"{cfg.policy.pretrained_path} has adapters already, which are trained on. Leave out --peft, or "
            "give the checkpoint they were made for."
        )
    config = package_config(policy, cfg.peft)
    base = cfg.policy.pretrained_path
    assert base is not None
    try:
        attach(policy, config, base=base, revision=cfg.policy.pretrained_revision)
    except ValueError as error:
        raise ConfigError(
            f"--peft.target_modules={cfg.peft.target_modules}: {error} Layers that can be adapted end with: "
            f"{', '.join(adaptable(policy))}."
        ) from error


def package_config(policy: PreTrainedPolicy, cfg: PeftConfig) -> Any:
    """The package's config of these adapters.

    Raises:
        ConfigError: an unknown method, no layers to adapt, an unknown part.
    """
    peft = require("peft", extra="peft")
    by_name = {kind.value: made for kind, made in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    method = cfg.method_type.upper()
    if method not in by_name:
        raise ConfigError(f"--peft.method_type={cfg.method_type} is unknown.{suggest(method, by_name)}")
    made = by_name[method]
    known = {field.name for field in dataclasses.fields(made)}
    if "target_modules" not in known:
        raise ConfigError(f"--peft.method_type={cfg.method_type} does not adapt layers. Try LORA.")
    alpha = cfg.r if cfg.lora_alpha is None else cfg.lora_alpha
    wanted = {
        "target_modules": targets(policy, cfg),
        "modules_to_save": whole_parts(policy, cfg),
        "r": cfg.r,
        "lora_alpha": alpha,
        "alpha": alpha,
        **_beginning(cfg, method),
    }
    return made(**{name: value for name, value in wanted.items() if name in known})


def _beginning(cfg: PeftConfig, method: str) -> dict[str, Any]:
    if cfg.init_type is None:
        return {}
    if method != "LORA" or cfg.init_type not in INIT_TYPES:
        raise ConfigError(
            f"--peft.init_type={cfg.init_type}: expected {' or '.join(INIT_TYPES)}, with LORA; others change "
            "the weights of the base. Leave it out for the method's default."
        )
    return {"init_lora_weights": cfg.init_type}


def targets(policy: PreTrainedPolicy, cfg: PeftConfig) -> list[str] | str:
    """Which layers get adapters: names or their ends, or a regex over whole names.

    Raises:
        ConfigError: none were given, and the policy names none.
    """
    wanted = cfg.target_modules or policy.adapter_targets
    if not wanted:
        raise ConfigError(
            f"{policy.name} does not say which layers to adapt. Give the ends of their names, some of: "
            f"--peft.target_modules=[{','.join(adaptable(policy))}]"
        )
    if isinstance(wanted, str) and re.fullmatch(r"[\w.]+", wanted):
        return [wanted]  # one name; anything else is a regex
    return wanted


def whole_parts(policy: PreTrainedPolicy, cfg: PeftConfig) -> list[str] | None:
    """The paths of the parts that are trained whole.

    Raises:
        ConfigError: there is no such part.
    """
    names, own = cfg.full_training_modules or [], own_words(policy)
    for name in names:
        find_part(policy, name, flag="--peft.full_training_modules")
    return [own.get(name, name) for name in names] or None


def adaptable(policy: nn.Module) -> list[str]:
    """The last words of the names of linear layers."""
    return sorted(
        {n.rpartition(".")[2] for n, module in policy.named_modules() if isinstance(module, nn.Linear)}
    )
