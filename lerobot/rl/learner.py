"""Trains a policy on what it lives through: `lerobot-train --online_training=true --env.type=NAME`.

    acts in cfg.env -> buffer -> batches (with recorded ones, if there is a dataset) -> training/loop.py

Where the batches come from is all that differs: steps, log, evaluations and checkpoints are as everywhere.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lerobot.control.collect import OUTCOME_FEATURES
from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.delta import resolve_delta_timestamps
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.episode import task_text
from lerobot.evaluation.fit import fitting_names
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.rl.actor import Actor, limits
from lerobot.rl.buffer import PICTURES, Buffer
from lerobot.rl.experience import Experience, OnlineLoader
from lerobot.training import loop
from lerobot.training.config import TrainConfig
from lerobot.training.run import start
from lerobot.training.sampling.source import Data


def train(cfg: TrainConfig) -> Path:
    """Train one policy online and return the folder of its last checkpoint."""
    return loop.train(cfg, begin=partial(start, data=OnlineData(cfg)))


@dataclass(frozen=True, kw_only=True)
class EnvMetadata:
    """What an environment says about the data that is going to come from it."""

    features: dict[str, dict[str, Any]]
    stats: dict[str, dict[str, Any]]
    fps: float
    camera_keys: list[str] = field(init=False)
    depth_keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        cameras = [name for name, feature in self.features.items() if feature["dtype"] in PICTURES]
        object.__setattr__(self, "camera_keys", cameras)


class OnlineData(Data):
    """The experience of a run, and recorded data beside it where there are some."""

    def __init__(self, cfg: TrainConfig) -> None:
        assert cfg.env is not None
        self.env_config: EnvConfig = cfg.env

    def metadata(self, cfg: TrainConfig) -> Any:
        """What the recorded data says about itself, or else the environment.

        Raises:
            ConfigError: the environment's actions have no limits.
            DatasetError: the recorded data has no rewards, or another rate.
        """
        env_config = self.env_config
        self.env = env_config.build()
        names = env_config.features_map
        table = {names.get(k, k): feature for k, feature in env_config.dataset_features().items()}
        low, high = limits(self.env)
        stats = {keys.ACTION: {"min": low, "max": high}}
        self.own = EnvMetadata(features=table | OUTCOME_FEATURES, stats=stats, fps=env_config.fps)
        if not cfg.dataset.names:
            return self.own
        meta = super().metadata(cfg)
        if keys.REWARD not in meta.features:
            raise DatasetError(
                f"{cfg.dataset.label} has no {keys.REWARD}, so nothing can be learned from it beside what "
                "is lived through. Record one with rewards (lerobot-collect), or leave out --dataset.repo_id."
            )
        if meta.fps != self.own.fps:
            raise DatasetError(
                f"{cfg.dataset.label} has {meta.fps} frames per second and the {env_config.type} environment "
                f"{self.own.fps}: their steps are not the same. Type: --env.fps={meta.fps:g}"
            )
        return meta

    def source(self, cfg: TrainConfig, meta: Any, *, rank: int, num_ranks: int) -> Any:
        """The recorded data, or in its place the buffer, which is empty yet."""
        assert cfg.policy is not None
        seconds = resolve_delta_timestamps(cfg.policy, self.own, cfg.rename_map) or {}
        self.buffer = Buffer(
            self.own.features,
            {name: [round(offset * self.own.fps) for offset in each] for name, each in seconds.items()},
            capacity=cfg.online.buffer_capacity,
            fps=self.own.fps,
            task=task_text(self.env) if cfg.task is None else cfg.task,
        )
        if cfg.dataset.names:
            return super().source(cfg, meta, rank=rank, num_ranks=num_ranks)
        return _Nothing(dataset=self.buffer)

    def loader(
        self, cfg: TrainConfig, source: Any, *, policy: PreTrainedPolicy, processors: Pair, **how: Any
    ) -> OnlineLoader:
        """Batches of what the policy lives through, and of recorded data.

        Raises:
            FeatureMismatchError: the policy does not fit the environment.
        """
        names = fitting_names(policy.config, self.env_config, processors[0], rename_map=cfg.rename_map)
        actor = Actor(policy, processors, self.env, self.env_config, names=names, task=self.buffer.task)
        online, is_new = cfg.online, policy.config.pretrained_path is None
        usual = online.steps_before_learning if is_new else 0
        experience = Experience(
            actor,
            self.buffer,
            online,
            seed=cfg.seed or 0,
            random_steps=usual if online.random_steps is None else online.random_steps,
        )
        self.experience = experience
        recorded = None
        if cfg.dataset.names:
            recorded = super().loader(cfg, source, policy=policy, processors=processors, **how)
        return OnlineLoader(
            experience,
            batch_size=cfg.batch_size,
            per_update=cfg.gradient_accumulation_steps,
            seed=cfg.seed or 0,
            recorded=recorded,
        )


@dataclass(frozen=True, kw_only=True)
class _Nothing:
    """A source that is empty at first."""

    dataset: Buffer
    held_out: list[int] = field(default_factory=list)
