"""No step is made with a loss or gradient that is NaN or infinite, and nothing waits for the device to tell.

    loss, gradient norm --> flag on the device --> the optimizer's kernel leaves weights and state as they are
                                   '--> copied to the host, read two steps later, when it has long arrived

Fused optimizers of torch take the flag themselves (`found_inf`, as torch.amp.GradScaler gives it to them).
Others are stepped by the host, which waits for the flag; on a CPU there is nothing to wait for.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lerobot.distributed.world import World

Batch = dict[str, Any]


@dataclass(kw_only=True)
class Evidence:
    """What a step was computed from, and what came of it."""

    step: int  # the step it would have been, counted from 1
    batches: list[Batch]  # micro-batches as the dataset gave them, on the host
    rng: dict[str, Tensor]  # torch's random states before the forward pass: host, and device if it is CUDA
    loss: float = 0.0
    grad_norm: float = 0.0
    is_bad: bool = False


class Guard:
    """Decides on the device whether an optimizer step is made.

    Args:
        optimizer: the one that is stepped.
        world: processes that must agree.
        on_nan: stop makes no further step after a bad one, so that the weights stay those before it.
        scaler: of fp16, which looks at gradients on the host: an overflow is no bad step, the scale adapts.
        is_late: whether flags are read later; by default wherever the device can act on them by itself.

    `overflowed` says whether the scaler left out the last step.
    """

    LAG = 2  # steps; the device never waits for a host that is this far ahead of it

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        world: World,
        on_nan: Literal["stop", "skip"],
        scaler: torch.amp.GradScaler | None = None,
        is_late: bool | None = None,
    ) -> None:
        self.optimizer, self.world, self.on_nan, self.scaler = optimizer, world, on_nan, scaler
        takes_flag = getattr(optimizer, "_step_supports_amp_scaling", False)  # what GradScaler asks, too
        can_be_late = world.device.type == "cuda" and takes_flag and scaler is None
        self.is_late = can_be_late if is_late is None else is_late
        self.overflowed = False
        self.skipped = 0  # bad steps of the whole run
        self._stopped = torch.zeros((), device=world.device)
        self._next: Evidence | None = None
        self._unread: deque[tuple[Evidence, Tensor, torch.cuda.Event | None]] = deque()

    def expect(self, step: int, batches: Sequence[Batch]) -> None:
        """Remember what the next step is computed from: batches of the host, before they are changed."""
        rng = {"cpu": torch.get_rng_state()}
        if self.world.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.world.device)
        self._next = Evidence(step=step, batches=list(batches), rng=rng)

    def step(self, *, loss: Tensor, grad_norm: Tensor) -> list[Evidence]:
        """Step the optimizer, unless a number is none; gives the bad steps that came to light.

        Args:
            loss: of the whole step on this process, ().
            grad_norm: before clipping, the same on every process, ().
        """
        loss, grad_norm = loss.detach().float(), grad_norm.detach().float()
        is_bad = (~torch.isfinite(loss if self.scaler else loss + grad_norm)).float()
        self.world.take_largest(is_bad)  # the loss of another process may be the one that is no number
        if self.is_late:
            if self.on_nan == "stop":
                is_bad = self._stopped.copy_(torch.maximum(self._stopped, is_bad)).clone()
            self._step_on_device(is_bad)
        else:
            self._step_on_host(is_bad=bool(is_bad))
        self._keep(torch.stack([is_bad, loss, grad_norm]))
        return self._read(leave=self.LAG if self.is_late else 0)

    def settle(self) -> list[Evidence]:
        """The bad steps among those that were not looked at yet; waits for the device."""
        return self._read(leave=0)

    def state_dict(self) -> dict[str, int]:
        """What a resumed run goes on from."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The reverse of `state_dict`."""
        self.skipped = state["skipped"]

    def _step_on_host(self, *, is_bad: bool) -> None:
        if self.scaler is None:
            if not is_bad:
                self.optimizer.step()
            return
        scale = self.scaler.get_scale()
        if not is_bad:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.overflowed = not is_bad and self.scaler.get_scale() < scale

    def _step_on_device(self, is_bad: Tensor) -> None:
        optimizer: Any = self.optimizer
        optimizer.found_inf = is_bad
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf

    def _keep(self, numbers: Tensor) -> None:
        evidence = self._next or Evidence(step=0, batches=[], rng={})
        arrived = None
        if numbers.device.type == "cuda":
            numbers = numbers.to("cpu", non_blocking=True)  # into page-locked memory
            arrived = torch.cuda.Event()
            arrived.record()
        self._unread.append((evidence, numbers, arrived))

    def _read(self, *, leave: int) -> list[Evidence]:
        found = []
        while len(self._unread) > leave:
            evidence, numbers, arrived = self._unread.popleft()
            if arrived is not None:
                arrived.synchronize()
            is_bad, evidence.loss, evidence.grad_norm = numbers.tolist()
            evidence.is_bad = bool(is_bad)
            if evidence.is_bad:
                found.append(evidence)
        if found and self.on_nan == "stop":  # what follows was not made either: it is no evidence of anything
            self._unread.clear()
            return found[:1]
        return found
