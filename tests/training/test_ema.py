"""The average of the weights: its formula, that it is evaluated and saved, and goes on exactly."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lerobot.core.errors import CheckpointError, ConfigError
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training.ema import EMA
from lerobot.training.sections import EMAConfig


@pytest.fixture
def policy():
    return ACTPolicy(ACTConfig.tiny())


def walk(policy, ema, *, steps: int) -> list[dict[str, torch.Tensor]]:
    """Move the weights a few times; gives them after each step."""
    seen = []
    for _ in range(steps):
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn_like(parameter)
        ema.update()
        seen.append({name: p.detach().clone() for name, p in policy.named_parameters()})
    return seen


def test_the_decay_of_the_paper(policy):
    ema = EMA(policy, EMAConfig(update_after_step=2, max_decay=0.9))
    wanted = [0, 0, 0, 1 - 2**-0.75, 1 - 3**-0.75, 1 - 4**-0.75]
    assert [ema.decay(step) for step in range(1, 7)] == pytest.approx(wanted)
    assert ema.decay(10**6) == 0.9
    assert EMA(policy, EMAConfig(decay=0.99)).decay(2) == 0.99
    assert EMA(policy, EMAConfig(min_decay=0.5)).decay(2) == 0.5


def test_it_is_the_running_average(policy):
    ema = EMA(policy, EMAConfig())
    seen = walk(policy, ema, steps=5)
    name = "model.action_head.weight"
    average = seen[0][name]
    for t, weights in enumerate(seen[1:], start=1):
        decay = 1 - (1 + t) ** -0.75
        average = decay * average + (1 - decay) * weights[name]
    torch.testing.assert_close(ema.policy.get_parameter(name), average)
    assert not any(p.requires_grad for p in ema.policy.parameters()) and not ema.policy.training
    torch.testing.assert_close(policy.get_parameter(name), seen[-1][name], rtol=0, atol=0)


def test_frozen_parameters_are_shared_and_buffers_copied(policy):
    policy.model.backbone.requires_grad_(False)
    policy.register_buffer("seen", torch.zeros(2))
    ema = EMA(policy, EMAConfig())
    walk(policy, ema, steps=2)
    policy.seen += 3
    frozen = dict(ema.policy.model.backbone.named_parameters())
    for name, parameter in policy.model.backbone.named_parameters():
        assert frozen[name] is parameter
    assert ema.policy.seen.tolist() == [3, 3] and ema.policy.seen is not policy.seen


def test_half_precision_is_averaged_in_float32(policy, tmp_path):
    policy.to(torch.bfloat16)
    ema = EMA(policy, EMAConfig(decay=0.999))
    walk(policy, ema, steps=4)
    assert all(average.dtype == torch.float32 for average in ema.averages)
    assert all(p.dtype == torch.bfloat16 for p in ema.policy.parameters())
    policy.save_pretrained(tmp_path / "pretrained_model_ema", weights=ema.weights)
    again = EMA(policy, EMAConfig(decay=0.999))
    assert again.load(tmp_path) == {}
    again.load_state_dict(ema.state_dict())
    assert again.step == 4
    assert all(torch.equal(a, b) for a, b in zip(again.averages, ema.averages, strict=True))


def head_state(policy, **changed):
    shadows = [torch.full_like(p, 2.0) for p in policy.parameters()]
    return {"decay": 0.9999, "optimization_step": 7, "power": 0.75, "shadow_params": shadows} | changed


def test_the_state_of_newer_releases_is_read(policy, tmp_path):
    (tmp_path / "training_state").mkdir()
    policy.model.backbone.requires_grad_(False)
    torch.save(head_state(policy), tmp_path / "training_state/ema_state.pt")
    ema = EMA(policy, EMAConfig())
    assert ema.load(tmp_path) == {"ema": {"step": 7}}
    assert (ema.policy.get_parameter("model.action_head.bias") == 2).all()
    few = head_state(policy, shadow_params=[nn.Parameter(torch.zeros(3))])
    torch.save(few, tmp_path / "training_state/ema_state.pt")
    with pytest.raises(CheckpointError, match="averages 1 parameters"):
        ema.load(tmp_path)
    (tmp_path / "training_state/ema_state.pt").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match="is damaged"):
        ema.load(tmp_path)


AVERAGED = ("--ema.enable=true", "--dataset.eval_split=0.3", "--eval_steps=3")


def averages(run, step="last"):
    return load_file(run / f"checkpoints/{step}/pretrained_model_ema/model.safetensors")


@pytest.mark.slow
def test_resumed_the_average_goes_on_exactly(flags, tmp_path):
    train(flags(tmp_path / "whole", *AVERAGED))
    train(flags(tmp_path / "parts", *AVERAGED, "--steps=3"))
    train(["--resume=true", f"--output_dir={tmp_path / 'parts'}", "--steps=6"])
    whole, parts = averages(tmp_path / "whole"), averages(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    last = load_file(tmp_path / "whole/checkpoints/last/pretrained_model/model.safetensors")
    assert not torch.equal(last["model.action_head.weight"], whole["model.action_head.weight"])
    folder = tmp_path / "whole/checkpoints/last"
    assert {p.name for p in (folder / "pretrained_model").iterdir()} == {
        p.name for p in (folder / "pretrained_model_ema").iterdir()
    }
    action = ACTPolicy.from_pretrained(folder / "pretrained_model_ema").select_action(
        {"state": torch.zeros(3), "images": {"top": torch.zeros(3, 32, 32)}}
    )
    assert torch.isfinite(action).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ema.enable=true", "--parallelism=fsdp"], "with --parallelism=fsdp. Type: --ema.enable=false"),
        (["--ema.decay=1.5"], "--ema.decay=1.5: expected a share from 0 to 1"),
        (["--ema.min_decay=0.9", "--ema.max_decay=0.5"], "is more than --ema.max_decay=0.5"),
        (["--ema.power=0"], "--ema.power=0.0: expected a number above 0"),
    ],
)
def test_what_cannot_be_averaged_is_said(flags, tmp_path, words, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        train(flags(tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()
