"""Tasks that Gymnasium registers by name, where both observation and action are one vector.

    --env.type=gym --env.task=Pendulum-v1        classic control; MuJoCo's tasks with the package `mujoco`

An episode succeeds when the task says so in `info["is_success"]`; most of these have rewards alone.
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from lerobot.core import keys
from lerobot.core.errors import ConfigError, MissingExtraError, suggest
from lerobot.core.types import PolicyFeature
from lerobot.envs.base import EnvConfig, checked_action, observation_space, policy_view, vector_feature

RATE_UNSAID = 30  # control steps per second of a task that does not say its own


@EnvConfig.register_subclass("gym")
@dataclass(kw_only=True)
class GymEnvConfig(EnvConfig):
    """A task of Gymnasium, by its registered name."""

    # Registered name of the task.
    task: str | None = "Pendulum-v1"
    # Control steps per second, for videos and data sets.
    fps: int = RATE_UNSAID
    # Control steps after which an episode is cut off.
    episode_length: int = 200
    # Further arguments of the task, {name: value}.
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.task:
            raise ConfigError("--env.type=gym needs the task's name: --env.task=Pendulum-v1")

    def build(self) -> "VectorTask":
        """A new environment.

        Raises:
            ConfigError: there is no such task, or it does not take and give one vector each.
            MissingExtraError: what it simulates with is not installed.
        """
        return VectorTask(self)

    @property
    def features(self) -> dict[str, PolicyFeature]:
        """The observation (J,) as the state, the action (A,)."""
        return policy_view(self.dataset_features())

    def dataset_features(self) -> dict[str, dict[str, Any]]:
        """The feature table of a data set recorded here."""
        env = self.build()
        env.close()
        return {
            keys.STATE: vector_feature(names("observation", env.num_seen)),
            keys.ACTION: vector_feature(names("action", env.num_actions)),
        }


class VectorTask(gymnasium.Wrapper):
    """A task with our habits: see `lerobot.envs.base`."""

    def __init__(self, cfg: GymEnvConfig) -> None:
        super().__init__(made(cfg))
        self.cfg, self.task = cfg, cfg.task
        self.task_description = str(cfg.task)
        for space in (self.env.observation_space, self.env.action_space):
            if not isinstance(space, Box) or len(space.shape) != 1:
                self.env.close()
                raise ConfigError(
                    f"--env.task={cfg.task}: expected vectors of numbers for observation and action; it has "
                    f"{self.env.observation_space} and {self.env.action_space}."
                )
        self.num_seen, self.num_actions = (
            int(np.prod(space.shape or ())) for space in (self.env.observation_space, self.env.action_space)
        )
        self.observation_space = observation_space(
            {keys.STATE: vector_feature(names("observation", self.num_seen))}
        )
        self.metadata = {**self.env.metadata, "render_fps": cfg.fps}
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Start an episode; `seed` fixes all of it."""
        self._steps = 0
        seen, info = self.env.reset(seed=seed)
        return {"agent_pos": seen.astype(np.float32)}, {**info, "is_success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        """Take `action` (A,) for one control step.

        Raises:
            UserError: the action has another shape or holds numbers that are not finite.
        """
        action = checked_action(action, names("action", self.num_actions)).astype(np.float32)
        low, high = self.env.action_space.low, self.env.action_space.high  # type: ignore[attr-defined]
        held = action.clip(low, high)
        seen, reward, is_done, is_over_time, info = self.env.step(held)
        self._steps += 1
        is_over_time = is_over_time or (self._steps >= self.cfg.episode_length and not is_done)
        info = {
            **info,
            "is_success": bool(info.get("is_success", False)),
            "is_clipped": bool((held != action).any()),
        }
        return {"agent_pos": seen.astype(np.float32)}, float(reward), bool(is_done), bool(is_over_time), info


def names(what: str, count: int) -> list[str]:
    """Names for numbers that have none."""
    return [f"{what}_{i}" for i in range(count)]


def made(cfg: GymEnvConfig) -> gymnasium.Env:
    """The task itself, which draws into memory.

    Raises:
        ConfigError: there is no such task, or it does not take the arguments.
        MissingExtraError: what it simulates with is not installed.
    """
    task = str(cfg.task)
    try:
        return gymnasium.make(
            task,
            max_episode_steps=cfg.episode_length,
            disable_env_checker=cfg.disable_env_checker,
            render_mode="rgb_array",
            **cfg.arguments,
        )
    except gymnasium.error.DependencyNotInstalled as error:
        raise MissingExtraError(f"--env.task={task}: {error}") from error
    except gymnasium.error.UnregisteredEnv as error:
        known = list(gymnasium.registry)
        raise ConfigError(f"--env.task={task} is unknown to Gymnasium.{suggest(task, known)}") from error
    except (gymnasium.error.Error, TypeError) as error:
        raise ConfigError(f"--env.task={task} --env.arguments={cfg.arguments}: {error}") from error
