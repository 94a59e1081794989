import pytest
import torch
from torch import nn

from lerobot.core.errors import ConfigError
from lerobot.nn.attention import MultiHeadAttention


def pair(dropout: float = 0.0):
    """Ours and PyTorch's, with the same weights."""
    theirs = nn.MultiheadAttention(12, 3, dropout=dropout)
    nn.init.uniform_(theirs.in_proj_bias, -1, 1)
    nn.init.uniform_(theirs.out_proj.bias, -1, 1)
    ours = MultiHeadAttention(12, 3, dropout=dropout)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def tensors():
    return torch.randn(5, 2, 12), torch.randn(7, 2, 12), torch.randn(7, 2, 12)


@pytest.mark.parametrize("grad", [True, False], ids=["training", "acting"])
@pytest.mark.parametrize("padded", [True, False])
def test_it_computes_what_pytorch_computes(grad, padded):
    ours, theirs = pair()
    query, key, value = tensors()
    is_pad = torch.zeros(2, 7, dtype=torch.bool)
    is_pad[0, 3:] = padded
    with torch.set_grad_enabled(grad):
        found = ours(query, key, value, key_is_pad=is_pad)
        wanted, _ = theirs(query, key, value, key_padding_mask=is_pad)
    torch.testing.assert_close(found, wanted)


def test_gradients_are_pytorchs():
    ours, theirs = pair()
    query, key, value = tensors()
    ours(query, key, value).square().sum().backward()
    theirs(query, key, value)[0].square().sum().backward()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_dropout_draws_the_same_random_numbers():
    ours, theirs = pair(dropout=0.4)
    query, key, value = tensors()
    torch.manual_seed(3)
    found = ours(query, key, value)
    torch.manual_seed(3)
    wanted, _ = theirs(query, key, value)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, ours.eval()(query, key, value))


def test_sharp_attention_keeps_its_gradients():
    """Where one key takes all, the gradient of the queries is zero but for rounding."""
    ours, _ = pair()
    x = torch.randn(6, 2, 12) * 300
    single, double = x.clone().requires_grad_(), x.double().requires_grad_()
    ours(single, single, x).sum().backward()
    ours.double()(double, double, x.double()).sum().backward()
    assert (single.grad - double.grad).norm() < 1e-3 * double.grad.norm() + 1e-2


def test_padded_keys_change_nothing():
    ours, _ = pair()
    query, key, value = tensors()
    is_pad = torch.zeros(2, 7, dtype=torch.bool)
    is_pad[:, 5:] = True
    before = ours(query, key, value, key_is_pad=is_pad)
    key[5:], value[5:] = 1e3, -1e3
    torch.testing.assert_close(ours(query, key, value, key_is_pad=is_pad), before)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="10 cannot be split into 3"):
        MultiHeadAttention(10, 3)
