"""AdamW with its state in 8 bits: close to AdamW, saved and loaded to the bit."""

import sys

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.errors import CheckpointError, ConfigError, MissingExtraError
from lerobot.optim.optimizers import AdamW8bitConfig, AdamWConfig
from lerobot.optim.state import load_optimizer_state, save_optimizer_state

pytest.importorskip("bitsandbytes")
SHAPES = ((128, 64), (8,))  # the first is large enough for 8 bits


def parameters(shapes=SHAPES):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]


def walk(optimizer, params, *, steps: int) -> None:
    """Steps towards 1, the same ones for the same weights."""
    for _ in range(steps):
        for param in params:
            param.grad = param.detach() - 1
        optimizer.step()


def built(config=AdamW8bitConfig, shapes=SHAPES):
    params = parameters(shapes)
    return config(lr=1e-2).build([{"params": [param]} for param in params]), params


def test_it_steps_as_adamw_does():
    small, params = built()
    large, exact = built(AdamWConfig)
    before = [param.detach().clone() for param in params]
    walk(small, params, steps=20)
    walk(large, exact, steps=20)
    assert small.state[params[0]]["state1"].dtype == torch.uint8
    for start, ours, theirs in zip(before, params, exact, strict=True):
        moved = (theirs - start).norm()
        assert moved > 0.5 and (ours - theirs).norm() < 0.05 * moved


def test_saved_and_loaded_it_takes_the_very_same_steps(tmp_path):
    optimizer, params = built()
    walk(optimizer, params, steps=3)
    save_optimizer_state(optimizer, tmp_path)
    stored = load_file(tmp_path / "optimizer_state.safetensors")
    assert stored["state/0/step"].dtype == torch.int64 and stored["state/0/step"].item() == 3
    assert {value.dtype for value in stored.values()} == {torch.uint8, torch.float32, torch.int64}
    again, other = built()
    for mine, theirs in zip(other, params, strict=True):
        mine.data.copy_(theirs.data)
    load_optimizer_state(again, tmp_path)
    walk(optimizer, params, steps=3)
    walk(again, other, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(params, other, strict=True))
    assert again.state[other[0]]["step"] == 6


def test_state_of_another_model_is_an_error(tmp_path):
    optimizer, params = built()
    walk(optimizer, params, steps=1)
    save_optimizer_state(optimizer, tmp_path)
    other, _ = built(shapes=((64, 128), (8,)))
    with pytest.raises(CheckpointError, match="state1 of parameter 0 has shape"):
        load_optimizer_state(other, tmp_path)


def test_a_device_without_kernels_is_an_error():
    with pytest.raises(ConfigError, match="does not run on meta. Type: --optimizer.type=adamw"):
        AdamW8bitConfig().build([torch.nn.Parameter(torch.ones(2, device="meta"))])


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[8bit\]'"):
        built()
