"""Wide products are those of `nn.Linear`, forward and backward; small ones are `F.linear` itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lerobot.nn import linear as room
from lerobot.nn.linear import Linear, is_wide, linear

needs_wide = pytest.mark.skipif(not room.HAS_WIDE_KERNELS, reason="needs oneDNN and AVX-512")


@pytest.fixture
def all_wide(monkeypatch):
    monkeypatch.setattr(room, "LEAST_MULTIPLICATIONS", 0)


def made(*leading):
    x = torch.randn(*leading, 33, requires_grad=True)
    return x, torch.randn(17, 33, requires_grad=True), torch.randn(17, requires_grad=True)


@needs_wide
@pytest.mark.parametrize("leading", [(5, 3), (7,), (1, 1), (2, 3, 4)])
def test_products_and_gradients_are_exact_to_rounding(all_wide, leading):
    inputs = made(*leading)
    found, wanted = linear(*inputs), F.linear(*(value.double() for value in inputs))
    assert "WideLinear" in type(found.grad_fn).__name__
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(found)
    mine = torch.autograd.grad(found, inputs, weights)
    theirs = torch.autograd.grad(wanted, inputs, weights.double())
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@needs_wide
def test_gradients_of_a_sum_and_of_views(all_wide):
    """A sum's gradient is one number repeated without memory; slices and transposes are not in one piece."""
    x, weight, bias = made(6, 4)
    found = linear(x.transpose(0, 1)[1:], weight, bias)
    torch.testing.assert_close(found, F.linear(x.transpose(0, 1)[1:], weight, bias))
    mine, theirs = (
        torch.autograd.grad(function(x.transpose(0, 1)[1:], weight, bias).sum(), (x, weight, bias))
        for function in (linear, F.linear)
    )
    torch.testing.assert_close(mine, theirs)


@needs_wide
def test_only_gradients_that_are_needed(all_wide):
    x, weight, bias = made(5, 3)
    layer = Linear(33, 17)
    assert isinstance(layer, nn.Linear) and layer.state_dict().keys() == nn.Linear(33, 17).state_dict().keys()
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None and x.grad is not None
    with torch.no_grad():
        assert not linear(x, weight, bias).requires_grad


def test_small_half_precise_and_double_products_are_torchs():
    x, weight, bias = made(5, 3)
    assert not is_wide(x, weight) and torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    large, wide = torch.empty(4096, 1, 64), torch.empty(64, 64)
    assert is_wide(large, wide) == room.HAS_WIDE_KERNELS
    assert not is_wide(large.double(), wide.double()) and not is_wide(large.to("meta"), wide)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_wide(large, wide)
