"""Before the first step: how much memory the run is going to take, and which flags take less.

policy, optimizer, an item of the data -> Estimate -> a line of the header, and what takes less if need be
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lerobot.distributed.shard import is_sharded
from lerobot.policies.config import PreTrainedConfig
from lerobot.training.config import TrainConfig
from lerobot.training.gauges.capacity import free_bytes, is_shortage, readable_bytes, used_bytes
from lerobot.training.gauges.memory import (
    Activations,
    Estimate,
    measure_activations,
    state_bytes,
    tensor_bytes,
)
from lerobot.training.precision import autocast
from lerobot.training.processors import prepare
from lerobot.training.run import Run
from lerobot.training.transfer import to_device

LARGE = 0.5  # share of the device's memory from which a run on a CPU is measured before it begins, too
WORTH_SAYING = 0.02  # share of all that a flag must save to be named
BYTES_PER_8BIT = 2  # of state per parameter that an 8-bit Adam keeps; others keep 8
ADAPTED = 0.95  # share of gradients and optimizer state that adapters do without, at least
READ_BUFFERS = 2  # copies of a batch on a device: as it came, and normalised


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """Flags that take less memory."""

    flags: str
    saved: float | None  # bytes; None: not known
    note: str = ""

    def __str__(self) -> str:
        """'--batch_size=4 --gradient_accumulation_steps=2   about 1.2 GiB less; the same result'."""
        effect = f"about {readable_bytes(self.saved)} less" if self.saved is not None else "less"
        return f"{self.flags}   {effect}{'; ' if self.note else ''}{self.note}"


def memory_rows(run: Run) -> dict[str, str]:
    """Lines of the header: what the run takes of its device, and what to do if that is more than there is.

    Nothing of a policy in shards, of which a process holds a part, and while it computes some of the rest.
    """
    if is_sharded(run.policy):
        return {}
    found = preflight(run)
    rows = {"memory": str(found)}
    if not found.fits:
        words = "; ".join(str(one) for one in remedies(run, found)[:3])
        rows["warning"] = f"this does not fit. In this order, try: {words}"
    return rows


def preflight(run: Run, *, is_measured: bool | None = None) -> Estimate:
    """What the run takes; activations are measured on a GPU, and where what is known already is much."""
    found = estimate(run, None)
    if is_measured is None:
        is_large = found.capacity is not None and found.total > LARGE * found.capacity
        is_measured = run.world.device.type != "cpu" or is_large
    return estimate(run, measured_if_there_is_room(run)) if is_measured else found


def estimate(run: Run, activations: Activations | None) -> Estimate:
    """What the run takes of its device, with the activations that were measured, if they were."""
    device, size = run.world.device, run.loader.batch_size
    weights = tensor_bytes([*run.policy.parameters(), *run.policy.buffers()])
    trained = tensor_bytes(p for p in run.policy.parameters() if p.requires_grad)
    averaged = tensor_bytes(run.ema.averages) if run.ema is not None else 0
    state, used, free = state_bytes(run.optimizer), used_bytes(device) or 0, free_bytes(device)
    if device.type == "cpu" and free is not None:
        free //= run.world.size  # they share it
    there = weights + averaged + (state if run.optimizer.state else 0)
    return Estimate(
        program=max(0, used - there),
        weights=weights,
        gradients=trained,
        optimizer=state,
        average=averaged,
        batches=size * batch_bytes(run.cfg, device),
        activations=activations.of(size) if activations else None,
        capacity=used + free if free is not None else None,
    )


def batch_bytes(cfg: TrainConfig, device: torch.device) -> float:
    """Bytes of the device that one item of a batch takes: on a CPU with those that wait to be used."""
    assert cfg.policy is not None
    pixels = picture_values(cfg.policy)
    on_device = READ_BUFFERS * 4 * pixels  # float32
    if device.type != "cpu":
        return on_device + pixels
    waiting = max(1, cfg.num_workers) * cfg.prefetch_factor + 1
    return on_device + waiting * pixels  # uint8


def picture_values(policy: PreTrainedConfig) -> int:
    """How many numbers the pictures of an item hold; everything else in it is small beside them."""
    times = len(policy.observation_delta_indices or [0])
    return times * sum(math.prod(feature.shape) for feature in policy.image_features.values())


def measured(run: Run) -> Activations:
    """The activations of the run's policy on an item of its data."""
    return measure_activations(run.policy, prepared_item(run), autocast=run.autocast)


def measured_if_there_is_room(run: Run) -> Activations | None:
    """The same, or None where there is no memory left even to measure, and of a policy in shards."""
    if is_sharded(run.policy):  # a pass takes all processes
        return None
    try:
        return measured(run)
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_shortage(error):
            raise
        return None


def prepared_item(run: Run) -> dict[str, Any]:
    """A batch of one item as the policy reads it."""
    pairs = [run.processors, *run.other_processors]
    return prepare(run.cfg, pairs, to_device(run.loader.item(), run.world.device))


# ---------------------------------------------------------------------------------- what takes less
def remedies(run: Run, found: Estimate) -> list[Remedy]:
    """Flags that take less memory, those that change the result least first, with what each saves alone."""
    cfg, size = run.cfg, run.loader.batch_size
    now = measured_if_there_is_room(run)
    tried = [_smaller_batch(run, now), _half_precision(run, now), _recompute(run, now)]
    eight = found.optimizer * (1 - BYTES_PER_8BIT / 8)
    if run.world.device.type == "cuda" and cfg.optimizer is not None and cfg.optimizer.type == "adamw":
        tried.append(Remedy(flags="--optimizer.type=adamw_8bit", saved=eight, note="needs lerobot[8bit]"))
    if cfg.peft is None and run.policy.adapter_targets is not None:
        saved = ADAPTED * (found.gradients + found.optimizer)
        tried.append(
            Remedy(flags="--peft.r=16", saved=saved, note="trains small adapters, needs lerobot[peft]")
        )
    cameras = cfg.policy.image_features if cfg.policy is not None else {}
    if cameras:
        name, feature = max(cameras.items(), key=lambda one: math.prod(one[1].shape))
        half = [feature.shape[0], *(length // 2 for length in feature.shape[1:])]
        flag = f"--policy.input_shapes.{name}={half}".replace(" ", "")
        less = None if now is None else 0.75 * size * (now.per_item + now.largest) / len(cameras)
        tried.append(Remedy(flags=flag, saved=less, note="smaller pictures"))
    least = WORTH_SAYING * found.total
    return [one for one in tried if one is not None and (one.saved is None or one.saved >= least)]


def _smaller_batch(run: Run, now: Activations | None) -> Remedy | None:
    size, micro = run.loader.batch_size, run.cfg.gradient_accumulation_steps
    if size == 1:
        return None
    part = max(number for number in range(1, size) if size % number == 0)
    each = batch_bytes(run.cfg, run.world.device) + (now.per_item + now.largest if now else 0)
    return Remedy(
        flags=f"--batch_size={part} --gradient_accumulation_steps={micro * size // part}",
        saved=(size - part) * each if now else None,
        note="the same result",
    )


def _half_precision(run: Run, now: Activations | None) -> Remedy | None:
    if run.cfg.mixed_precision not in (False, "no") or run.world.device.type == "mps":
        return None
    half, device, saved = replace(run.cfg, mixed_precision=True), run.world.device, None
    if now is not None:
        try:
            then = measure_activations(
                run.policy, prepared_item(run), autocast=lambda: autocast(half, device)
            )
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                return None  # a policy that cannot compute so is not told to
        else:
            saved = now.of(run.loader.batch_size) - then.of(run.loader.batch_size)
    return Remedy(flags="--mixed_precision=true", saved=saved, note="faster on most GPUs")


def _recompute(run: Run, now: Activations | None) -> Remedy | None:
    stacks = [m for m in run.policy.modules() if getattr(m, "grad_checkpointing", None) is False]
    if not stacks:
        return None
    saved = None
    if now is not None:
        with _recomputing(stacks):
            then = measured_if_there_is_room(run)
        saved = now.of(run.loader.batch_size) - then.of(run.loader.batch_size) if then is not None else None
    return Remedy(flags="--grad_checkpointing=true", saved=saved, note="the same result, slower")


@contextmanager
def _recomputing(stacks: list[nn.Module]) -> Iterator[None]:
    for stack in stacks:
        stack.grad_checkpointing = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for stack in stacks:
            stack.grad_checkpointing = False  # type: ignore[assignment]
