import copy

import pytest
import torch
from torch import nn

from lerobot.nn import conv1d
from lerobot.nn.conv1d import Conv1d, ConvTranspose1d, packed, spread, windows
from lerobot.nn.linear import HAS_WIDE_KERNELS

LAYERS = {
    "plain": (Conv1d, (3, 5, 1), {}),
    "wide": (Conv1d, (3, 5, 5), {"padding": 2}),
    "halving": (Conv1d, (4, 4, 3), {"stride": 2, "padding": 1}),
    "doubling": (ConvTranspose1d, (4, 4, 4), {"stride": 2, "padding": 1}),
    "tripling": (ConvTranspose1d, (4, 3, 3), {"stride": 3}),
}
needs_kernels = pytest.mark.skipif(not HAS_WIDE_KERNELS, reason="no oneDNN with AVX-512 here")


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def layer(request):
    kind, sizes, how = request.param
    return kind(*sizes, **how)


@pytest.fixture
def always(monkeypatch):
    """Products also where there is little to multiply."""
    monkeypatch.setattr(conv1d, "LEAST_WEIGHTS", 0)


@needs_kernels
@pytest.mark.parametrize("length", [1, 7, 8])
def test_products_are_the_convolution_and_its_gradients(layer, length, always):
    plain = {Conv1d: nn.Conv1d, ConvTranspose1d: nn.ConvTranspose1d}[type(layer)]
    x = torch.randn(2, layer.in_channels, length)
    found, wanted = [], []
    for results, forward in ((found, layer.forward), (wanted, lambda x: plain.forward(layer, x))):
        given = x.clone().requires_grad_()
        y = forward(given)
        y.sin().sum().backward()
        results += [y.detach(), given.grad, layer.weight.grad.clone(), layer.bias.grad.clone()]
        layer.zero_grad()
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_packed_weights_give_the_same_and_are_gone_afterwards(layer, always):
    x = torch.randn(2, layer.in_channels, 8)
    with torch.no_grad():
        wanted = layer(x)
        with packed(layer, num_runs=100, num_rows=16):
            assert layer.packed is not None
            torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)
        assert layer.packed is None
        layer.weight += 1
        assert not torch.allclose(layer(x), wanted)


@pytest.mark.parametrize("num_runs", [1, 100])
def test_nothing_is_packed_for_a_few_runs_or_while_learning(num_runs, always):
    layer = Conv1d(3, 4, 3)
    with torch.set_grad_enabled(num_runs == 100), packed(layer, num_runs=num_runs, num_rows=4):
        assert layer.packed is None


@needs_kernels
def test_packed_weights_go_also_when_something_fails(always):
    layer = Conv1d(3, 4, 3)
    with pytest.raises(KeyError), torch.no_grad(), packed(layer, num_runs=100, num_rows=4):
        raise KeyError
    assert layer.packed is None


def test_they_are_no_weights_of_their_own(layer):
    plain = {Conv1d: nn.Conv1d, ConvTranspose1d: nn.ConvTranspose1d}[type(layer)]
    assert isinstance(layer, plain) and layer.state_dict().keys() == {"weight", "bias"}
    assert copy.deepcopy(layer).packed is None


def test_small_ones_are_pytorchs_bit_for_bit():
    layer, x = Conv1d(8, 8, 5, padding=2), torch.randn(2, 8, 16)
    assert torch.equal(layer(x), nn.Conv1d.forward(layer, x))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (5, 2, 2), (4, 2, 1)])
def test_spreading_is_the_transpose_of_cutting(kernel, stride, padding):
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    seen = windows(x, kernel, stride=stride, padding=padding)
    other = torch.randn_like(seen)
    back = spread(other, 2, kernel, stride=stride, padding=padding, length=9)
    torch.testing.assert_close((seen * other).sum(), (x * back).sum())


@needs_kernels
def test_other_numbers_and_compiled_code_are_left_to_pytorch(monkeypatch):
    assert conv1d.is_product(torch.zeros(2), torch.zeros(2**15))
    assert not conv1d.is_product(torch.zeros(2), torch.zeros(2**15 - 1))
    assert not conv1d.is_product(torch.zeros(2).double(), torch.zeros(2**15).double())
    with torch.autocast("cpu"):
        assert not conv1d.is_product(torch.zeros(2), torch.zeros(2**15))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not conv1d.is_product(torch.zeros(2), torch.zeros(2**15))
