"""A run's tensors as they are at one instant, in host memory, taken while the next step computes.

    weights, optimizer state ---copy---> buffers that every save uses again ---> files
    forward, backward of the next step   | the optimizer waits for the copy |

Forward and backward change neither weights nor optimizer state, so only the optimizer has to wait, and only
when the copy takes longer than they do. Buffers of a model may change in a forward pass: they, and small
tensors, are copied at once. On CUDA the copies run on a stream of their own into page-locked memory, and no
thread waits.
"""

import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lerobot.core.errors import TrainingError

logger = logging.getLogger(__name__)

SMALL = 4096  # numbers; a smaller tensor is copied in less time than it takes to hand it over
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes per number
MEMORY_FILE = Path("/proc/meminfo")


@dataclass
class Snapshot:
    """Tensors of one instant. Call `hold` before their originals change, `finish` before they are read."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # on the host; the originals when not `is_copy`
    is_copy: bool = True
    later: list[tuple[str, Tensor, int]] = field(default_factory=list)  # name, original, its version
    copied: threading.Event = field(default_factory=threading.Event)  # by the thread that calls `finish`
    device: torch.device | None = None  # a GPU that copies by itself
    arrived: torch.cuda.Event | None = None  # of that GPU

    def finish(self) -> None:
        """Copy what is still to be copied; the thread that writes files calls this.

        Raises:
            TrainingError: an original was changed by something other than the optimizer.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
            return
        try:
            for name, original, _ in self.later:
                copy_on_host(self.tensors[name], original)
            self._check()
        finally:
            self.copied.set()

    def hold(self) -> None:
        """Return when the originals may be changed; on CUDA the device waits and this returns at once.

        Raises:
            TrainingError: an original was changed already.
        """
        if self.arrived is None:
            self.copied.wait()
        else:
            self._check()
            torch.cuda.current_stream(self.device).wait_event(self.arrived)
        self.later = []

    def _check(self) -> None:
        changed = [name for name, original, version in self.later if original._version != version]
        if changed:
            raise TrainingError(
                f"The checkpoint was given up: {changed[0]} (of {len(changed)}) changed while it was copied. "
                "What a policy changes in its forward pass must be a buffer, not a parameter."
            )


class HostBuffers:
    """Host memory for snapshots; the next one uses it again, so take it only when the last was written."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.buffers: dict[str, Tensor] = {}
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def take(self, tensors: Mapping[str, Tensor], *, steady: Collection[str]) -> Snapshot:
        """A snapshot of named tensors; names of one and the same tensor share its copy.

        Where the memory does not suffice it holds the originals, and whoever writes them must be waited for.

        Args:
            steady: names of those that nothing but the optimizer changes; their copies may come later.
        """
        originals = {name: tensor.detach() for name, tensor in tensors.items()}
        if not self._has_room(originals):
            snapshot = Snapshot(tensors=originals, is_copy=False)
            snapshot.copied.set()
            return snapshot
        snapshot = Snapshot(device=self.device)
        copies: dict[tuple, Tensor] = {}
        for name, original in originals.items():
            same = (original.data_ptr(), original.device, original.dtype, original.shape, original.stride())
            if original.numel() and same in copies:
                snapshot.tensors[name] = copies[same]
                continue
            copy = copies[same] = snapshot.tensors[name] = self._buffer(name, original)
            if name in steady and original.numel() >= SMALL and original.device.type in ("cpu", "cuda"):
                snapshot.later.append((name, original, original._version))
            else:
                copy.copy_(original, non_blocking=original.device.type == "cuda")
        if self.stream is not None:
            self._send(snapshot, self.stream)
        return snapshot

    def _has_room(self, originals: Mapping[str, Tensor]) -> bool:
        if self.buffers:
            return True
        needed, free = sum(tensor.nbytes for tensor in originals.values()), available_bytes()
        if free is None or needed < free:
            return True
        logger.warning(
            "A copy of weights and optimizer state takes %.1f GB and %.1f GB of memory are free: training "
            "waits while a checkpoint is written.",
            needed / 1e9, free / 1e9,
        )  # fmt: skip
        return False

    def _buffer(self, name: str, original: Tensor) -> Tensor:
        held = self.buffers.get(name)
        form = (original.shape, original.dtype, original.stride())
        if held is None or (held.shape, held.dtype, held.stride()) != form:
            is_pinned = original.device.type == "cuda"
            held = self.buffers[name] = torch.empty_like(original, device="cpu", pin_memory=is_pinned)
        return held

    def _send(self, snapshot: Snapshot, stream: torch.cuda.Stream) -> None:
        """Let the GPU copy what may be copied later, beside the next forward pass."""
        stream.wait_stream(torch.cuda.current_stream(self.device))  # the step that made these values
        with torch.cuda.stream(stream):
            for name, original, _ in snapshot.later:
                snapshot.tensors[name].copy_(original, non_blocking=True)
            snapshot.arrived = torch.cuda.Event()
            snapshot.arrived.record(stream)


def copy_on_host(copy: Tensor, original: Tensor) -> None:
    """Copy between tensors of the same form by one thread, which leaves the other cores to the step."""
    integers = INTEGERS.get(original.element_size())
    if integers is None or copy.stride() != original.stride():
        copy.copy_(original)
    else:  # as integers, since numpy knows no bfloat16
        np.copyto(copy.view(integers).numpy(), original.view(integers).numpy())


def is_finite(tensor: Tensor) -> bool:
    """Whether a host tensor holds neither NaN nor infinity; found by one thread."""
    if not tensor.is_floating_point():
        return True
    numbers = tensor if tensor.dtype in (torch.float16, torch.float32, torch.float64) else tensor.float()
    return bool(np.isfinite(numbers.numpy()).all())


def available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    if not MEMORY_FILE.is_file():
        return None
    for line in MEMORY_FILE.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024  # kB
    return None
