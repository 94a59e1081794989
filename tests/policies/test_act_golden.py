"""ACT checkpoints that LeRobot 0.6.1 and 0.3.3 wrote, and the numbers they gave there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.policies.act.policy import ACTPolicy
from lerobot.policies.build import make_pre_post_processors
from lerobot.policies.config import PreTrainedConfig
from tests.golden.policies.recipe import write_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "policies"
NEW, OLD = GOLDEN / "act_env_state", GOLDEN / "act_before_0_4"


def inputs(folder: Path, group: str, *, uint8: bool = False) -> dict:
    """One group of recorded inputs; pictures as float unless `uint8`."""
    found = load_file(folder / "inputs.safetensors").items()
    batch = {name[len(group) + 1 :]: value for name, value in found if name.startswith(f"{group}/")}
    return {k: v.float() / 255 if v.dtype == torch.uint8 and not uint8 else v for k, v in batch.items()}


def steps(folder: Path) -> list[str]:
    names = load_file(folder / "inputs.safetensors")
    return sorted({name.rpartition("/")[0] for name in names if name.startswith("rollout/")})


def fixed_noise(monkeypatch, folder: Path, name: str) -> None:
    """The VAE draws the recorded number."""
    noise = load_file(folder / "rng.safetensors")[name]
    monkeypatch.setattr(torch, "randn_like", lambda like: noise.clone())


@pytest.fixture
def policy():
    config = PreTrainedConfig.from_pretrained(NEW / "pretrained")
    return ACTPolicy.from_pretrained(NEW / "pretrained", config=config)


@pytest.fixture
def recorded():
    return load_file(NEW / "outputs.safetensors")


def test_loss_and_gradients(policy, monkeypatch):
    fixed_noise(monkeypatch, NEW, "loss/000")
    wanted = json.loads((NEW / "meta.json").read_text())["calls"]["loss"]["scalars"]
    policy.train()
    loss, info = policy(inputs(NEW, "train"))
    loss.backward()
    assert loss.item() == pytest.approx(wanted["loss"], rel=1e-5)
    assert info["l1_loss"].item() == pytest.approx(wanted["info/l1_loss"], rel=1e-5)
    assert info["kld_loss"].item() == pytest.approx(wanted["info/kld_loss"], rel=1e-5)
    norms = json.loads((NEW / "grads.json").read_text())["loss"]["l2_norm_of_grad"]
    found = {name: p.grad.double().norm().item() for name, p in policy.named_parameters()}
    assert found == pytest.approx(norms, rel=1e-4, abs=1e-5 * max(norms.values()))


def test_chunk(policy, recorded):
    batch = {k: v for k, v in inputs(NEW, "train").items() if not k.startswith("action")}
    torch.testing.assert_close(policy.predict_action_chunk(batch), recorded["chunk"], rtol=1e-4, atol=1e-5)


def test_rollout(policy, recorded):
    actions = torch.stack([policy.select_action(inputs(NEW, step)) for step in steps(NEW)])
    torch.testing.assert_close(actions, recorded["select_action"], rtol=1e-4, atol=1e-5)


def test_end_to_end_with_separate_processors(policy, recorded):
    before, after = make_pre_post_processors(policy.config, NEW / "pretrained")
    raw = {k: v for k, v in inputs(NEW, "raw_item").items() if k != "action"}
    action = after(policy.select_action(before(raw)))
    torch.testing.assert_close(action, recorded["end_to_end"], rtol=1e-4, atol=1e-4)


def test_end_to_end_by_path_alone(recorded):
    carrying = ACTPolicy.from_pretrained(NEW / "pretrained")
    raw = {k: v for k, v in inputs(NEW, "raw_item").items() if k != "action"}
    nested = {"observation": {k.removeprefix("observation."): v.numpy() for k, v in raw.items()}}
    torch.testing.assert_close(
        carrying.select_action(nested), recorded["end_to_end"][0], rtol=1e-4, atol=1e-4
    )
    carrying.reset()
    batched = {k: v[None] for k, v in raw.items()}
    torch.testing.assert_close(carrying.select_action(batched), recorded["end_to_end"], rtol=1e-4, atol=1e-4)


def test_what_we_save_is_byte_for_byte_what_was_there(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    name = "model.safetensors"
    assert (tmp_path / name).read_bytes() == (NEW / "pretrained" / name).read_bytes()
    saved, there = (json.loads((f / "config.json").read_text()) for f in (tmp_path, NEW / "pretrained"))
    assert saved == there and list(saved) == list(there)


@pytest.mark.slow  # eleven million hashes
def test_a_checkpoint_from_before_0_4_acts_as_it_did(tmp_path, monkeypatch):
    shutil.copy(OLD / "config.json", tmp_path)
    write_weights(OLD, tmp_path / "model.safetensors")
    recorded = load_file(OLD / "outputs.safetensors")
    carrying = ACTPolicy.from_pretrained(tmp_path)
    raw = [inputs(OLD, step, uint8=True) for step in steps(OLD)]
    actions = torch.stack([carrying.select_action(observation) for observation in raw])
    torch.testing.assert_close(actions, recorded["select_action_0.3.3"], rtol=1e-4, atol=1e-5)

    before, after = make_pre_post_processors(carrying.config, tmp_path)
    carrying.reset()
    actions = torch.stack([after(carrying.select_action(before(inputs(OLD, step)))) for step in steps(OLD)])
    torch.testing.assert_close(actions, recorded["select_action_0.6.1"], rtol=1e-4, atol=1e-5)

    fixed_noise(monkeypatch, OLD, "loss_0.3.3/000")
    loss, _ = carrying.train()(before(inputs(OLD, "train")))
    torch.testing.assert_close(loss.detach(), recorded["loss_0.6.1"], rtol=1e-5, atol=0)

    carrying.save_pretrained(tmp_path / "again")  # as a checkpoint of today
    again = ACTPolicy.from_pretrained(tmp_path / "again")
    assert not any("normalize" in name for name in load_file(tmp_path / "again" / "model.safetensors"))
    actions = torch.stack([again.select_action(observation) for observation in raw])
    torch.testing.assert_close(actions, recorded["select_action_0.3.3"], rtol=1e-4, atol=1e-5)
