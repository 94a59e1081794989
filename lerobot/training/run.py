"""One training run put together: data, policy, processors, optimizer, loader, and where its numbers go.

TrainConfig --start--> dataset + policy + pipelines + optimizer (+ the checkpoint's state when resumed) = Run
"""

import dataclasses
import math
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lerobot.core import hub
from lerobot.core.errors import (
    ConfigError,
    FeatureMismatchError,
    TrainingError,
)
from lerobot.core.types import FeatureType, policy_features
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.delta import resolve_delta_timestamps
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.sampler import EpisodeAwareSampler
from lerobot.distributed.world import World
from lerobot.policies.build import make_policy, make_pre_post_processors
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.processor.images import ResizeImagesProcessorStep
from lerobot.training.config import TrainConfig
from lerobot.training.console import TrainingConsole
from lerobot.training.data import Batch, BatchLoader, to_device
from lerobot.training.metrics import Meter, Row
from lerobot.training.precision import half_precision
from lerobot.training.split import frames_of, split_episodes
from lerobot.training.tracking import Sink, open_sinks

# Mean and standard deviation of ImageNet's pixels in [0, 1], per colour.
IMAGENET = {
    "mean": np.array([0.485, 0.456, 0.406], np.float32)[:, None, None],  # (3, 1, 1)
    "std": np.array([0.229, 0.224, 0.225], np.float32)[:, None, None],  # (3, 1, 1)
}


@dataclass(kw_only=True)
class Run:
    """Everything a training loop touches. `step` counts optimizer steps that were taken."""

    cfg: TrainConfig
    world: World
    output_dir: Path
    dataset: LeRobotDataset
    policy: PreTrainedPolicy
    processors: Pair
    model: nn.Module  # the policy, wrapped when several processes train it
    optimizer: torch.optim.Optimizer
    scheduler: Any
    grad_clip_norm: float
    loader: BatchLoader
    held_out: list[int]
    console: TrainingConsole
    sinks: list[Sink] = field(default_factory=list)
    step: int = 0
    meter: Meter = field(default_factory=Meter)
    last_checkpoint: Path | None = None
    last_evaluation: Any = None
    scaler: torch.amp.GradScaler | None = None
    logged_at_s: float = field(default_factory=time.perf_counter)

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.cfg.steps

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens now; 0 is never."""
        return every > 0 and self.step % every == 0

    def batches(self) -> Iterator[list[Batch]]:
        """The micro-batches of each step still to take, on the device and preprocessed."""
        preprocess, pin = self.processors[0], self.cfg.pin_memory
        batches = iter(self.loader)
        while not self.finished:
            group = []
            for _ in range(self.cfg.gradient_accumulation_steps):
                asked_s = time.perf_counter()
                batch = next(batches)
                self.meter.add({"data_s": time.perf_counter() - asked_s})
                group.append(self.prepare(batch, preprocess, pin=pin))
            yield group

    def prepare(self, batch: Batch, preprocess: Any, *, pin: bool = False) -> Batch:
        """A batch of the dataset as the policy reads it."""
        batch = {self.cfg.rename_map.get(key, key): value for key, value in batch.items()}
        if self.cfg.task is not None:
            batch["task"] = [self.cfg.task] * len(batch["index"])
        return preprocess(to_device(batch, self.world.device, pin=pin))

    def autocast(self) -> AbstractContextManager:
        """Half precision for the forward pass, where it was asked for and the device has it."""
        dtype = half_precision(self.cfg, self.world.device)
        return torch.autocast(self.world.device.type, dtype=dtype) if dtype is not None else nullcontext()

    def log(self, more: Row | None = None) -> None:
        """Write one row of the meter's means (or only `more`) to every sink."""
        row: Row = {"step": self.step}
        if more is None:
            now_s = time.perf_counter()
            elapsed_s, self.logged_at_s = now_s - self.logged_at_s, now_s
            means = self.meter.read()
            check_finite(means, step=self.step)
            micro = self.cfg.gradient_accumulation_steps
            batches = micro * self.cfg.batch_size * self.world.size
            steps = self.cfg.log_freq if self.step % self.cfg.log_freq == 0 else self.step % self.cfg.log_freq
            row |= {
                "epoch": self.step * batches / self.loader.frames_per_epoch,
                **{name: mean for name, mean in means.items() if name != "data_s"},
                "samples_per_s": steps * batches / elapsed_s,
                "data_share": min(
                    1.0, means.get("data_s", 0.0) * self.cfg.gradient_accumulation_steps * steps / elapsed_s
                ),
            }
        row |= more or {}
        if self.world.is_main:
            for sink in self.sinks:
                sink.write(row)
            self.console.row(row)

    def open(self) -> None:
        """Begin at `step`: position the loader, open the places that metrics go to."""
        self.loader.first_batch = self.step * self.cfg.gradient_accumulation_steps
        self.console.first_step = self.step
        if self.world.is_main:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self.sinks = open_sinks(self.cfg, self.output_dir, resume_step=self.step)

    def close(self) -> None:
        """Flush and release what was opened."""
        for sink in self.sinks:
            sink.close()


def start(cfg: TrainConfig, world: World) -> Run:
    """The run a config describes, ready for its first step.

    Raises:
        UserError: data, policy, checkpoint or flags do not fit each other; nothing was written then.
    """
    assert cfg.policy is not None
    output_dir = choose_output_dir(cfg)
    cfg.policy.push_to_hub &= (
        cfg.policy.repo_id is not None
    )  # other installations refuse the one without the other
    seed_everything(cfg.seed, rank=world.rank)
    meta = LeRobotDatasetMetadata(cfg.dataset.repo_id, root=cfg.dataset.root, revision=cfg.dataset.revision)
    check_flags(cfg, meta)
    check_publishing(cfg)
    policy = make_policy(cfg.policy, ds_meta=meta, rename_map=cfg.rename_map, image_shapes=cfg.input_shapes)
    dataset = open_dataset(cfg, meta)
    processors = build_processors(cfg, meta)
    train_episodes, held_out_episodes = split_episodes(dataset, share=cfg.dataset.eval_split)
    sampler = EpisodeAwareSampler(
        dataset.meta.episodes["dataset_from_index"],
        dataset.meta.episodes["dataset_to_index"],
        episode_indices_to_use=train_episodes,
        drop_n_last_frames=getattr(cfg.policy, "drop_n_last_frames", 0),
        shuffle=True,
        seed=cfg.seed or 0,
        absolute_to_relative_idx=dataset.absolute_to_relative_idx,
    )
    loader = BatchLoader(
        dataset,
        sampler,
        batch_size=cfg.batch_size,
        num_workers=cfg.num_workers,
        prefetch=cfg.prefetch_factor,
        rank=world.rank,
        num_ranks=world.size,
    )
    cfg = with_steps(cfg, frames_per_epoch=len(sampler), num_ranks=world.size)
    if cfg.grad_checkpointing:
        policy.enable_grad_checkpointing()
    optimizer_cfg = cfg.optimizer or cfg.policy.get_optimizer_preset()
    optimizer = optimizer_cfg.build(policy.get_optim_params())
    scheduler = cfg.scheduler.build(optimizer, cfg.steps) if cfg.scheduler else None
    return Run(
        cfg=cfg,
        world=world,
        output_dir=output_dir,
        dataset=dataset,
        policy=policy,
        processors=processors,
        model=world.wrap(policy),
        optimizer=optimizer,
        scheduler=scheduler,
        grad_clip_norm=optimizer_cfg.grad_clip_norm,
        loader=loader,
        held_out=frames_of(dataset, held_out_episodes),
        console=TrainingConsole(first_step=0, last_step=cfg.steps, is_main=world.is_main),
        scaler=torch.amp.GradScaler() if half_precision(cfg, world.device) is torch.float16 else None,
    )


def check_finite(means: dict[str, float], *, step: int) -> None:
    """Stop a run whose loss is no longer a number.

    Raises:
        TrainingError: it is not.
    """
    if not math.isfinite(means.get("loss", 0.0)):
        raise TrainingError(
            f"The loss became {means['loss']} before step {step}. The last checkpoint is unharmed. Try a "
            "lower --policy.optimizer_lr, a smaller --optimizer.grad_clip_norm, or look for NaN in the data."
        )


def choose_output_dir(cfg: TrainConfig) -> Path:
    """The run's folder.

    Raises:
        ConfigError: it exists and the run is not a resumed one.
    """
    now = datetime.now().astimezone()
    folder = cfg.output_dir or Path("outputs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{cfg.name}"
    if folder.exists() and not cfg.resume and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"--output_dir={folder} exists already. Give another folder, or continue that run: "
            f"lerobot-train --resume=true --output_dir={folder}"
        )
    return folder


def seed_everything(seed: int | None, *, rank: int = 0) -> None:
    """Seed Python, NumPy and torch; every process draws other numbers."""
    if seed is None:
        return
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def check_flags(cfg: TrainConfig, meta: LeRobotDatasetMetadata) -> None:
    """Check the flags that speak of the dataset's features against it.

    Raises:
        FeatureMismatchError: a flag contradicts the dataset.
    """
    features = {cfg.rename_map.get(name, name): f for name, f in policy_features(meta.features).items()}
    size = sum(f.shape[0] for f in features.values() if f.type is FeatureType.ACTION)
    if cfg.action_dim is not None and cfg.action_dim != size:
        raise FeatureMismatchError(
            f"--policy.action_dim={cfg.action_dim}: the dataset's actions have size {size}."
        )
    cameras = {name: f for name, f in features.items() if f.type is FeatureType.VISUAL}
    for name, shape in cfg.input_shapes.items():
        if name not in cameras or len(shape) != 3 or shape[0] != cameras[name].shape[0]:
            known = ", ".join(f"{n} {list(f.shape)}" for n, f in cameras.items())
            raise FeatureMismatchError(
                f"--policy.input_shapes.{name}={list(shape)}: expected [C, H, W] of a camera. "
                f"Cameras: {known or 'none'}."
            )


def check_publishing(cfg: TrainConfig) -> None:
    """Fail now, not after the last step, when the policy is to be uploaded and cannot be.

    Raises:
        ConfigError: no network is allowed, or nobody is logged in.
    """
    if cfg.policy is None or not cfg.policy.push_to_hub:
        return
    problem = (
        "HF_HUB_OFFLINE is set" if hub.is_offline() else None if hub.has_token() else "nobody is logged in"
    )
    if problem:
        raise ConfigError(
            f"The policy is to be published as {cfg.policy.repo_id}, but {problem}. Type: hf auth login, "
            "or leave it on this machine with --policy.push_to_hub=false."
        )


def open_dataset(cfg: TrainConfig, meta: LeRobotDatasetMetadata) -> LeRobotDataset:
    """The dataset with the frames each item of this policy needs."""
    return LeRobotDataset(
        cfg.dataset.repo_id,
        root=cfg.dataset.root,
        episodes=cfg.dataset.episodes,
        revision=cfg.dataset.revision,
        delta_timestamps=resolve_delta_timestamps(cfg.policy, meta, cfg.rename_map),
        tolerance_s=cfg.tolerance_s,
        download_videos=cfg.dataset.download_videos,
        return_uint8=True,
        depth_output_unit=cfg.dataset.depth_output_unit,
    )


def build_processors(cfg: TrainConfig, meta: LeRobotDatasetMetadata) -> Pair:
    """Pre- and postprocessor: a resumed run's own, otherwise with this dataset's statistics."""
    policy = cfg.policy
    assert policy is not None
    if cfg.resume:
        return make_pre_post_processors(policy, policy.pretrained_path)
    stats = deepcopy(meta.stats)
    if cfg.dataset.use_imagenet_stats:
        for name in set(meta.camera_keys) - set(meta.depth_keys):
            stats[name] = {**stats.get(name, {}), **IMAGENET}
    stats = {cfg.rename_map.get(name, name): value for name, value in stats.items()}
    before, after = make_pre_post_processors(policy, policy.pretrained_path, dataset_stats=stats)
    if cfg.input_shapes:
        before.steps = [step for step in before.steps if not isinstance(step, ResizeImagesProcessorStep)]
        sizes = {name: shape[1:] for name, shape in cfg.input_shapes.items()}
        before.steps.insert(1, ResizeImagesProcessorStep(sizes))
    return before, after


def with_steps(cfg: TrainConfig, *, frames_per_epoch: int, num_ranks: int) -> TrainConfig:
    """The config with `steps` from `num_epochs`, where that was given."""
    if cfg.num_epochs is None:
        return cfg
    effective = cfg.batch_size * cfg.gradient_accumulation_steps * num_ranks
    return dataclasses.replace(cfg, steps=cfg.num_epochs * math.ceil(frames_per_epoch / effective))
