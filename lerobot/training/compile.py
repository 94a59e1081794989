"""`--compile`: the policy's forward and backward pass as code made for this machine and one shape.

    policy.compile() -> first full batch: compiled (a minute or so) -> batches of that shape run that code
    any other call (a shorter last batch, validation, evaluation) runs eagerly: nothing is compiled twice

The policy stays the object it was: names of weights, copies and files do not change.
"""

import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lerobot.core.errors import ConfigError, TrainingError
from lerobot.policies.policy import PreTrainedPolicy

logger = logging.getLogger(__name__)

COMPILERS = ("g++", "clang++", "c++", "cl")
LEAVE_OUT = "or leave --compile out."


class Compilation:
    """Compiled training steps of one policy.

    Args:
        mode: "default", "reduce-overhead" (CUDA graphs: one start for the step instead of one per kernel),
            "max-autotune" (tries several kernels for each product), or True for the default.
        size: items of a batch that is worth compiling for.

    Raises:
        ConfigError: this machine lacks what compiling needs.
    """

    def __init__(
        self, policy: PreTrainedPolicy, mode: str | bool, *, size: int, device: torch.device
    ) -> None:
        check_tools(device)
        self.size = size
        self.shapes: dict[str, torch.Size] | None = None  # of the batches that the code is for
        policy.compile(mode=None if mode in (True, "default") else mode, fullgraph=True, dynamic=False)
        torch.compiler.set_stance("force_eager")  # what is not a training step

    def of(self, model: nn.Module) -> Callable[..., tuple[Tensor, dict[str, Any] | None]]:
        """What to call for the loss instead of the policy, or of the model that it is wrapped in."""

        def compute(
            batch: Mapping[str, Any], *, totals: Mapping[str, Tensor] | None = None
        ) -> tuple[Tensor, dict[str, Any] | None]:
            with self.step(batch):
                loss, info = model(batch, totals=totals)
            # Copies: a CUDA graph overwrites its results when it is started again.
            return loss.clone(), {name: _copy(value) for name, value in (info or {}).items()}

        return compute

    @contextmanager
    def step(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Inside, the policy runs compiled when the batch has the usual shapes.

        Raises:
            TrainingError: it cannot be compiled.
        """
        shapes = {name: value.shape for name, value in batch.items() if isinstance(value, Tensor)}
        is_first = self.shapes is None and len(next(iter(batch.values()))) == self.size
        if is_first:
            self.shapes = shapes
        if shapes != self.shapes:
            yield
            return
        began_s = time.perf_counter()
        try:
            with torch.compiler.set_stance("default"):
                yield
        except tuple(_failures()) as error:
            reason = next(
                (line.strip() for line in str(error).splitlines() if line.strip()), "no reason given"
            )
            raise TrainingError(
                f"--compile: the policy cannot be compiled here: {reason} "
                "Leave --compile out, or look closer with TORCHDYNAMO_VERBOSE=1."
            ) from error
        if is_first:
            logger.info("Compiled the training step in %.0f s.", time.perf_counter() - began_s)

    def close(self) -> None:
        """Let other code of this process compile again."""
        torch.compiler.set_stance("default")


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def check_tools(device: torch.device) -> None:
    """Say before the first step what is missing for compiling on this machine.

    Raises:
        ConfigError: a C++ compiler or, on CUDA, Triton is missing.
    """
    named = os.environ.get("CXX")
    if not any(map(shutil.which, [named] if named else COMPILERS)):
        what = f"the C++ compiler that CXX names, {named}," if named else "a C++ compiler (g++ or clang++)"
        raise ConfigError(
            f"--compile needs {what} and there is none here. Type: sudo apt install g++ "
            f"(macOS: xcode-select --install), {LEAVE_OUT}"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError(f"--compile needs Triton on CUDA. Type: pip install triton, {LEAVE_OUT}")


def _failures() -> Iterator[type[Exception]]:
    """What PyTorch raises when it cannot compile."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    yield from (TorchDynamoException, CppCompileError)
