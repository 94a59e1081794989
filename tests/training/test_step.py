"""One optimizer step: accumulated micro-batches, several processes and a filler equal one large batch."""

import os
import socket
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lerobot.core import keys
from lerobot.distributed.world import World
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.training import step
from lerobot.training.gauges.guard import Guard
from lerobot.training.gauges.stopwatch import Stopwatch
from lerobot.training.logs.metrics import Meter

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
SIZE = 6
LR = 0.1


def tiny_run(world: World, **more):
    """What a step touches of a run: an ACT without noise, SGD."""
    torch.manual_seed(0)
    policy = ACTPolicy(ACTConfig.tiny())
    optimizer = torch.optim.SGD(policy.parameters(), lr=LR)
    parts = {
        "policy": policy,
        "model": world.wrap(policy),
        "world": world,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        "scaler": None,
        "meter": Meter(),
        "grad_clip_norm": 1e9,
        "autocast": lambda: torch.autocast("cpu", enabled=False),
        "ema": None,
        "curriculum": None,
        "blend": None,
        "stopwatch": Stopwatch(world.device),
        "saver": SimpleNamespace(before_change=lambda: None),
        "compilation": None,
    }
    parts |= more
    guard = Guard(optimizer, world=world, on_nan="stop", scaler=parts["scaler"])
    return SimpleNamespace(**parts, guard=guard)


def padded_batch() -> dict[str, torch.Tensor]:
    """Six items of which each has another number of actions that are no padding."""
    noise = torch.Generator().manual_seed(1)
    return {
        keys.STATE: torch.rand(SIZE, 3, generator=noise),
        keys.IMAGES_PREFIX + "top": torch.rand(SIZE, 3, 32, 32, generator=noise),
        keys.ACTION: torch.rand(SIZE, 4, 2, generator=noise),
        keys.ACTION + keys.PAD_SUFFIX: torch.arange(4) >= torch.tensor([4, 1, 3, 2, 1, 4])[:, None],
    }


def rows(batch, chosen) -> dict[str, torch.Tensor]:
    return {name: value[chosen] for name, value in batch.items()}


@pytest.fixture
def without_noise(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)


def moved(run) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    return run.meter.read(), {name: value.clone() for name, value in run.policy.state_dict().items()}


def assert_same(found, wanted) -> None:
    (row, weights), (wanted_row, wanted_weights) = found, wanted
    assert row == pytest.approx(wanted_row, rel=1e-5)
    for name, value in wanted_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cuts", [[3, 6], [1, 2, 6], [5, 6]])
def test_micro_batches_of_any_size_equal_the_large_batch(cuts, without_noise):
    batch, whole, parts = padded_batch(), tiny_run(ALONE), tiny_run(ALONE)
    step.update(whole, [batch])
    step.update(parts, [rows(batch, slice(a, b)) for a, b in zip([0, *cuts[:-1]], cuts, strict=True)])
    wanted = moved(whole)
    assert set(wanted[0]) == {"loss", "l1_loss", "kld_loss", "grad_norm", "lr"}
    assert_same(moved(parts), wanted)


def test_items_without_weight_do_not_count(without_noise):
    batch, some, all_of_them = padded_batch(), tiny_run(ALONE), tiny_run(ALONE)
    step.update(some, [rows(batch, slice(0, 4))])
    step.update(all_of_them, [batch | {keys.LOSS_WEIGHT: torch.tensor([1.0] * 4 + [0.0] * 2)}])
    assert_same(moved(all_of_them), moved(some))


class Overflowing:
    """A loss scaler whose gradients overflow, or not."""

    def __init__(self, *, overflows: bool) -> None:
        self.factor, self.overflows, self.steps = 8.0, overflows, 0
        self.unscaled_before_step = False

    def scale(self, loss):
        return loss * self.factor

    def unscale_(self, optimizer):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= self.factor
        self.unscaled_before_step = self.steps == 0

    def step(self, optimizer):
        self.steps += 1
        if not self.overflows:
            optimizer.step()

    def update(self):
        self.factor *= 0.5 if self.overflows else 1.0

    def get_scale(self):
        return self.factor


@pytest.mark.parametrize("overflows", [False, True])
def test_a_skipped_step_moves_neither_weights_nor_schedule(overflows, without_noise):
    scaler = Overflowing(overflows=overflows)
    run, plain = tiny_run(ALONE, scaler=scaler), tiny_run(ALONE)
    before = {name: value.clone() for name, value in run.policy.state_dict().items()}
    batch = padded_batch()
    step.update(run, [rows(batch, slice(0, 2)), rows(batch, slice(2, 6))])
    assert scaler.unscaled_before_step and run.scheduler.last_epoch == (0 if overflows else 1)
    step.update(plain, [batch])
    wanted_row, wanted = moved(plain)
    assert_same(moved(run), (wanted_row, before if overflows else wanted))


def test_gradients_are_gone_after_a_step(without_noise):
    run = tiny_run(ALONE)
    step.update(run, [padded_batch()])
    assert all(parameter.grad is None for parameter in run.policy.parameters())


def test_the_norm_of_all_gradients_is_limited(without_noise):
    run = tiny_run(ALONE, grad_clip_norm=0.01)
    before = nn.utils.parameters_to_vector(run.policy.parameters()).clone()
    step.update(run, [padded_batch()])
    after = nn.utils.parameters_to_vector(run.policy.parameters())
    assert run.meter.read()["grad_norm"] > 0.02  # before it was shortened
    assert (after - before).norm().item() == pytest.approx(LR * 0.01, rel=1e-3)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def one_of_two(rank: int, port: int, folder: str) -> None:
    """A process with two micro-batches: 2 + 1 frames on the first, 3 and a filler on the second."""
    torch.set_num_threads(1)
    torch.randn_like = torch.zeros_like
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    world = World(rank=rank, size=2, local_rank=rank, device=torch.device("cpu"))
    run, batch = tiny_run(world), padded_batch()
    if rank == 0:
        group = [rows(batch, slice(0, 2)), rows(batch, slice(2, 3))]
    else:
        group = [rows(batch, slice(3, 6)), rows(batch, slice(0, 1)) | {keys.LOSS_WEIGHT: torch.zeros(1)}]
    step.update(run, group)
    row, weights = moved(run)
    torch.save((world.mean_of(row), weights), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_uneven_parts_equal_the_large_batch(tmp_path, without_noise, free_port):
    mp.spawn(one_of_two, args=(free_port, str(tmp_path)), nprocs=2)
    whole = tiny_run(ALONE)
    step.update(whole, [padded_batch()])
    wanted = moved(whole)
    for rank in range(2):
        assert_same(torch.load(tmp_path / f"{rank}.pt", weights_only=True), wanted)
