"""How much memory a step takes, told before the first one.

    weights + gradients + optimizer state + average + activations of a batch + batches on their way

Activations are measured: two and three items of the data go forward through the real policy, and what
autograd keeps of it is counted. That moves no random numbers, no weights and no buffers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lerobot.evaluation.rollout import undisturbed_randomness
from lerobot.training.gauges.capacity import MIB, readable_bytes

Batch = dict[str, Any]
Autocast = Callable[[], AbstractContextManager]
MEASURED_ITEMS = (2, 3)  # one alone is refused by batch norms
PROBE_SIZE = 16_384  # numbers; 8-bit optimizers keep smaller parameters in full
ADAM_BYTES = 8  # per parameter


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What autograd keeps between forward and backward pass, in bytes."""

    fixed: float  # whatever the batch: copies of weights in half precision
    per_item: float
    largest: float  # the largest single tensor per item: while backward runs, a gradient of that size exists

    def of(self, num_items: int) -> float:
        """Bytes for a batch of so many items."""
        return self.fixed + num_items * (self.per_item + self.largest)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run takes of its device, in bytes."""

    program: float  # what the process uses besides the below; on a CPU only
    weights: float
    gradients: float
    optimizer: float
    average: float  # the averaged weights
    batches: float  # of one micro-batch, on its way and on the device
    activations: float | None  # of one micro-batch; None: not measured
    capacity: float | None  # what the device has for this process; None: not known

    @property
    def total(self) -> float:
        """All that is known of it."""
        return sum(size for _, size in self.parts)

    @property
    def parts(self) -> list[tuple[str, float]]:
        """Name and size of each part."""
        names = ("program", "weights", "gradients", "optimizer", "average", "batches", "activations")
        return [(name, getattr(self, name) or 0.0) for name in names]

    @property
    def fits(self) -> bool:
        """Whether it is less than there is."""
        return self.capacity is None or self.total <= self.capacity

    def __str__(self) -> str:
        """'3.1 GiB of 24.0 GiB (weights 197 MiB, ...)'."""
        of = f" of {readable_bytes(self.capacity)}" if self.capacity is not None else ""
        told = ", ".join(f"{name} {readable_bytes(size)}" for name, size in self.parts if size >= MIB)
        if self.activations is None:
            return f"{readable_bytes(self.total)}{of} before activations ({told})"
        return f"{readable_bytes(self.total)}{of} ({told})"


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind tensors, shared memory once."""
    return sum(dict(map(_storage, tensors)).values())


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state after its first step: it is tried on a small parameter of its own."""
    if optimizer.state:
        return tensor_bytes(
            v for own in optimizer.state.values() for v in own.values() if isinstance(v, Tensor)
        )
    total = 0.0
    for group in optimizer.param_groups:
        if group["params"]:
            numbers = sum(parameter.numel() for parameter in group["params"])
            total += numbers * _bytes_per_number(optimizer, group)
    return int(total)


def _bytes_per_number(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    like = group["params"][0]
    probe = nn.Parameter(torch.zeros(PROBE_SIZE, dtype=like.dtype, device=like.device))
    probe.grad = torch.zeros_like(probe)
    kind = type(optimizer)
    twin = kind.__new__(kind)
    vars(twin).update(vars(optimizer))
    twin.param_groups, twin.state = [{**group, "params": [probe]}], defaultdict(dict)
    try:
        kind.step(twin)  # not `twin.step`, which a schedule has replaced to count the steps of the original
    except (AttributeError, KeyError, RuntimeError, TypeError):  # one that keeps its own books: as Adam's
        return ADAM_BYTES
    kept = [v for v in twin.state[probe].values() if isinstance(v, Tensor) and v.numel() > 1]
    return tensor_bytes(kept) / PROBE_SIZE


# ---------------------------------------------------------------------------------- activations
def repeated(batch: Mapping[str, Any], times: int) -> Batch:
    """A batch of one item, as often as that along the batch axis."""

    def repeat(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim:
            return value.repeat(times, *[1] * (value.ndim - 1))
        return value * times if isinstance(value, list) else value

    return {key: repeat(value) for key, value in batch.items()}


def measure_activations(
    policy: nn.Module, item: Mapping[str, Any], *, autocast: Autocast = nullcontext
) -> Activations:
    """What autograd keeps for a preprocessed batch of one item and for each further one."""
    (few, few_largest), (more, _) = (
        _kept_bytes(policy, repeated(item, times), autocast) for times in MEASURED_ITEMS
    )
    per_item = (more - few) / (MEASURED_ITEMS[1] - MEASURED_ITEMS[0])
    fixed = max(0.0, few - MEASURED_ITEMS[0] * per_item)
    return Activations(fixed=fixed, per_item=per_item, largest=few_largest / MEASURED_ITEMS[0])


def _kept_bytes(policy: nn.Module, batch: Batch, autocast: Autocast) -> tuple[int, int]:
    """All that a forward pass keeps besides weights, and the largest piece of it."""
    buffers = {name: value.clone() for name, value in policy.named_buffers()}
    known = {_storage(value)[0] for value in [*policy.parameters(), *buffers.values()]}
    kept: dict[int, int] = {}
    held = []  # what is freed meanwhile could be given out again and would count once

    def keep(value: Tensor) -> Tensor:
        key, size = _storage(value)
        if key not in known:
            kept[key] = size
            held.append(value)
        return value

    was_training = policy.training
    policy.train()
    try:
        with (
            undisturbed_randomness(),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
            autocast(),
        ):
            functional_call(policy, buffers, (batch,))
    finally:
        policy.train(was_training)
    return sum(kept.values()), max(kept.values(), default=0)
