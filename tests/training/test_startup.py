"""torch.compile is not loaded where nothing is compiled, and the steps are the same."""

import subprocess
import sys

import pytest
import torch

from lerobot.training.startup import spare_compiler

KINDS = {
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.1, weight_decay=0.1),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.1),
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
}
LOOK = """
import sys
from lerobot.scripts.train import train
train(sys.argv[1:])
print("torch._dynamo" in sys.modules)
"""


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    spare_compiler(is_compiled=True)


def taken(kind) -> tuple[torch.Tensor, dict]:
    """Weights and state after some steps."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5))
    optimizer = KINDS[kind]([weight])
    for _ in range(3):
        (weight**3).sum().backward()
        optimizer.step()
        assert torch.is_grad_enabled() and weight.requires_grad
        optimizer.zero_grad()
    return weight.detach(), optimizer.state_dict()["state"]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_same(kind):
    spare_compiler(is_compiled=True)
    weight, state = taken(kind)
    spare_compiler(is_compiled=False)
    light_weight, light_state = taken(kind)
    assert torch.equal(weight, light_weight)
    assert all(
        torch.equal(torch.as_tensor(v), torch.as_tensor(light_state[0][k])) for k, v in state[0].items()
    )


def test_a_compiled_run_gets_torch_as_it_is():
    before = vars(torch.optim.Adam)["step"]
    spare_compiler(is_compiled=False)
    assert vars(torch.optim.Adam)["step"] is not before
    spare_compiler(is_compiled=True)
    assert vars(torch.optim.Adam)["step"] is before
    plain = torch.optim.Optimizer.zero_grad.__wrapped__
    assert vars(plain).get("__dynamo_disable") is not plain


@pytest.mark.slow
def test_a_run_does_not_load_it(flags, tmp_path):
    words = flags(tmp_path / "run", "--steps=2", "--lr_scheduler=true")
    done = subprocess.run([sys.executable, "-c", LOOK, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
