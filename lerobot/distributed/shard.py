"""A model on several GPUs: whole copies with averaged gradients (DDP), or one model in shards (FSDP2).

Paper: Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel".

    replicate    every process holds all weights; gradients are averaged while the backward pass runs
    shard        every process holds 1/N of each weight; a unit is whole only while it computes
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

# What torch calls sending the buffers of the first process before each step; renamed in 2.13.
NAMES = inspect.signature(DistributedDataParallel).parameters
SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in NAMES else "broadcast_buffers"


def replicate(module: nn.Module, device: torch.device, *, is_static: bool) -> nn.Module:
    """The module with gradients averaged over all processes; all begin with the weights of the first one.

    Args:
        is_static: whether every backward pass reaches the same parameters, and is followed by an average.
            Then those that no loss reaches are found once; otherwise they are looked for in each pass.
    """
    has_changing_buffers = any(isinstance(part, _BatchNorm) for part in module.modules())
    more: dict[str, Any] = {SYNC_BUFFERS: has_changing_buffers}
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        static_graph=is_static,
        find_unused_parameters=not is_static,
        **more,
    )


def shard(
    module: nn.Module, device: torch.device, *, units: Sequence[nn.Module], half: torch.dtype | None = None
) -> nn.Module:
    """The module itself, each parameter cut into a shard per process; it begins with the first one's weights.

    Args:
        units: parts that are put together one at a time while they compute; the rest is one more unit.
        half: type in which units are sent and computed. Their gradients are added up in float32, and what is
            outside of units (inputs, targets, the loss) stays as it is.
    """
    for value in (*module.parameters(), *module.buffers()):
        dist.broadcast(value.data, src=0)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=precision)
    fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    return module


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` cut the module."""
    return isinstance(module, FSDPModule)
