"""A run in several processes: its settings for so many of them, and its policy on all of them."""

from dataclasses import replace

import torch
from torch import nn

from lerobot.core.errors import ConfigError
from lerobot.distributed.shard import shard
from lerobot.distributed.world import World
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.training.config import TrainConfig
from lerobot.training.global_batch import per_process
from lerobot.training.precision import half_precision


def for_this_world(cfg: TrainConfig, world: World) -> TrainConfig:
    """The config with sizes per process; how many there are is the machine's matter, and not kept.

    Raises:
        ConfigError: a global batch cannot be cut, or processes were asked for that nobody started.
    """
    if world.size == 1 and (cfg.num_processes or 1) > 1:
        raise ConfigError(
            f"--num_processes={cfg.num_processes}, and this is one: the command lerobot-train starts "
            f"several, or torchrun --nproc_per_node={cfg.num_processes} -m lerobot.scripts.train."
        )
    return replace(per_process(cfg, num_processes=world.size), num_processes=None)


def spread(cfg: TrainConfig, policy: PreTrainedPolicy, world: World) -> nn.Module:
    """What to call for the loss: the policy itself in one process or in shards, else a copy of many."""
    if world.size == 1:
        return policy
    policy.sum_over_processes = world.add_up
    if cfg.parallelism == "fsdp":
        is_half = half_precision(cfg, world.device) is torch.bfloat16
        return shard(policy, world.device, units=policy.shard_units, half=torch.bfloat16 if is_half else None)
    # A static graph counts backward passes; one that is not followed by an average miscounts them.
    is_static = policy.has_static_graph and cfg.gradient_accumulation_steps == 1
    return world.wrap(policy, is_static=is_static)
