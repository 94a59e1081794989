"""The simulated arm with rewards that tell every trajectory from every other. Loads without torch."""

import gymnasium

from lerobot.envs.so101 import SO101EnvConfig


class JointsAsReward(gymnasium.RewardWrapper):
    """A reward that tells every trajectory from every other: where the joints are."""

    def reward(self, reward):
        return float(self.unwrapped.physics.positions.sum())


class TellingConfig(SO101EnvConfig):
    type = "so101"

    def build(self):
        return JointsAsReward(super().build())
