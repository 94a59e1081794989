"""Policies for the small world of world.py."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.nn.draws import Draws
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import default_steps, policy_pipelines
from tests.fakes.world import ACTION, HEIGHT, IMAGE, STATE, WIDTH, Walk, WalkConfig

__all__ = ["ACTION", "HEIGHT", "IMAGE", "STATE", "WIDTH", "Walk", "WalkConfig", "Walker", "WalkerConfig"]


@dataclass(kw_only=True)
class WalkerConfig(PreTrainedConfig):
    type: ClassVar[str] = "walker"
    chunk_size: int = 4
    n_action_steps: int = 3
    noise: float = 0.0
    normalization_mapping: dict = field(default_factory=dict)
    input_features: dict = field(
        default_factory=lambda: {
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, HEIGHT, WIDTH)),
        }
    )
    output_features: dict = field(default_factory=lambda: {ACTION: PolicyFeature(FeatureType.ACTION, (1,))})

    @property
    def action_delta_indices(self):
        return list(range(self.chunk_size))


class Walker(PreTrainedPolicy):
    """Plans a chunk of steps towards zero, and follows it blindly for a while."""

    config_class = WalkerConfig
    name = "walker"

    def __init__(self, config=None):
        super().__init__(config or WalkerConfig())
        self.gain = torch.nn.Parameter(torch.tensor(0.45))
        self.tasks = []

    def plan(self, batch, *, draws=None):
        assert batch[IMAGE].shape[1:] == (3, HEIGHT, WIDTH) and batch[IMAGE].max() <= 1
        self.tasks.append(batch["task"])
        x = batch[STATE][:, :1]  # (B, 1)
        steps = torch.stack([-self.gain * x * 0.6**i for i in range(self.config.chunk_size)], 1)  # (B, T, 1)
        return steps + self.config.noise * (draws or Draws()).normal(*steps.shape, like=steps)


class Tracker(Walker):
    """Looks at the last observations, and draws from what they say."""

    name = "tracker"
    looks_back = True

    def plan(self, batch, *, draws=None):
        assert batch[IMAGE].shape[1:] == (self.config.n_obs_steps, 3, HEIGHT, WIDTH)
        speed = batch[STATE][:, -1] - batch[STATE][:, 0]  # (B, 2), zeros at first; the second is in steps
        assert ((speed[:, 1] == 0) | (speed[:, 1] == self.config.n_obs_steps - 1)).all()
        latest = {**batch, STATE: batch[STATE][:, -1] + 0.3 * speed, IMAGE: batch[IMAGE][:, -1]}
        return super().plan({**latest, "task": []}, draws=draws)


class Loner(Walker):
    """Remembers in a way of its own and draws from torch's generator, as policies of other packages do."""

    name = "loner"

    def reset(self):
        self.mood, self.log = 0.0, []

    def select_action(self, batch):
        self.log.append(batch[STATE])
        self.mood = 0.5 * self.mood + self.config.noise * float(torch.randn(()))
        return -self.gain * batch[STATE][:, :1] + self.mood


def pipelines(config=None):
    config = config or WalkerConfig()
    return policy_pipelines(
        *default_steps(
            input_features=config.input_features,
            output_features=config.output_features,
            norm_map={},
            stats=None,
        )
    )
