"""Policies of others whose forward takes a batch alone."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.items import num_items
from lerobot.policies.policy import PreTrainedPolicy


@dataclass(kw_only=True)
class PlainConfig(PreTrainedConfig):
    """No fields of its own."""


class PlainPolicy(PreTrainedPolicy):
    """One number per item."""

    config_class, name = PlainConfig, "plain"

    def __init__(self) -> None:
        super().__init__(PlainConfig())
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        loss = (batch["x"] * self.weight).mean()
        return loss, {"x": loss.detach(), "device": "cpu"}


def test_its_loss_counts_by_items():
    policy, parts = PlainPolicy(), [{"x": torch.tensor([1.0, 2.0, 6.0])}, {"x": torch.tensor([5.0])}]
    assert policy(parts[0])[0] == 3.0 and not policy.has_item_losses
    totals = {"items": sum(policy.loss_totals(part)["items"] for part in parts)}
    shares = [policy(part, totals=totals) for part in parts]
    assert [loss.item() for loss, _ in shares] == [9 / 4, 5 / 4]
    assert [info["x"].item() for _, info in shares] == [9 / 4, 5 / 4] and shares[0][1]["device"] == "cpu"


def test_a_filler_counts_nothing():
    policy = PlainPolicy()
    filler = {"x": torch.tensor([7.0]), keys.LOSS_WEIGHT: torch.zeros(1)}
    assert num_items(filler) == 0 and policy(filler, totals={"items": torch.tensor(4.0)})[0] == 0


def test_it_has_no_losses_of_items():
    with pytest.raises(ConfigError, match="plain has no losses of single items"):
        PlainPolicy()({"x": torch.ones(2)}, reduction="none")
