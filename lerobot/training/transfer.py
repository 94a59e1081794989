"""Batches onto the training device, each while the one before is computed on.

    host batch -> one of two pinned buffers -> copy on a stream of its own -> float pictures on the device

Shapes: pictures (B, [T,] C, H, W), uint8 on the host, float32 in 0..1 on the device.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lerobot.training.gauges.stopwatch import Stopwatch

Batch = dict[str, Any]
NUM_BUFFERS = 2  # one is filled while the other is copied


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`; uint8 pictures become float32 in [0, 1] only there."""
    return {
        key: _as_float(value.to(device)) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def feed(
    batches: Iterable[Batch], device: torch.device, *, pin: bool = True, stopwatch: Stopwatch | None = None
) -> Iterator[Batch]:
    """The batches on `device`; on CUDA the next one is on its way while the current one is used."""
    watch = stopwatch or Stopwatch(device)
    if device.type != "cuda":
        for batch in batches:
            with watch.span("transfer"):
                moved = to_device(batch, device)
            yield moved
        return
    lane = _Lane(device, pin=pin)
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with watch.span("transfer"):
            sent = lane.send(batch)
        if ahead is not None:
            with watch.span("transfer"):
                moved = lane.receive(*ahead)
            yield moved
        ahead = sent
    if ahead is not None:
        yield lane.receive(*ahead)


class _Lane:
    """A CUDA stream for copies, and page-locked buffers that are used again for every batch."""

    def __init__(self, device: torch.device, *, pin: bool) -> None:
        self.device, self.pin = device, pin
        self.stream = torch.cuda.Stream(device)
        self.buffers: list[dict[str, Tensor]] = [{} for _ in range(NUM_BUFFERS)]
        self.copied: list[torch.cuda.Event | None] = [None] * NUM_BUFFERS
        self.turn = 0

    def send(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        """Begin the copy of a batch; the event says when it has arrived."""
        self.turn = (self.turn + 1) % NUM_BUFFERS
        last_copy = self.copied[self.turn]
        if last_copy is not None:
            last_copy.synchronize()  # two batches ago: long done, unless the device is far behind
        with torch.cuda.stream(self.stream):
            moved = {
                key: self._copy(key, value) if isinstance(value, Tensor) else value
                for key, value in batch.items()
            }
            arrived = torch.cuda.Event()
            arrived.record(self.stream)
        self.copied[self.turn] = arrived
        return moved, arrived

    def _copy(self, key: str, value: Tensor) -> Tensor:
        if not self.pin or not value.numel():
            return value.to(self.device, non_blocking=True)
        buffers = self.buffers[self.turn]
        held = buffers.get(key)
        if held is None or held.dtype != value.dtype or held.numel() < value.numel():
            held = buffers[key] = torch.empty(value.numel(), dtype=value.dtype, pin_memory=True)
        pinned = held[: value.numel()].view(value.shape)
        pinned.copy_(value)
        return pinned.to(self.device, non_blocking=True)

    def receive(self, batch: Batch, arrived: torch.cuda.Event) -> Batch:
        """The batch for use on the current stream."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(arrived)
        for value in batch.values():
            if isinstance(value, Tensor):
                value.record_stream(current)  # its memory is not given away while the step uses it
        return {key: _as_float(value) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _as_float(value: Tensor) -> Tensor:
    return value.float().div_(255) if value.dtype == torch.uint8 else value
