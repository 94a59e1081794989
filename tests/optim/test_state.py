"""Optimizer, schedule and random states: tolerant of other torch releases, strict about other models."""

import json
import logging
import random

import numpy as np
import pytest
import torch

from lerobot.core.errors import CheckpointError
from lerobot.optim.optimizers import AdamWConfig, SGDConfig
from lerobot.optim.rng import load_rng_state, put_rng, save_rng_state, take_rng
from lerobot.optim.schedulers import ConstantWithWarmupSchedulerConfig
from lerobot.optim.state import (
    load_optimizer_state,
    load_scheduler_state,
    save_optimizer_state,
    save_scheduler_state,
)

GROUPS, SCHEDULER = "optimizer_param_groups.json", "scheduler_state.json"


def trained(*, sizes=(2, 3), lr=1e-3, steps=2, config=AdamWConfig):
    params = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    optimizer = config(lr=lr).build([{"params": [param]} for param in params])
    scheduler = ConstantWithWarmupSchedulerConfig(num_warmup_steps=4).build(optimizer, 10)
    for _ in range(steps):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler, params


def edit(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


@pytest.fixture
def stored(tmp_path):
    optimizer, scheduler, _ = trained()
    save_optimizer_state(optimizer, tmp_path)
    save_scheduler_state(scheduler, tmp_path)
    return tmp_path


def test_a_loaded_optimizer_makes_the_same_next_step(stored):
    optimizer, scheduler, params = trained()
    again, again_scheduler, again_params = trained(steps=0, lr=5.0)
    for mine, theirs in zip(again_params, params, strict=True):
        mine.data.copy_(theirs.data)
    load_optimizer_state(again, stored)
    load_scheduler_state(again_scheduler, stored)
    for group in (params, again_params):
        for param in group:
            param.grad = torch.full_like(param, 0.5)
    for one in (optimizer, scheduler, again, again_scheduler):
        one.step()
    assert all(torch.equal(a, b) for a, b in zip(params, again_params, strict=True))
    assert again_scheduler.get_last_lr() == scheduler.get_last_lr()
    assert [group["lr"] for group in again.param_groups] == scheduler.get_last_lr()


def test_keys_of_other_torch_releases_and_number_types_do_not_matter(stored, caplog):
    def change(groups):
        for group in groups:
            group["from_the_future"] = 1
            group["weight_decay"] = 1
            group["foreach"] = True
            del group["decoupled_weight_decay"]

    edit(stored / GROUPS, change)
    edit(stored / SCHEDULER, lambda tree: (tree.pop("_is_initial", None), tree.update(verbose=False)))
    optimizer, scheduler, _ = trained(steps=0)
    with caplog.at_level(logging.WARNING):
        load_optimizer_state(optimizer, stored)
        load_scheduler_state(scheduler, stored)
    group = optimizer.param_groups[0]
    assert group["weight_decay"] == 1.0 and isinstance(group["weight_decay"], float)
    assert isinstance(group["betas"], tuple)
    assert group["foreach"] is None and group["decoupled_weight_decay"] is True
    assert "from_the_future" not in group and "from_the_future" in caplog.text
    assert scheduler.last_epoch == 2


def test_sgd_without_momentum_has_nothing_to_store(tmp_path):
    optimizer, _, _ = trained(config=SGDConfig)
    save_optimizer_state(optimizer, tmp_path)
    load_optimizer_state(trained(config=SGDConfig, steps=0)[0], tmp_path)


def test_state_of_another_model_is_refused(stored):
    with pytest.raises(CheckpointError, match="has 2 parameter groups, this optimizer 3"):
        load_optimizer_state(trained(sizes=(2, 3, 4))[0], stored)
    with pytest.raises(
        CheckpointError, match=r"exp_avg of parameter 1 has shape \(3,\), the parameter \(4,\)"
    ):
        load_optimizer_state(trained(sizes=(2, 4))[0], stored)
    with pytest.raises(CheckpointError, match="2 parameter groups, not of 3"):
        load_scheduler_state(trained(sizes=(2, 3, 4))[1], stored)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (GROUPS, "{", "cannot be read as JSON"),
        (GROUPS, "{}", "holds a dict; expected a list"),
        (GROUPS, '[{"params": [0]}, {"params": [1, 2]}]', "group 1 has 2 parameters"),
        (GROUPS, '[{"params": [0], "lr": "fast"}, {"params": [1]}]', "lr is 'fast'"),
        (SCHEDULER, "{}", "no last_epoch"),
    ],
)
def test_damaged_files_are_named(stored, file, text, said):
    (stored / file).write_text(text)
    optimizer, scheduler, _ = trained()
    with pytest.raises(CheckpointError, match=said):
        load_optimizer_state(optimizer, stored)
        load_scheduler_state(scheduler, stored)


@pytest.mark.parametrize("file", [GROUPS, "optimizer_state.safetensors"])
def test_missing_files_are_named(stored, file):
    (stored / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file} is missing"):
        load_optimizer_state(trained()[0], stored)


def test_several_optimizers_have_a_folder_each_and_a_new_one_starts_afresh(tmp_path, caplog):
    save_optimizer_state({"actor": trained()[0]}, tmp_path)
    assert (tmp_path / "actor" / GROUPS).is_file()
    both = {"actor": trained(steps=0)[0], "critic": trained(steps=0)[0]}
    load_optimizer_state(both, tmp_path)
    assert both["actor"].state_dict()["state"] and not both["critic"].state_dict()["state"]
    assert "'critic', which starts afresh" in caplog.text


def draw():
    return (
        [random.random(), random.gauss(), random.gauss(), random.gauss()],
        [*np.random.rand(2), *np.random.randn(3)],
        torch.randn(3).tolist(),
    )


def test_random_numbers_continue_to_the_bit(tmp_path):
    random.gauss()  # both generators now hold a spare number
    np.random.randn()
    save_rng_state(tmp_path)
    expected = draw()
    draw()
    load_rng_state(tmp_path)
    assert draw() == expected


def test_without_our_file_only_the_spare_numbers_differ(tmp_path):
    np.random.randn()
    save_rng_state(tmp_path)
    expected = draw()
    (tmp_path / "rng_state_exact.safetensors").unlink()
    load_rng_state(tmp_path)
    assert draw() == (
        expected[0],
        [*expected[1][:2], pytest.approx(expected[1][2], rel=1e-6), *expected[1][3:]],
        expected[2],
    )


def test_every_rank_continues_its_own_numbers(tmp_path, caplog):
    states, expected = [], []
    for rank in range(3):
        torch.manual_seed(rank)
        random.seed(rank)
        random.gauss()
        states.append(take_rng())
        expected.append(draw())
    save_rng_state(tmp_path, states)
    for rank in range(3):
        load_rng_state(tmp_path, rank=rank)
        assert draw()[::2] == expected[rank][::2]
    load_rng_state(tmp_path, rank=3)
    assert "no random state of rank 3" in caplog.text


def test_an_incomplete_random_state_is_refused(tmp_path):
    state = take_rng()
    del state["np_rng_state_values"]
    with pytest.raises(CheckpointError, match="np_rng_state_values"):
        put_rng(state)
    with pytest.raises(CheckpointError, match="is missing"):
        load_rng_state(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_random_numbers_of_the_gpu_continue(tmp_path):
    torch.randn(5, device="cuda")
    save_rng_state(tmp_path)
    expected = torch.randn(5, device="cuda").tolist()
    load_rng_state(tmp_path)
    assert torch.randn(5, device="cuda").tolist() == expected
