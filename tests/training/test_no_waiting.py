"""Nothing in a training step reads a number off the device: proven on the CPU by watching every operation."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.flags import read_flags, tree_of
from lerobot.distributed.world import World
from lerobot.training.config import TrainConfig, complete
from lerobot.training.gauges.guard import Guard
from lerobot.training.run import start
from lerobot.training.step import update

WAITING = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique")


class NoWaiting(TorchDispatchMode):
    """Every operation that copies a result to the host is an error."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        by_mask = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        assert not by_mask and not name.startswith(WAITING), f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


def begin(words):
    cfg = decode(TrainConfig, tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete))
    return start(cfg, World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))


@pytest.mark.parametrize(
    "more",
    [
        ("--policy.dropout=0.1",),
        ("--gradient_accumulation_steps=2", "--mixed_precision=bf16", "--lr_scheduler=constant_with_warmup"),
        ("--grad_checkpointing=true", "--optimizer.grad_clip_norm=0"),
    ],
    ids=["plain", "accumulated", "checkpointed"],
)
def test_nothing_in_a_step_waits(flags, tmp_path, monkeypatch, more):
    # As on a GPU: a fused optimizer, which a bad step's flag reaches on the device.
    monkeypatch.setattr("lerobot.optim.optimizers.LEAST_FUSED_ON_CPU", 1)
    run = begin(flags(tmp_path / "run", *more))
    run.guard = Guard(run.optimizer, world=run.world, on_nan="stop", is_late=True)
    groups = run.batches()
    update(run, next(groups))  # state of the optimizer is made in the first step
    run.step += 1
    with NoWaiting():
        for _ in range(2):
            update(run, next(groups))
            run.step += 1
    assert run.meter.read()["loss"] > 0


def test_the_watch_sees_what_waits():
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(3).sum().item()
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        bool(torch.ones(1) > 0)
    with NoWaiting(), pytest.raises(AssertionError, match="index waits"):
        torch.ones(3)[torch.ones(3) > 0]
