"""Compiled steps: the same numbers, one graph, one compilation; everything else stays eager."""

import copy
import logging

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config

from lerobot.core import keys
from lerobot.core.errors import ConfigError, TrainingError
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training.compile import Compilation
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch.compiler.set_stance("default")


@pytest.fixture
def compiled(monkeypatch):
    """A tiny ACT that runs its traced graph without generated code, its compilation, a count of graphs."""
    policy, counter = ACTPolicy(ACTConfig.tiny()).train(), CompileCounterWithBackend("aot_eager")

    def with_counter(mode, **how):
        nn.Module.compile(policy, backend=counter, **how)

    monkeypatch.setattr(policy, "compile", with_counter)
    compilation = Compilation(policy, True, size=4, device=CPU)
    monkeypatch.undo()  # an attribute of the policy would be copied with it
    return policy, compilation, counter


def batch(size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        keys.STATE: torch.randn(size, 3, generator=generator),
        keys.IMAGES_PREFIX + "top": torch.rand(size, 3, 32, 32, generator=generator),
        keys.ACTION: torch.randn(size, 4, 2, generator=generator),
        keys.ACTION + keys.PAD_SUFFIX: torch.rand(size, 4, generator=generator) < 0.3,
    }


def step(policy, items, compute=None):
    """Loss and gradients; every call draws the same random numbers."""
    policy.zero_grad()
    torch.manual_seed(7)
    loss, info = (compute or policy)(items)
    loss.backward()
    return loss.detach(), info["kld_loss"], [p.grad.clone() for p in policy.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("saving", [False, True], ids=["plain", "bf16, recomputed"])
def test_act_is_one_graph_compiled_once(compiled, saving):
    policy, compilation, counter = compiled
    if saving:
        policy.enable_grad_checkpointing()
    eager = copy.deepcopy(policy)
    for seed, size in enumerate((3, 4, 4, 4, 3, 4)):  # it begins at the end of an epoch
        items = batch(size, seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=saving):
            found, wanted = step(policy, items, compilation.of(policy)), step(eager, items)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert counter.frame_count == (seed > 0)


@pytest.mark.slow
def test_what_is_no_training_step_runs_eagerly(compiled):
    policy, compilation, counter = compiled
    with torch.no_grad():
        policy.eval()(batch())
        policy.predict_action_chunk(batch())
    assert counter.frame_count == 0
    compilation.close()
    assert torch.compiler.get_default_backend() == "inductor"


@pytest.mark.slow
def test_names_of_weights_and_copies_stay(compiled):
    policy, compilation, _ = compiled
    compilation.of(policy)(batch())
    assert policy.state_dict().keys() == ACTPolicy(ACTConfig.tiny()).state_dict().keys()
    twin = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert twin.eval()(batch())[0] != policy.eval()(batch())[0]


@pytest.mark.slow
def test_it_compiles_inside_of_ddp(compiled, tmp_path):
    policy, compilation, counter = compiled
    eager = copy.deepcopy(policy)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(policy, gradient_as_bucket_view=True)
        counts = []
        for seed in range(3):
            items = batch(4, seed)
            found, wanted = step(model, items, compilation.of(model)), step(eager, items)
            torch.testing.assert_close(found, wanted)
            counts.append(counter.frame_count)  # one graph per bucket of gradients
    finally:
        dist.destroy_process_group()
    assert counts[0] >= 1 and counts == counts[:1] * 3


class Breaking(ACTPolicy):
    """Does what no graph can hold in the middle of its forward pass."""

    def forward(self, batch, **how):
        print("forward")
        return super().forward(batch, **how)


def test_a_graph_break_is_one_clear_message():
    policy = Breaking(ACTConfig.tiny()).train()
    compute = Compilation(policy, True, size=4, device=CPU).of(policy)
    with pytest.raises(
        TrainingError, match=r"^--compile: .* cannot be compiled here: \w+.* Leave --compile out"
    ):
        compute(batch())


def test_a_missing_compiler_is_named_before_the_first_step(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"no-such-compiler, and there is none here. Type: sudo apt"):
        Compilation(ACTPolicy(ACTConfig.tiny()), True, size=4, device=CPU)
    with pytest.raises(ConfigError, match=r"or leave --compile out\."):
        train(flags(tmp_path / "run", "--compile=true"))
    assert not (tmp_path / "run").exists()


def test_shards_and_one_graph_exclude_each_other(flags, tmp_path):
    with pytest.raises(ConfigError, match="leave out --parallelism=fsdp, or --compile"):
        train(flags(tmp_path / "run", "--compile=true", "--parallelism=fsdp"))


@pytest.mark.slow
def test_a_compiled_run_is_the_eager_one(flags, tmp_path, caplog):
    """With the random numbers of eager code; both losses of every step agree to rounding."""
    settings = {"fallback_random": True, "compile_threads": 1}
    more = ["--log_freq=1", "--policy.dropout=0.1", "--policy.optimizer_lr=1e-5"]
    for name, value in (("eager", "false"), ("compiled", "true")):
        with caplog.at_level(logging.INFO), inductor_config.patch(settings):
            train(flags(tmp_path / name, *more, f"--compile={value}"))
    assert "Compiled the training step" in caplog.text
    assert counters["stats"]["unique_graphs"] == 1
    eager, found = (read_metrics(tmp_path / name / METRICS_FILE) for name in ("eager", "compiled"))
    assert len(found) == 6
    for mine, wanted in zip(found, eager, strict=True):
        assert mine["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
