"""Moves every tensor to the device of the model, and back."""

from typing import Any

import torch
from torch import Tensor

from lerobot.core.errors import ConfigError, DeviceError, suggest
from lerobot.core.types import TransitionKey
from lerobot.processor.step import EnvTransition, ProcessorStep, ProcessorStepRegistry

FLOAT_DTYPES = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "half": torch.float16,
    "float": torch.float32,
    "double": torch.float64,
}


@ProcessorStepRegistry.register("device_processor")
class DeviceProcessorStep(ProcessorStep):
    """Moves the tensors of every part but `info`; with `float_dtype`, floats are cast on the way."""

    def __init__(self, device: str = "cpu", float_dtype: str | None = None) -> None:
        """`device` is cpu, cuda, cuda:1, mps or xpu; an absent one is an error at the first call, not here.

        Raises:
            ConfigError: an unknown `float_dtype`.
        """
        if float_dtype is not None and float_dtype not in FLOAT_DTYPES:
            raise ConfigError(
                f"float_dtype={float_dtype!r} is unknown.{suggest(float_dtype, FLOAT_DTYPES)} "
                f"Known: {', '.join(FLOAT_DTYPES)}."
            )
        self.device = str(device)
        self.float_dtype = float_dtype
        self._target: torch.device | None = None

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition with its tensors on the device."""
        if self._target is None:
            self._target = available_device(self.device)
        return {
            part: value if part == TransitionKey.INFO else self._move(value)
            for part, value in transition.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Device and cast."""
        return {"device": self.device, "float_dtype": self.float_dtype}

    def _move(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._move(item) for name, item in value.items()}
        if not isinstance(value, Tensor):
            return value
        target = self._target
        assert target is not None
        # "cuda" means whichever GPU the tensor is on already, so that every rank keeps its own.
        is_there = value.device.type == target.type and target.index in (None, value.device.index)
        dtype = (
            FLOAT_DTYPES[self.float_dtype] if self.float_dtype and value.is_floating_point() else value.dtype
        )
        if target.type == "mps" and dtype == torch.float64:
            dtype = torch.float32  # Apple's GPUs have no double precision
        return value.to(value.device if is_there else target, dtype, non_blocking=target.type == "cuda")


def available_device(name: str) -> torch.device:
    """The torch device, if this machine has it.

    Raises:
        DeviceError: it has not.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"The device {name!r} is not available here ({str(error).splitlines()[0]}). Give another one: "
            "--policy.device=cpu, or overrides={'device_processor': {'device': 'cpu'}} of a pipeline."
        ) from error
    return device
