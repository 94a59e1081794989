"""Acts in an environment, one whole episode at a time, and gives back what it lived through.

    observation -> preprocessor -> memory, plan -> postprocessor -> action -> environment -> reward ...

An episode follows from its seed and the policy's weights alone: the environment, the policy's draws and the
random actions have numbers of their own, and nobody else's are disturbed.

Shapes: L steps of an episode, A action size, C H W picture.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.core.observation import features_of
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.actor import half_precision
from lerobot.evaluation.rollout import undisturbed_randomness
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.processor.observation import VanillaObservationProcessorStep
from lerobot.processor.rename import rename
from lerobot.rl.buffer import Episode

if TYPE_CHECKING:
    import gymnasium


class Lived(NamedTuple):
    """An episode that was lived through."""

    frames: Episode  # under the names that a dataset of the environment has; pictures (L, C, H, W) uint8
    sum_reward: float
    is_success: bool


class Actor:
    """A policy in an environment.

    Args:
        names: environment's feature -> what the preprocessor calls it.
        task: text for the policy.
    """

    def __init__(
        self,
        policy: PreTrainedPolicy,
        processors: Pair,
        env: "gymnasium.Env",
        env_config: EnvConfig,
        *,
        names: Mapping[str, str],
        task: str,
    ) -> None:
        self.policy, self.processors, self.env, self.cfg = policy, processors, env, env_config
        self.names, self.task = names, task

    def live(self, seed: int, *, random_steps: int = 0) -> Lived:
        """An episode from its beginning to its end, whose first actions may be random ones."""
        for pipeline in self.processors:
            pipeline.reset()
        memory, draws = self.policy.eval().new_memory(seed=seed), np.random.default_rng(seed)
        low, high = limits(self.env)
        steps: list[dict[str, np.ndarray]] = []
        is_success = is_over = False
        with undisturbed_randomness():
            observation, _ = self.env.reset(seed=seed)
            while not is_over and len(steps) < self.cfg.episode_length:
                if len(steps) < random_steps:
                    action = draws.uniform(low, high).astype(np.float32)
                else:
                    action = self.act(observation, memory)
                frame = {self.cfg.features_map.get(k, k): v for k, v in features_of(observation).items()}
                observation, reward, is_done, is_over_time, info = self.env.step(action)
                is_over = bool(is_done or is_over_time)
                is_success = is_success or bool(info.get("is_success", False))
                outcome = {
                    keys.ACTION: action,
                    keys.REWARD: np.array([reward], np.float32),
                    keys.DONE: np.array([is_over]),
                    keys.SUCCESS: np.array([bool(info.get("is_success", False))]),
                }
                steps.append(frame | outcome)
        frames = {name: to_tensor([step[name] for step in steps]) for name in steps[0]}
        return Lived(frames, float(frames[keys.REWARD].sum()), is_success)

    @torch.no_grad()
    def act(self, observation: dict[str, Any], memory: Any) -> np.ndarray:
        """The policy's action (A,) for an observation as the environment returns it."""
        before, after = self.processors
        canonical = VanillaObservationProcessorStep().observation(observation)
        batch = rename({name: torch.as_tensor(value) for name, value in canonical.items()}, self.names)
        with half_precision(self.policy):
            action = after(self.policy.act(before({**batch, keys.TASK: [self.task]}), [memory]))
        return action[0].float().cpu().numpy()


def limits(env: "gymnasium.Env") -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest action, (A,) each.

    Raises:
        ConfigError: its actions have no limits.
    """
    low, high = getattr(env.action_space, "low", None), getattr(env.action_space, "high", None)
    if low is None or high is None or not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(
            f"--online_training explores between the limits of the actions, and this environment's have "
            f"none: {env.action_space}. Choose another --env.type or --env.task."
        )
    return low.astype(np.float32), high.astype(np.float32)


def to_tensor(values: list[np.ndarray]) -> Tensor:
    """Values of single steps as (L, ...); pictures (H, W, C) become (L, C, H, W)."""
    stacked = torch.from_numpy(np.stack(values))
    if stacked.dtype == torch.uint8 and stacked.dim() == 4:
        return stacked.permute(0, 3, 1, 2).contiguous()  # (L, C, H, W)
    return stacked.float() if stacked.dtype == torch.float64 else stacked
