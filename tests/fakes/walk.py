"""A world as small as can be: a walker on a line, an environment config for it, and policies that walk.

Episode `seed` begins at 1 + seed % 5 metres; an action is a step in metres; within 0.15 of zero it succeeds.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from lerobot.core.errors import EnvironmentSetupError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs.base import EnvConfig, vector_feature, video_feature
from lerobot.nn.draws import Draws
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import default_steps, policy_pipelines

HEIGHT, WIDTH = 9, 13  # odd on purpose
STATE, IMAGE, ACTION = "observation.state", "observation.images.top", "action"


@dataclass(kw_only=True)
class WalkConfig(EnvConfig):
    """Not registered: the families of a test process stay as they are."""

    type: ClassVar[str] = "walk"
    episode_length: int = 30
    height: int = HEIGHT
    action_size: int = 1
    can_draw: bool = True
    is_endless: bool = False  # never says that time is over
    fails_at: tuple[int, int] | None = None  # (seed, step)
    log: list = field(default_factory=list)  # (seed, event) of every environment built from this

    def build(self):
        return Walk(self)

    @property
    def features(self):
        return {
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, self.height, WIDTH)),
            ACTION: PolicyFeature(FeatureType.ACTION, (self.action_size,)),
        }

    def dataset_features(self):
        return {
            STATE: vector_feature(("x", "steps")),
            IMAGE: video_feature(height=self.height, width=WIDTH),
            ACTION: vector_feature([f"step_{i}" for i in range(self.action_size)]),
        }


class Walk(gymnasium.Env):
    task_description = "walk home"
    render_mode = "rgb_array"

    def __init__(self, cfg):
        self.cfg = cfg
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
        self.action_space = spaces.Box(-1, 1, (cfg.action_size,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps, self.is_over = seed, 0, False
        self.x = 1.0 + (seed or 0) % 5
        self.cfg.log.append((seed, "reset"))
        return self.observe(), {}

    def step(self, action):
        assert not self.is_over, "stepped after the end"
        assert action.shape == (self.cfg.action_size,)
        if self.cfg.fails_at == (self.seed, self.steps):
            raise RuntimeError("a leg broke")
        self.x += float(np.clip(action[0], -1, 1))
        self.steps += 1
        self.cfg.log.append((self.seed, "step"))
        is_home = abs(self.x) < 0.15
        self.is_over = is_home or (self.steps >= self.cfg.episode_length and not self.cfg.is_endless)
        return (
            self.observe(),
            1.0 - 0.1 * abs(self.x),
            is_home,
            self.is_over and not is_home,
            {"is_success": is_home},
        )

    def observe(self):
        picture = np.full((self.cfg.height, WIDTH, 3), self.steps, np.uint8)
        return {"agent_pos": np.array([self.x, self.steps], np.float32), "pixels": {"top": picture}}

    def render(self):
        if not self.cfg.can_draw:
            raise EnvironmentSetupError("There is no screen. Type: buy one")
        return np.full((HEIGHT * 4, WIDTH * 4 + 1, 3), 40 * (self.steps % 6), np.uint8)

    def close(self):
        self.cfg.log.append((None, "close"))


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
