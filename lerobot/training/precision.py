"""Which numbers and kernels to compute with: float32, or half precision where the device has it."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch

from lerobot.core.errors import ConfigError
from lerobot.training.config import TrainConfig

logger = logging.getLogger(__name__)


def half_precision(cfg: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The type of half precision to compute in, or None for float32.

    Raises:
        ConfigError: fp16 or bf16 was named and the device does not have it.
    """
    wanted = cfg.mixed_precision
    if cfg.policy is not None and cfg.policy.use_amp and wanted is False:
        wanted = True
    if wanted in (False, "no"):
        return None
    has_bf16 = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())
    if wanted == "bf16" and not has_bf16:
        raise ConfigError(
            f"--mixed_precision=bf16: {device.type} does not have it. Type: --mixed_precision=true"
        )
    if wanted == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"--mixed_precision=fp16 needs CUDA, this is {device.type}. Type: --mixed_precision=true"
        )
    if wanted == "fp16":
        return torch.float16
    if has_bf16:
        return torch.bfloat16
    if device.type == "cuda":
        return torch.float16
    logger.warning("Half precision was asked for; %s does not have it, computing in float32.", device.type)
    return None


def autocast(cfg: TrainConfig, device: torch.device) -> AbstractContextManager:
    """A context that computes in half precision, where it was asked for and the device has it."""
    dtype = half_precision(cfg, device)
    return torch.autocast(device.type, dtype=dtype) if dtype is not None else nullcontext()


def choose_kernels(device: torch.device, *, is_deterministic: bool) -> None:
    """On CUDA: TF32 for matrix products, and the fastest convolutions, or those that repeat bit for bit."""
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = not is_deterministic
    torch.backends.cudnn.deterministic = is_deterministic
