"""Means over what counts, and their shares."""

import pytest
import torch

from lerobot.nn.loss import Part, add_up, count

VALUES = torch.tensor([[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [100.0, 100.0]]])  # (2, 2, 2)
MASK = torch.tensor([[True, True], [True, False]])


def test_padding_does_not_count():
    loss, info = add_up({"error": Part(VALUES, MASK)})
    assert loss.item() == pytest.approx(20 / 6)
    assert info["item_losses"].tolist() == [4.0, 2.0]


def test_items_count_by_their_weight():
    weight = torch.tensor([0.5, 2.0])
    loss, info = add_up({"error": Part(VALUES, MASK)}, weight=weight)
    assert loss.item() == pytest.approx((0.5 * 16 + 2 * 4) / (0.5 * 4 + 2 * 2))
    assert info["item_losses"].tolist() == [4.0, 2.0]
    assert (count(MASK, weight) * 2).item() == 6.0 and count(MASK).item() == 3


def test_parts_have_their_scales_and_their_own_totals():
    parts = {"error": Part(VALUES, MASK), "other": Part(torch.tensor([1.0, 4.0]), scale=10.0)}
    loss, info = add_up(parts, totals={"error": torch.tensor(12), "other": torch.tensor(4)})
    assert info["error"].item() == pytest.approx(20 / 12) and info["other"].item() == 5 / 4
    torch.testing.assert_close(loss, torch.tensor(20 / 12 + 12.5))
    items, _ = add_up(parts, reduction="none", weight=torch.tensor([0.0, 9.0]))
    assert items.tolist() == [4.0 + 10.0, 2.0 + 40.0]


def test_nothing_that_counts_is_no_loss_and_no_gradient():
    values = VALUES.clone().requires_grad_()
    for how in ({"mask": torch.zeros_like(MASK)}, {"weight": torch.zeros(2)}):
        loss, info = add_up({"error": Part(values, how.get("mask"))}, weight=how.get("weight"))
        loss.backward()
        assert loss.item() == 0 and values.grad.abs().sum() == 0
        assert torch.isfinite(info["item_losses"]).all()
