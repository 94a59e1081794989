"""Optimizer and schedule configs: what they accept, what they refuse, and that they cost no torch."""

import json
import subprocess
import sys

import pytest
import torch

from lerobot.core.config import decode, encode
from lerobot.core.errors import ConfigError
from lerobot.optim.optimizers import (
    AdamConfig,
    AdamWConfig,
    MultiAdamConfig,
    OptimizerConfig,
    XVLAAdamWConfig,
    placed,
)
from lerobot.optim.schedulers import (
    CosineDecayWithWarmupSchedulerConfig,
    DiffuserSchedulerConfig,
    LRSchedulerConfig,
)
from lerobot.optim.state import GROUPS_FILE, load_optimizer_state, save_optimizer_state


def test_configs_import_without_torch():
    code = (
        "import sys; from lerobot.optim.optimizers import OptimizerConfig; "
        "from lerobot.optim.schedulers import LRSchedulerConfig; "
        "OptimizerConfig.get_known_choices(); LRSchedulerConfig.get_known_choices(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", OptimizerConfig.get_known_choices())
def test_files_begin_with_type_and_the_shared_fields_and_read_back(name):
    config = decode(OptimizerConfig, {"type": name})
    tree = encode(config)
    assert list(tree)[:4] == ["type", "lr", "weight_decay", "grad_clip_norm"]
    assert decode(OptimizerConfig, tree) == config


@pytest.mark.parametrize("form", ["list", "groups", "dict"])
def test_parameters_come_in_three_forms(form):
    first, second = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    given = {
        "list": [first, second],
        "groups": [{"params": [first]}, {"params": [second], "lr": 1e-2}],
        "dict": {"a": first, "b": second},
    }[form]
    optimizer = AdamWConfig(lr=1e-3).build(given)
    held = [param for group in optimizer.param_groups for param in group["params"]]
    assert [id(param) for param in held] == [id(first), id(second)]
    assert optimizer.param_groups[-1]["lr"] == (1e-2 if form == "groups" else 1e-3)


def test_a_generator_of_parameters_is_accepted():
    assert len(AdamConfig().build(torch.nn.Linear(2, 2).parameters()).param_groups[0]["params"]) == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "adam", "lr": -1.0}, "lr=-1.0"),
        ({"type": "adam", "lr": float("nan")}, "lr=nan"),
        ({"type": "adam", "betas": [0.9, 1.0]}, "betas="),
        ({"type": "sgd", "betas": [0.9, 0.99]}, "betas"),
        ({"type": "adan"}, "Did you mean 'adam'"),
        (
            {"type": "multi_adam", "optimizer_groups": {"actor": {"weigth_decay": 1.0}}},
            "Did you mean 'weight_decay'",
        ),
    ],
)
def test_wrong_fields_are_refused_when_read(fields, said):
    with pytest.raises(ConfigError, match=said):
        decode(OptimizerConfig, fields, where="optimizer")


def test_multi_adam_builds_one_optimizer_per_entry():
    params = {name: [torch.nn.Parameter(torch.zeros(1))] for name in ("actor", "critic")}
    built = MultiAdamConfig(lr=1e-3, optimizer_groups={"critic": {"lr": 1e-2}}).build(params)
    assert built["actor"].defaults["lr"] == 1e-3 and built["critic"].defaults["lr"] == 1e-2
    assert built["actor"].defaults["eps"] == 1e-5
    with pytest.raises(ConfigError, match="Did you mean 'critic'"):
        MultiAdamConfig(optimizer_groups={"critc": {}}).build(params)
    with pytest.raises(ConfigError, match="give a dict"):
        MultiAdamConfig().build([torch.nn.Parameter(torch.zeros(1))])


def test_xvla_groups_go_by_name_and_empty_ones_are_left_out():
    params = {name: torch.nn.Parameter(torch.zeros(1)) for name in ("model.VLM.a", "head.b")}
    optimizer = XVLAAdamWConfig(lr=1e-3, weight_decay=0.5).build(params)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("vlm", pytest.approx(1e-4), pytest.approx(0.05)),
        ("other", 1e-3, 0.5),
    ]
    with pytest.raises(ConfigError, match="by name"):
        XVLAAdamWConfig().build(list(params.values()))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "vqbet", "num_warmup_steps": 5}, "--scheduler.num_vqvae_training_steps must be given"),
        ({"type": "diffuser"}, "--scheduler.num_warmup_steps must be given for the cosine schedule"),
        ({"type": "diffuser", "num_warmup_steps": 1, "name": "cosin"}, "Did you mean 'cosine'"),
        ({"type": "constant_with_warmup", "num_warmup_steps": -1}, "num_warmup_steps=-1"),
    ],
)
def test_wrong_schedules_are_refused_when_read(fields, said):
    with pytest.raises(ConfigError, match=said):
        decode(LRSchedulerConfig, fields, where="scheduler")


def test_a_decay_without_warmup_starts_at_the_peak_and_ends_low():
    config = CosineDecayWithWarmupSchedulerConfig(
        num_warmup_steps=0, num_decay_steps=100, peak_lr=1e-3, decay_lr=1e-4
    )
    factor = config.factor(100)
    assert factor(0) == pytest.approx(1.0)
    assert factor(100) == factor(500) == pytest.approx(0.1)


def test_polynomial_decay_needs_a_start_above_its_end():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-8)
    with pytest.raises(ConfigError, match="--optimizer.lr=1e-08"):
        DiffuserSchedulerConfig(name="polynomial", num_warmup_steps=0).build(optimizer, 10)


def test_many_parameters_take_one_kernel_and_files_do_not_say_so(monkeypatch, tmp_path):
    def weights():
        torch.manual_seed(0)
        return [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]

    def trained(optimizer, params):
        for value in (1.0, -0.5):
            for param in params:
                param.grad = torch.full_like(param, value)
            optimizer.step()
        return params

    assert "fused" not in placed(weights())
    plain = weights()
    trained(AdamWConfig().build(plain), plain)
    large = [torch.nn.Parameter(torch.zeros(2**23)) for _ in range(2)]
    assert placed(large)["fused"] and "fused" not in placed(large[:1])  # on a CPU
    assert AdamConfig().build(large[:1]).param_groups[0]["fused"]  # which has a limit of its own
    monkeypatch.setattr("lerobot.optim.optimizers.LEAST_FUSED_ON_CPU", 1)
    named = list(zip("ab", weights(), strict=True))
    for params in (weights(), iter(weights()), dict(named), named, [{"params": iter(weights())}]):
        assert placed(params)["fused"]
    groups = AdamWConfig().build([{"params": iter(weights())}, {"params": weights()[0]}]).param_groups
    assert [len(group["params"]) for group in groups] == [2, 1]
    assert "fused" not in placed([]) and "fused" not in placed([torch.zeros(2, dtype=torch.complex64)])
    fused = weights()
    optimizer = AdamWConfig().build([{"params": fused[:1]}, {"params": fused[1:], "lr": 1e-3}])
    assert all(group["fused"] for group in optimizer.param_groups)
    torch.testing.assert_close(trained(optimizer, fused), plain)
    save_optimizer_state(optimizer, tmp_path)
    stored = json.loads((tmp_path / GROUPS_FILE).read_text())
    assert [(group["fused"], group["foreach"]) for group in stored] == [(None, None)] * 2
    load_optimizer_state(optimizer, tmp_path)
    assert all(group["fused"] for group in optimizer.param_groups)
