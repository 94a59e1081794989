"""Numbers and files of LeRobot 0.6.1: learning rates, optimizer steps, and the states it stored."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.config import decode, encode
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.rng import load_rng_state, save_rng_state
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.optim.state import (
    load_optimizer_state,
    load_scheduler_state,
    save_optimizer_state,
    save_scheduler_state,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SCHEDULERS = json.loads((GOLDEN / "optim/schedulers.json").read_text())["schedulers"]
OPTIMIZERS = json.loads((GOLDEN / "optim/optimizers.json").read_text())
STATE = GOLDEN / "optim/state"


def same_files(folder, golden):
    """Every file of both folders holds the same JSON value, or the same tensors under the same names."""
    names = sorted(path.name for path in golden.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        if name.endswith(".json"):
            assert (folder / name).read_text() == (golden / name).read_text()
            continue
        mine, theirs = load_file(folder / name), load_file(golden / name)
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(mine[key], value, rtol=2e-6, atol=1e-8, msg=f"{name}: {key}")


def two_groups():
    first, second = (torch.nn.Parameter(torch.ones(n)) for n in (2, 3))
    return torch.optim.SGD([{"params": [first], "lr": 1e-2}, {"params": [second], "lr": 3e-3}], lr=1e-2)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_learning_rates_are_the_recorded_ones(name, tmp_path):
    recorded = SCHEDULERS[name]
    config = decode(LRSchedulerConfig, {"type": recorded["type"], **recorded["config"]})
    assert encode(config) == {"type": recorded["type"], **recorded["config"]}
    optimizer = two_groups()
    scheduler = config.build(optimizer, recorded["num_training_steps"])
    for expected in recorded["lrs"]:
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            expected, rel=1e-12, abs=1e-15
        )
        optimizer.step()
        scheduler.step()
    if (STATE / name).is_dir():
        save_scheduler_state(scheduler, tmp_path)
        mine, theirs = (
            json.loads((f / "scheduler_state.json").read_text()) for f in (tmp_path, STATE / name)
        )
        assert list(mine) == list(theirs)
        assert mine == theirs | {"_last_lr": pytest.approx(theirs["_last_lr"], rel=1e-12)}


def train(name, tensors):
    """Five recorded gradients through the recorded optimizer; gives it and the parameters."""
    recorded = OPTIMIZERS["optimizers"][name]
    config = decode(OptimizerConfig, {"type": recorded["type"], **recorded["config"]})
    assert list(encode(config)) == ["type", *recorded["config"]]
    names = ("w", "b", "vlm.x", "soft_prompt")
    params = {key: torch.nn.Parameter(tensors[f"start/{key}"].clone()) for key in names}
    first, second = [params["w"], params["b"]], [params["vlm.x"], params["soft_prompt"]]
    given = [{"params": first}, {"params": second, "lr": 5e-3}]
    if config.type == "xvla-adamw":
        given = params
    elif config.type == "multi_adam":
        given = {"one": first, "two": second}
    optimizer = config.build(given)
    for step in range(5):
        for key, param in params.items():
            param.grad = tensors[f"grad/{step}/{key}"].clone()
        torch.nn.utils.clip_grad_norm_(list(params.values()), 1.0)
        for one in optimizer.values() if isinstance(optimizer, dict) else [optimizer]:
            one.step()
    return optimizer, params


@pytest.mark.parametrize("name", OPTIMIZERS["optimizers"])
def test_five_steps_give_the_recorded_parameters_and_files(name, tmp_path):
    tensors = load_file(GOLDEN / "optim/optimizers.safetensors")
    optimizer, params = train(name, tensors)
    for key, param in params.items():
        torch.testing.assert_close(param.detach(), tensors[f"{name}/{key}"], rtol=1e-6, atol=1e-7)
    save_optimizer_state(optimizer, tmp_path)
    for folder in [f for f in sorted(STATE.glob(f"{name}/*")) if f.is_dir()] or [STATE / name]:
        same_files(tmp_path / folder.relative_to(STATE / name), folder)


@pytest.mark.parametrize("name", OPTIMIZERS["optimizers"])
def test_a_recorded_state_is_taken_and_written_back_unchanged(name, tmp_path):
    tensors = load_file(GOLDEN / "optim/optimizers.safetensors")
    fresh, _ = train(name, {k: torch.zeros_like(v) for k, v in tensors.items()})
    load_optimizer_state(fresh, STATE / name)
    save_optimizer_state(fresh, tmp_path)
    for path in sorted(p for p in (STATE / name).rglob("*") if p.is_file()):
        assert (tmp_path / path.relative_to(STATE / name)).read_bytes() == path.read_bytes(), path.name


def test_the_recorded_random_state_continues_with_the_recorded_numbers(tmp_path):
    recorded = OPTIMIZERS["rng_state"]
    load_rng_state(STATE)
    assert torch.randn(3).tolist() == recorded["next_torch_randn_3"]
    # The first number is the spare one, which that file holds as float32 only.
    assert np.random.randn(3).tolist() == pytest.approx(recorded["next_numpy_randn_3"], rel=1e-7)
    assert random.random() == recorded["next_python_random"]
    load_rng_state(STATE)
    save_rng_state(tmp_path)
    mine, theirs = load_file(tmp_path / "rng_state.safetensors"), load_file(STATE / "rng_state.safetensors")
    assert all(
        torch.equal(mine[key], value) and mine[key].dtype == value.dtype for key, value in theirs.items()
    )
    assert set(mine) - set(theirs) <= {"torch_cuda_rng_state", "torch_mps_rng_state"}


def test_a_real_runs_training_state_is_taken_and_written_back_unchanged(tmp_path):
    golden = GOLDEN / "train_state"
    stored = load_file(golden / "optimizer_state.safetensors")
    count = len(json.loads((golden / "optimizer_param_groups.json").read_text())[0]["params"])
    params = [
        torch.nn.Parameter(torch.zeros_like(stored[f"state/{index}/exp_avg"])) for index in range(count)
    ]
    adam = {"type": "adam", "lr": 1e-3, "betas": [0.95, 0.999], "weight_decay": 1e-6}
    optimizer = decode(OptimizerConfig, adam).build(params)
    schedule = decode(LRSchedulerConfig, {"type": "diffuser", "num_warmup_steps": 500})
    scheduler = schedule.build(optimizer, 1000)
    load_optimizer_state(optimizer, golden)
    load_scheduler_state(scheduler, golden)
    load_rng_state(golden)
    assert scheduler.last_epoch == 10 and optimizer.param_groups[0]["lr"] == 0.00075
    save_optimizer_state(optimizer, tmp_path)
    save_scheduler_state(scheduler, tmp_path)
    save_rng_state(tmp_path)
    for name in ("optimizer_state.safetensors", "optimizer_param_groups.json", "scheduler_state.json"):
        assert (tmp_path / name).read_bytes() == (golden / name).read_bytes(), name
    mine, theirs = load_file(tmp_path / "rng_state.safetensors"), load_file(golden / "rng_state.safetensors")
    assert all(torch.equal(mine[key], value) for key, value in theirs.items())
