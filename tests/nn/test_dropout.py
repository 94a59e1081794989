"""Dropout with fewer draws: the rate, the mean, which values move, and where PyTorch's own is used."""

import pytest
import torch
import torch.nn.functional as F

from lerobot.nn.dropout import LEAST_VALUES, LEVELS, Dropout, dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.99])
def test_the_rate_and_the_mean_are_kept(rate):
    x = torch.full((1001, 1003), 2.0)
    made = dropout(x, rate)
    num_dropped = round(rate * LEVELS)
    scale = LEVELS / (LEVELS - num_dropped)
    assert set(made.unique().tolist()) == {0.0, torch.tensor(2.0 * scale).item()}
    share = (made == 0).double().mean().item()
    assert abs(share - rate) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5 + 1 / LEVELS
    neighbours = ((made[:, 1:] == 0) & (made[:, :-1] == 0)).double().mean().item()
    assert abs(neighbours - share**2) < 0.003  # the four parts of a draw know nothing of each other


def test_gradients_pass_where_values_do():
    x = torch.rand(300, 300, requires_grad=True)
    made = dropout(x + 1, 0.3)
    made.sum().backward()
    assert torch.equal(x.grad == 0, made == 0) and (x.grad[made != 0] == x.grad.max()).all()


def test_the_same_seed_drops_the_same():
    x = torch.rand(256, 257)
    torch.manual_seed(3)
    one, state = dropout(x, 0.2), torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.2), one) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(dropout(x, 0.2), one)


def test_few_values_are_dropped_as_pytorch_does_it():
    x = torch.rand(LEAST_VALUES - 1)
    torch.manual_seed(0)
    wanted = F.dropout(x, 0.4)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.4), wanted)


def test_nothing_moves_without_training_or_rate():
    x = torch.rand(LEAST_VALUES)
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(Dropout(0.0)(x), x) and not Dropout(1.0)(x).any()


def test_half_precision_stays_half():
    assert dropout(torch.ones(LEAST_VALUES, dtype=torch.bfloat16), 0.1).dtype == torch.bfloat16
