"""How many processes train together, which of them this is, and on which device it computes.

torchrun --nproc_per_node=2 -m lerobot.scripts.train ...       sets RANK, WORLD_SIZE, LOCAL_RANK

`lerobot-train` alone (launch.py), `accelerate launch` and a line of a SLURM script set the same variables.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lerobot.core.errors import DeviceError, LostConnectionError
from lerobot.distributed.shard import is_sharded, replicate

T = TypeVar("T")

# The longest that processes wait for one that lives and does not come: longer than a big save on a slow disk.
PATIENCE = timedelta(minutes=30)
VARIABLES = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


@dataclass(frozen=True)
class World:
    """The processes of one run; `size` is 1 without a launcher."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()

    def share_of(self, count: int) -> range:
        """Which of `count` pieces of work, 0 to count - 1, are this process's: every size-th one."""
        return range(self.rank, count, self.size)

    def wrap(self, module: nn.Module, *, is_static: bool = False) -> nn.Module:
        """The module with gradients averaged over all processes; the module itself when there is one."""
        return module if self.size == 1 else replicate(module, self.device, is_static=is_static)

    def unsynced(self, module: nn.Module, *, when: bool) -> AbstractContextManager:
        """Gradients of backward passes inside stay in this process, to be averaged by a later one."""
        if self.size == 1:
            return nullcontext()
        if is_sharded(module):
            module.set_requires_gradient_sync(not when)  # type: ignore[operator]
            return nullcontext()
        return module.no_sync() if when else nullcontext()  # type: ignore[operator]

    def add_up(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, in place; the host does not wait for it on a GPU."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def mean_of(self, numbers: dict[str, float]) -> dict[str, float]:
        """Each number averaged over all processes, which must bring the same names."""
        if self.size == 1:
            return numbers
        values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(values)
        return dict(zip(numbers, (values / self.size).tolist(), strict=True))

    def take_largest(self, numbers: Tensor) -> None:
        """Replace each number by the largest of all processes; on a GPU nothing is waited for."""
        if self.size > 1:
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def any(self, flag: bool, *, is_vote: bool = True) -> bool:
        """Whether the flag is set in at least one process; several processes only find out in a vote."""
        if self.size == 1:
            return flag
        if not is_vote:
            return False
        votes = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(votes)
        return bool(votes.item())


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world this process belongs to; leaves it at the end, also after an error.

    Raises:
        DeviceError: more processes than GPUs were started on this machine.
        LostConnectionError: another process of the run ended or is unreachable.
    """
    size, rank, local_rank = (int(os.environ.get(name, fallback)) for name, fallback in VARIABLES)
    if size == 1:
        yield World(rank=0, size=1, local_rank=0, device=device)
        return
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise DeviceError(
                f"Process {local_rank} has no GPU: {torch.cuda.device_count()} are visible. "
                "Start as many processes as there are GPUs (torchrun --nproc_per_node=N)."
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        yield World(rank=rank, size=size, local_rank=local_rank, device=device)
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise LostConnectionError(
            f"Process {rank} lost the connection to another process of the run, which ended, was stopped or "
            f"is unreachable; what was saved is unharmed. {str(error).splitlines()[0]}"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def is_lost(error: RuntimeError) -> bool:
    """Whether an error is that other processes do not answer; gloo only says so in words."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)
