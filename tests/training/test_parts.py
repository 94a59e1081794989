"""Parts of a policy by name: frozen, or with learning rates of their own."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.errors import ConfigError
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.parts import find_part, freeze, scale_rates


@pytest.fixture
def policy():
    return ACTPolicy(ACTConfig.tiny())


def prefixes(part) -> set[str]:
    return {".".join(name.split(".")[:2]) for name in part}


@pytest.mark.parametrize("name", ["vision_backbone", "model.vision_backbone", "backbone", "model.backbone"])
def test_a_part_has_several_names(policy, name):
    part = find_part(policy, name, flag="--freeze")
    assert prefixes(part) == {"model.backbone"}
    assert len(part) == len(list(policy.model.backbone.parameters()))


def test_the_end_of_several_paths_is_all_of_them(policy):
    assert prefixes(find_part(policy, "self_attn", flag="--freeze")) == {
        "model.encoder",
        "model.decoder",
        "model.vae_encoder",
    }
    assert prefixes(find_part(policy, "encoder", flag="--freeze")) == {"model.encoder"}  # not the VAE's
    assert list(find_part(policy, "action_head.bias", flag="--freeze")) == ["model.action_head.bias"]


def test_an_unknown_part_names_the_known_ones(policy):
    with pytest.raises(ConfigError, match="Did you mean 'vision_backbone'") as error:
        find_part(policy, "vison_backbone", flag="--freeze")
    for known in ("model.action_head", "model.vae_encoder", "vision_backbone"):
        assert known in str(error.value)


def test_frozen_weights_stay(policy):
    freeze(policy, ["vision_backbone", "vae_encoder"])
    assert not any(p.requires_grad for p in policy.model.backbone.parameters())
    assert policy.model.action_head.weight.requires_grad
    trained = {id(p) for group in policy.get_optim_params() for p in group["params"]}
    assert id(policy.model.backbone.conv1.weight) not in trained
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze(policy, ["model"])


def test_rates_multiply_those_of_the_policy(policy):
    optimizer = torch.optim.SGD(policy.get_optim_params(), lr=0.5)  # the backbone's own is 1e-3
    before = {id(p) for group in optimizer.param_groups for p in group["params"]}
    scale_rates(optimizer, policy, {"vision_backbone": 0.1, "model": 0.5, "action_head": 2.0})
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == before
    assert rates[id(policy.model.backbone.conv1.weight)] == pytest.approx(1e-4)
    assert rates[id(policy.model.action_head.weight)] == 1.0
    assert rates[id(policy.model.decoder_pos_embed.weight)] == 0.25
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.25, 1.0, 1e-3, 1e-4])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert scheduler.get_last_lr() == pytest.approx([0.25, 0.125, 0.5, 5e-4, 5e-5])


def test_a_frozen_part_has_no_rate(policy):
    freeze(policy, ["vision_backbone"])
    optimizer = torch.optim.SGD(policy.get_optim_params(), lr=0.5)
    with pytest.raises(ConfigError, match="vision_backbone is frozen"):
        scale_rates(optimizer, policy, {"vision_backbone": 0.1})


def weights(run, step):
    return load_file(run / f"checkpoints/{step}/pretrained_model/model.safetensors")


@pytest.mark.slow
def test_a_run_with_frozen_parts_and_rates_goes_on(flags, tmp_path, capsys):
    words = ["--freeze=[vision_backbone]", "--lr_scale={action_head: 0.1}", "--log_freq=1"]
    train(flags(tmp_path / "whole", *words))
    said = capsys.readouterr().err
    assert "of them trained" in said
    start, end = weights(tmp_path / "whole", "000003"), weights(tmp_path / "whole", "000006")
    still = {name for name in start if torch.equal(start[name], end[name])}
    assert {name for name in start if "backbone" in name} <= still
    assert "model.action_head.weight" not in still
    train(flags(tmp_path / "parts", *words, "--steps=3"))
    train(["--resume=true", f"--output_dir={tmp_path / 'parts'}", "--steps=6"])
    again = weights(tmp_path / "parts", "000006")
    assert all(torch.equal(end[name], again[name]) for name in end)
    rates = [row["lr"] for row in read_metrics(tmp_path / "parts" / METRICS_FILE)]
    assert rates == [1e-3] * 6
    state = tmp_path / "parts/checkpoints/last/training_state/optimizer_param_groups.json"
    assert [group["lr"] for group in json.loads(state.read_text())] == pytest.approx([1e-3, 1e-4, 1e-5])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze=[vison_backbone]"], "--freeze: this policy has no part 'vison_backbone'. Did you mean"),
        (["--freeze=[model]"], "leaves nothing to train"),
        (["--lr_scale={nothing: 2}"], "--lr_scale: this policy has no part 'nothing'"),
        (["--lr_scale={vision_backbone: 0}"], "To keep it still, type: --freeze=vision_backbone"),
    ],
)
def test_mistakes_in_names(flags, tmp_path, words, message):
    with pytest.raises(ConfigError) as error:
        train(flags(tmp_path / "run", *words))
    assert message in str(error.value) and not (tmp_path / "run").exists()
