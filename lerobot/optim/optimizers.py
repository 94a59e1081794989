"""Optimizers by name: configs that know their fields and build torch optimizers.

Adam: Kingma and Ba, 2015, arXiv:1412.6980. AdamW: Loshchilov and Hutter, 2019, arXiv:1711.05101.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lerobot.core.errors import ConfigError, suggest
from lerobot.core.registry import Choice

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


@dataclass(kw_only=True)
class OptimizerConfig(Choice, package="lerobot.optim.optimizers"):
    """Base of all optimizers: what each one has."""

    lr: float = 1e-3  # learning rate
    weight_decay: float = 0.0  # weight decay
    grad_clip_norm: float = 10.0  # gradients longer than this (global norm) are shortened to it; 0 is off

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one is negative or not a number.
        """
        for name in ("lr", "weight_decay", "grad_clip_norm"):
            check_number(name, getattr(self, name))

    def build(self, params: Any) -> "Optimizer | dict[str, Optimizer]":
        """The torch optimizer of these parameters: a list of them, of groups, or a dict of named ones."""
        raise NotImplementedError


@dataclass(kw_only=True)
class _AdamFields(OptimizerConfig):
    """What the two Adams share."""

    betas: tuple[float, float] = (0.9, 0.999)  # decay of the running mean of gradients, and of their squares
    eps: float = 1e-8  # added to the root of the second, against division by zero

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        check_number("eps", self.eps)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas={list(self.betas)}: both must be at least 0 and below 1.")

    @property
    def settings(self) -> dict[str, Any]:
        """What torch calls these fields."""
        return {"lr": self.lr, "betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay}


@OptimizerConfig.register_subclass("adam")
@dataclass(kw_only=True)
class AdamConfig(_AdamFields):
    """Adam; weight decay is added to the gradient."""

    def build(self, params: Any) -> "Optimizer":
        """The torch optimizer."""
        import torch

        return torch.optim.Adam(**placed(params, least=LEAST_FUSED_ADAM), **self.settings)


@OptimizerConfig.register_subclass("adamw")
@dataclass(kw_only=True)
class AdamWConfig(_AdamFields):
    """Adam with weight decay apart from the gradient."""

    weight_decay: float = 0.01  # weight decay

    def build(self, params: Any) -> "Optimizer":
        """The torch optimizer."""
        import torch

        return torch.optim.AdamW(**placed(params), **self.settings)


@OptimizerConfig.register_subclass("adamw_8bit")
@dataclass(kw_only=True)
class AdamW8bitConfig(AdamWConfig):
    """AdamW whose running means take a quarter of the memory: 8 bits per number, in blocks with one scale.

    Paper: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", arXiv:2110.02861. Parameters
    of fewer than 4096 numbers keep 32 bits.
    """

    def build(self, params: Any) -> "Optimizer":
        """The optimizer of the package `bitsandbytes`.

        Raises:
            MissingExtraError: it is not installed.
            ConfigError: it has no kernels for the device of the parameters.
        """
        from lerobot.core.optional import require

        chosen = as_list(params)
        members = (p for one in chosen for p in (one["params"] if isinstance(one, Mapping) else [one]))
        devices = {p.device.type for p in members} - {"cuda", "xpu", "cpu"}
        if devices:
            raise ConfigError(
                f"--optimizer.type=adamw_8bit does not run on {', '.join(devices)}. Type: "
                "--optimizer.type=adamw"
            )
        make = require("bitsandbytes", extra="8bit").optim.AdamW8bit
        return make(chosen, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


@OptimizerConfig.register_subclass("sgd")
@dataclass(kw_only=True)
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    momentum: float = 0.0  # share of the last step that is kept
    dampening: float = 0.0  # share of the gradient that momentum leaves out
    nesterov: bool = False  # look ahead along the momentum

    def build(self, params: Any) -> "Optimizer":
        """The torch optimizer."""
        import torch

        return torch.optim.SGD(
            **placed(params),
            lr=self.lr,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


@OptimizerConfig.register_subclass("xvla-adamw")
@dataclass(kw_only=True)
class XVLAAdamWConfig(_AdamFields):
    """AdamW in three groups by parameter name: vision-language model at a tenth, soft prompts, the rest."""

    lr: float = 1e-4  # learning rate
    betas: tuple[float, float] = (0.9, 0.99)  # decay of the running mean of gradients, and of their squares
    soft_prompt_lr_scale: float = 1.0  # learning rate of soft prompts, as a multiple of lr
    soft_prompt_warmup_lr_scale: float | None = None  # replaces soft_prompt_lr_scale while warming up

    VLM_SCALE = 0.1  # of lr and weight decay

    def build(self, params: Any) -> "Optimizer":
        """The torch optimizer of a dict of named parameters, in the groups vlm, soft_prompts and other.

        Raises:
            ConfigError: the parameters have no names.
        """
        import torch

        if not isinstance(params, Mapping):
            raise ConfigError(
                "xvla-adamw groups parameters by name: give dict(policy.named_parameters()), not a "
                f"{type(params).__name__}."
            )
        warmup_scale = self.soft_prompt_warmup_lr_scale
        scale = self.soft_prompt_lr_scale if warmup_scale is None else warmup_scale
        groups: dict[str, dict[str, Any]] = {
            "vlm": {"lr": self.lr * self.VLM_SCALE, "weight_decay": self.weight_decay * self.VLM_SCALE},
            "soft_prompts": {"lr": self.lr * scale, "weight_decay": self.weight_decay},
            "other": {"lr": self.lr, "weight_decay": self.weight_decay},
        }
        members: dict[str, list[Tensor]] = {name: [] for name in groups}
        for name, param in params.items():
            members[self.group_of(name)].append(param)
        chosen = [
            {"params": members[name], **settings, "name": name}
            for name, settings in groups.items()
            if members[name]
        ]
        return torch.optim.AdamW(**placed(chosen), **self.settings)

    @staticmethod
    def group_of(name: str) -> str:
        """The group a parameter belongs to."""
        lowered = name.lower()
        if "vlm" in lowered:
            return "vlm"
        return "soft_prompts" if "soft_prompt" in lowered else "other"


GROUP_DEFAULTS = {"betas": (0.9, 0.999), "eps": 1e-5}


@OptimizerConfig.register_subclass("multi_adam")
@dataclass(kw_only=True)
class MultiAdamConfig(OptimizerConfig):
    """Several independent Adams, such as one for the actor and one for the critic."""

    optimizer_groups: dict[str, dict[str, Any]] = field(default_factory=dict)  # lr, betas ... of each

    def __post_init__(self) -> None:
        """Check the numbers and the names of each group's settings."""
        super().__post_init__()
        known = ("lr", "betas", "eps", "weight_decay")
        for group, settings in self.optimizer_groups.items():
            for name in settings:
                if name not in known:
                    raise ConfigError(
                        f"optimizer_groups.{group}.{name} is unknown.{suggest(name, known)} "
                        f"Known: {', '.join(known)}."
                    )

    def build(self, params: Any) -> "dict[str, Optimizer]":
        """One optimizer per entry of a dict name -> parameters.

        Raises:
            ConfigError: the parameters are no dict, or optimizer_groups names one that is not in it.
        """
        import torch

        if not isinstance(params, Mapping):
            raise ConfigError(
                "multi_adam builds one optimizer per group: give a dict {'actor': [...], 'critic': [...]}, "
                f"not a {type(params).__name__}."
            )
        stray = [name for name in self.optimizer_groups if name not in params]
        if stray and any(name not in self.optimizer_groups for name in params):
            raise ConfigError(
                f"optimizer_groups names {', '.join(stray)}; the parameters are those of {', '.join(params)}."
                f"{suggest(stray[0], params)}"
            )
        shared = {"lr": self.lr, "weight_decay": self.weight_decay, **GROUP_DEFAULTS}
        built: dict[str, Optimizer] = {}
        for name, members in params.items():
            settings = {**shared, **self.optimizer_groups.get(name, {})}
            settings["betas"] = tuple(settings["betas"])
            built[name] = torch.optim.Adam(**placed(members), **settings)
        return built


def as_list(params: Any) -> list:
    """Parameters, groups or named parameters as the list that torch reads."""
    if hasattr(params, "is_floating_point"):  # one tensor; a list of it would be its rows
        return [params]
    return list(params.values()) if isinstance(params, Mapping) else list(params)


# One kernel instead of a dozen passes over memory; on a GPU for all parameters at once, with step counters
# there. Smaller policies on a CPU gain little and keep the plain loop, with which recorded runs repeat bit
# for bit. Where nothing is said, torch takes foreach on GPUs.
FUSED_DEVICES = ("cuda", "cpu")
LEAST_FUSED_ON_CPU = 2**24  # numbers
LEAST_FUSED_ADAM = 2**22  # the recorded runs of this one are smaller, and TD-MPC gains a tenth of its step


def placed(params: Any, *, least: int | None = None) -> dict[str, Any]:
    """The arguments `params`, a list of them or of groups, and `fused` where their device has it."""
    entries = [
        {**entry, "params": as_list(entry["params"])} if isinstance(entry, Mapping) else entry
        for entry in as_list(params)
    ]
    members = [
        one for entry in entries for one in (entry["params"] if isinstance(entry, Mapping) else [entry])
    ]
    tensors = [one[1] if isinstance(one, tuple) else one for one in members]  # or (name, tensor)
    fits = all(one.device.type in FUSED_DEVICES and one.is_floating_point() for one in tensors)
    if any(one.device.type == "cpu" for one in tensors):
        is_cut = any(hasattr(one, "device_mesh") for one in tensors)  # shards (FSDP)
        fits = fits and not is_cut and sum(one.numel() for one in tensors) >= (least or LEAST_FUSED_ON_CPU)
    return {"params": entries, **({"fused": True} if tensors and fits else {})}


def check_number(name: str, value: float) -> None:
    """Raise ConfigError for a number that is negative, infinite or not a number."""
    if not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name}={value}: expected a number of at least 0.")
