"""One training run put together: data, policy, processors, optimizer, loader, and where its numbers go.

TrainConfig --start--> dataset + policy + pipelines + optimizer (+ the checkpoint's state when resumed) = Run
"""

import dataclasses
import logging
import math
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lerobot.core import keys
from lerobot.core.errors import ConfigError, TrainingError
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.distributed.world import World
from lerobot.evaluation.fit import fitting_env
from lerobot.evaluation.result import EvalResult
from lerobot.policies.build import make_policy
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.training.allocator import keep_freed_memory
from lerobot.training.augmentation import Augmentation
from lerobot.training.checkpoints.saver import Saver
from lerobot.training.checks import (
    check_flags,
    check_item_losses,
    check_publishing,
    check_tracking,
    choose_output_dir,
    make_output_dir,
)
from lerobot.training.compile import Compilation
from lerobot.training.config import TrainConfig
from lerobot.training.ema import EMA
from lerobot.training.evaluations.evaluator import Evaluator
from lerobot.training.gauges.advice import Advisor
from lerobot.training.gauges.guard import Guard
from lerobot.training.gauges.stopwatch import Stopwatch
from lerobot.training.logs.console import TrainingConsole
from lerobot.training.logs.metrics import Meter, Row
from lerobot.training.logs.tracking import Tracker
from lerobot.training.lora import add_adapters
from lerobot.training.parts import freeze, scale_rates
from lerobot.training.patience import Patience
from lerobot.training.precision import autocast, choose_kernels, half_precision
from lerobot.training.processors import build_processors, prepare
from lerobot.training.sampling.blend import Blend
from lerobot.training.sampling.curriculum import Curriculum
from lerobot.training.sampling.data import Batch, BatchLoader, Position
from lerobot.training.sampling.difficulty import build_curriculum
from lerobot.training.sampling.source import Data, Dataset, Experience
from lerobot.training.sampling.stream import StreamLoader
from lerobot.training.sampling.weighting import Weighting, build_weighting
from lerobot.training.spread import for_this_world, spread
from lerobot.training.startup import spare_compiler
from lerobot.training.transfer import feed

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Run:
    """Everything a training loop touches. `step` counts optimizer steps that were taken."""

    cfg: TrainConfig
    world: World
    output_dir: Path
    dataset: Dataset | StreamingLeRobotDataset
    policy: PreTrainedPolicy
    processors: Pair
    other_processors: list[Pair]  # of a mixture's further datasets, when each has its own statistics
    model: nn.Module  # the policy, wrapped when several processes train it
    optimizer: torch.optim.Optimizer
    scheduler: Any
    grad_clip_norm: float
    ema: EMA | None  # the average of the weights
    loader: BatchLoader | StreamLoader
    augmentation: Augmentation
    held_out: list[int] | StreamingLeRobotDataset | None  # items of the dataset, or a stream of them
    console: TrainingConsole
    patience: Patience | None  # ends the run early
    saver: Saver
    held_out_totals: dict[str, torch.Tensor] | None = (
        None  # what the loss is a mean over there; see validation
    )
    curriculum: Curriculum | None = None
    experience: Experience | None = None  # of a policy that acts while it learns
    weighting: Weighting | None = None
    blend: Blend | None = None  # of a mixture
    evaluator: Evaluator | None = None  # of the main process, where evaluations have processes of their own
    tracker: Tracker | None = None  # of the main process, once the run is open
    step: int = 0
    first_step: int = 0  # where this process began; later than 0 in a resumed run
    meter: Meter = field(default_factory=lambda: Meter(only_finite=True))
    last_evaluation: EvalResult | None = None
    scaler: torch.amp.GradScaler | None = None
    compilation: Compilation | None = None
    started_s: float = field(default_factory=time.perf_counter)
    stopwatch: Stopwatch = field(init=False)
    guard: Guard = field(init=False)
    advisor: Advisor = field(default_factory=Advisor)

    def __post_init__(self) -> None:
        self.stopwatch = Stopwatch(self.world.device)
        if self.experience is not None:
            self.experience.settle(self.output_dir, timed=partial(self.untimed, "acting"))
        self.guard = Guard(self.optimizer, world=self.world, on_nan=self.cfg.on_nan, scaler=self.scaler)

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.cfg.steps

    @property
    def has_stalled(self) -> bool:
        """Whether the run is to end early, because its metric got no better."""
        return self.patience is not None and self.patience.is_over

    @property
    def evaluated_policy(self) -> PreTrainedPolicy:
        """What validation and evaluations look at: the averaged weights where there are such, or the last."""
        return self.ema.policy if self.ema is not None and self.cfg.ema.use_for_eval else self.policy

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is completely on the disk; after a resume, at first, the one resumed."""
        return self.saver.last

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens now; 0 is never."""
        return every > 0 and self.step % every == 0

    def batches(self) -> Iterator[list[Batch]]:
        """The micro-batches of each step still to take, on the device and preprocessed."""
        raw: deque[Batch] = deque()  # as they were read, of batches that are on their way
        watch, numbered = self.stopwatch, remembered(self.augmentation.numbered(self.loader), raw)
        batches = feed(numbered, self.world.device, pin=self.cfg.pin_memory, stopwatch=watch)
        while not self.finished:
            if self.curriculum is not None:
                self.curriculum.announce(self.step, say=self.console.say)
            watch.tick()
            group: list[Batch] = []
            sources: list[Batch] = []
            for _ in range(self.cfg.gradient_accumulation_steps):
                with watch.span("data"):
                    batch = next(batches)
                sources.append(raw.popleft())
                with watch.span("prepare"):
                    group.append(self.weighed(self.prepare(self.augmentation(batch))))
                self.meter.add({"items": len(sources[-1][keys.INDEX])})
                tokens = self.policy.count_tokens(group[-1])
                if tokens is not None:
                    self.meter.add({"tokens": tokens})
            self.guard.expect(self.step + 1, sources)
            yield group

    def prepare(self, batch: Batch) -> Batch:
        """A batch of the dataset, on the device already, as the policy reads it."""
        return prepare(self.cfg, [self.processors, *self.other_processors], batch)

    def weighed(self, batch: Batch) -> Batch:
        """A prepared batch with the weights of its items, where they have any."""
        if self.weighting is None:
            return batch
        batch = self.weighting(batch)
        self.meter.add(self.weighting.numbers(batch))
        return batch

    @property
    def position(self) -> Position:
        """How far the order of frames was followed."""
        return self.loader.position((self.step - self.first_step) * self.cfg.gradient_accumulation_steps)

    def autocast(self) -> AbstractContextManager:
        """Half precision for the forward pass, where it was asked for and the device has it."""
        return autocast(self.cfg, self.world.device)

    def untimed(self, name: str = "other") -> AbstractContextManager[None]:
        """What happens inside is not counted as training time; its name tells how often it is due."""
        return self.stopwatch.untimed(name)

    def log(self, row: Row) -> None:
        """Write one row of metrics everywhere."""
        row = {"step": self.step, **row}
        if self.patience is not None:
            self.patience.see(row)
        if self.tracker is not None:
            self.tracker.write(row)
            self.console.row(row)

    def show_evaluation(self, result: EvalResult, *, step: int | None = None) -> None:
        """Keep an evaluation for the report, and show one of its videos on the dashboards."""
        self.last_evaluation = result
        video = next((episode.video for episode in result.episodes if episode.video is not None), None)
        if self.tracker is not None and video is not None:
            self.tracker.video(video, step=self.step if step is None else step)

    def open(self) -> None:
        """Begin at `step`: open the places that metrics go to."""
        self.first_step = self.console.first_step = self.step
        self.output_dir = self.world.gather(self.output_dir)[0]  # its name may hold the time
        if self.curriculum is not None:
            micro = self.cfg.gradient_accumulation_steps
            self.curriculum.begin(first_step=self.step, steps=self.cfg.steps, num_micro=micro)
        if self.world.is_main:
            make_output_dir(self.output_dir)
            self.tracker = Tracker(self.cfg, self.output_dir, resume_step=self.step)
            if self.cfg.env is not None and self.cfg.eval_freq and self.cfg.eval_workers:
                resumed = self.step if self.cfg.resume else None
                self.evaluator = Evaluator(
                    self.cfg, self.output_dir, device=self.world.device, resume_step=resumed
                )

    @property
    def failure(self) -> TrainingError | None:
        """What went wrong beside the training, after which it is saved and ends."""
        return self.evaluator.failure if self.evaluator is not None else None

    def close(self) -> None:
        """Flush and release what was opened."""
        # This wrapper must not be the last to let go of the process group: freed by Python, it would hold
        # what the group's own thread waits for.
        self.model = self.policy
        if self.compilation is not None:
            self.compilation.close()
        if self.experience is not None:
            self.experience.close()
        if self.evaluator is not None:
            self.evaluator.close()
        if self.tracker is not None:
            self.tracker.close()


def remembered(batches: Iterator[Batch], kept: deque[Batch]) -> Iterator[Batch]:
    """The batches, each of which is put into `kept` as it comes."""
    for batch in batches:
        kept.append(batch)
        yield batch


def start(cfg: TrainConfig, world: World, *, data: Data | None = None) -> Run:
    """The run a config describes, ready for its first step.

    Args:
        data: where its batches come from; by default the config's datasets.

    Raises:
        UserError: data, policy, checkpoint or flags do not fit each other; nothing was written then.
    """
    cfg = for_this_world(cfg, world)
    assert cfg.policy is not None
    output_dir = choose_output_dir(cfg)
    if cfg.policy.repo_id is None:
        cfg.policy.push_to_hub = False  # other installations refuse a file with the one and not the other
    seed_everything(cfg.seed, rank=world.rank)
    choose_kernels(world.device, is_deterministic=cfg.cudnn_deterministic)
    keep_freed_memory(world.device)
    data = data or Data()
    meta = data.metadata(cfg)
    check_flags(cfg, meta.features)
    check_publishing(cfg)
    check_tracking(cfg)
    policy = make_policy(cfg.policy, ds_meta=meta, rename_map=cfg.rename_map, image_shapes=cfg.input_shapes)
    check_item_losses(cfg, policy)
    place = {"rank": world.rank, "num_ranks": world.size}
    source = data.source(cfg, meta, **place)
    processors, *others = build_processors(cfg, meta)
    if cfg.env is not None and cfg.eval_freq:  # what cannot be evaluated is said now, not at step eval_freq
        env = fitting_env(cfg.policy, cfg.env, processors[0], rename_map=cfg.rename_map)
        cfg = dataclasses.replace(cfg, env=env)
    curriculum = build_curriculum(cfg, source, world)
    loader = data.loader(cfg, source, policy=policy, processors=processors, curriculum=curriculum, **place)
    cfg = with_steps(cfg, frames_per_epoch=loader.frames_per_epoch, num_ranks=world.size)
    if world.is_main and (doubt := policy.config.doubt_about(steps=cfg.steps)):
        logger.warning("%s", doubt)
    if cfg.grad_checkpointing:
        policy.enable_grad_checkpointing()
    add_adapters(policy, cfg)
    freeze(policy, cfg.freeze)
    spare_compiler(is_compiled=bool(cfg.compile))
    usual = min(loader.batch_size, math.ceil(loader.frames_per_epoch / world.size))
    compilation = Compilation(policy, cfg.compile, size=usual, device=world.device) if cfg.compile else None
    model = spread(cfg, policy, world)  # before the optimizer: shards are parameters of their own
    optimizer, grad_clip_norm = build_optimizer(cfg, policy)
    scheduler = cfg.scheduler.build(optimizer, cfg.steps) if cfg.scheduler else None
    return Run(
        cfg=cfg,
        world=world,
        output_dir=output_dir,
        dataset=source.dataset,
        policy=policy,
        processors=processors,
        other_processors=others,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        grad_clip_norm=grad_clip_norm,
        ema=EMA(policy, cfg.ema) if cfg.uses_ema else None,
        loader=loader,
        curriculum=curriculum,
        experience=data.experience,
        weighting=build_weighting(cfg, source, world.device),
        blend=Blend(cfg.dataset.names, world) if len(cfg.dataset.names) > 1 else None,
        augmentation=Augmentation(cfg, meta),
        held_out=source.held_out,
        patience=Patience(cfg.early_stopping) if cfg.early_stopping.metric else None,
        console=TrainingConsole(first_step=0, last_step=cfg.steps, is_main=world.is_main),
        compilation=compilation,
        saver=Saver(world.device),
        scaler=torch.amp.GradScaler() if half_precision(cfg, world.device) is torch.float16 else None,
    )


def seed_everything(seed: int | None, *, rank: int = 0) -> None:
    """Seed Python, NumPy and torch; every process draws other numbers."""
    if seed is None:
        return
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def build_optimizer(cfg: TrainConfig, policy: PreTrainedPolicy) -> tuple[torch.optim.Optimizer, float]:
    """The optimizer of the policy's parameters, and the gradient norm it clips at.

    Raises:
        ConfigError: the config describes several optimizers.
    """
    settings = cfg.optimizer or policy.config.get_optimizer_preset()
    optimizer = settings.build(policy.get_optim_params())
    if isinstance(optimizer, dict):
        raise ConfigError(
            f"--optimizer.type={settings.type} makes several optimizers, and this loop steps one. "
            f"Leave it out to get the preset of {policy.config.type}."
        )
    scale_rates(optimizer, policy, cfg.lr_scale)
    return optimizer, settings.grad_clip_norm


def with_steps(cfg: TrainConfig, *, frames_per_epoch: int, num_ranks: int) -> TrainConfig:
    """The config with `steps` from `num_epochs`, where that was given."""
    if cfg.num_epochs is None:
        return cfg
    effective = cfg.batch_size * cfg.gradient_accumulation_steps * num_ranks
    return dataclasses.replace(cfg, steps=cfg.num_epochs * math.ceil(frames_per_epoch / effective))
