"""A run's checkpoints: what is saved of it, and how a resumed run gets it back.

weights, EMA, optimizer           tensors: a snapshot in host memory, from which a thread writes
schedule, random numbers, meters  small: taken at once, of every process
parts with state (PARTS)          plain values, in extra_state.json
"""

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from lerobot.core import keys
from lerobot.core.config import encode
from lerobot.core.errors import ConfigError
from lerobot.datasets.sampler import compute_sampler_state
from lerobot.optim.rng import take_rng
from lerobot.optim.state import flat, nested, read_json
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.training.checkpoints import checkpoint
from lerobot.training.checkpoints.checkpoint import Progress
from lerobot.training.checkpoints.pruning import keep_best, prune
from lerobot.training.checkpoints.shards import move_shards, restore_optimizer, whole_weights, write_shards
from lerobot.training.checks import check_weights
from lerobot.training.config import load_train_config
from lerobot.training.gauges.nan import settle
from lerobot.training.logs.metrics import METRICS_FILE
from lerobot.training.processors import save_per_dataset
from lerobot.training.run import Run, build_optimizer
from lerobot.training.sampling.data import Position

logger = logging.getLogger(__name__)

# Attributes of a run with state_dict() -> plain values and load_state_dict(); None where they are off. Every
# process asks for the values, which some parts add up over all of them; the first one writes them. The
# tensors of the averaged weights (`ema.weights`, by name) have files of their own.
PARTS = ("scaler", "guard", "ema", "patience", "curriculum", "blend", "experience")
POLICY = "policy"  # what the policy itself asks to be kept
WEIGHTS, AVERAGE, OPTIMIZER = "weights/", "ema/", "optimizer/"  # beginnings of names in a snapshot


class Part(Protocol):
    """A part of a run that goes on where it was."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""


def parts_of(run: Run) -> dict[str, Part]:
    """The parts with state that this run has, by name."""
    return {name: part for name in PARTS if (part := getattr(run, name, None)) is not None}


# ---------------------------------------------------------------------------------- save
def save_checkpoint(run: Run) -> None:
    """Begin to write the run's checkpoint; every process enters, the first one writes, beside the training.

    Raises:
        LeRobotError: the checkpoint before this one could not be written, or the last step was a bad one.
    """
    settle(run)
    rng, meters = run.world.gather(take_rng()), run.world.gather(run.meter.state_dict())
    shards, saved = write_shards(run), whole_weights(run)
    parts = {name: deepcopy(part.state_dict()) for name, part in parts_of(run).items()}  # some add up
    if not run.world.is_main:
        return
    cfg, step, policy = run.cfg, run.step, run.policy
    tree = run.optimizer.state_dict()
    tensors, steady = _tensors(run, saved, optimizer={} if shards else tree["state"])
    snapshot = run.saver.take(tensors, steady=steady)
    groups = deepcopy(tree["param_groups"])
    scheduler = deepcopy(run.scheduler.state_dict()) if run.scheduler else None
    extra: dict[str, Any] = {"sampler": run.position.state(), "meters": meters, **parts}
    if progress := policy.progress():
        extra[POLICY] = progress

    # A stored config that says "resume" would do so whenever it is read.
    config = encode(replace(cfg, resume=False, checkpoint_path=None))

    def write_more(part: Path) -> None:
        save_per_dataset(cfg, [run.processors, *run.other_processors], part)
        move_shards(shards, part)

    def write() -> Path:
        weights = _part(snapshot.tensors, WEIGHTS)
        state = {"state": nested(_part(snapshot.tensors, OPTIMIZER)), "param_groups": groups}
        average = _part(snapshot.tensors, AVERAGE)
        check_weights(weights, step=step)
        folder = checkpoint.save(
            run.output_dir,
            step=step,
            total_steps=cfg.steps,
            policy=_PolicyThen(policy, weights),
            train_config=config,
            batch_size=cfg.batch_size,
            num_processes=run.world.size,
            preprocessor=run.processors[0],
            postprocessor=run.processors[1],
            ema_policy=_PolicyThen(policy, average) if average else None,
            optimizer=_Then(state) if shards is None else None,
            scheduler=_Then(scheduler) if scheduler is not None else None,
            rng=rng,
            write_more=write_more,
            extra=extra,
        )
        best = (
            keep_best(folder.parent, run.output_dir / METRICS_FILE, cfg.keep_best) if cfg.keep_best else None
        )
        if run.tracker is not None:
            run.tracker.checkpoint(folder)
        if cfg.keep_last is not None:
            prune(folder.parent, keep_last=cfg.keep_last, keep={best} if best else set())
        return folder

    run.saver.start(write, snapshot)


def _tensors(
    run: Run, policy: Mapping[str, Tensor], *, optimizer: Mapping[int, Any]
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of a checkpoint by name, and which of them change only after the optimizer's step."""
    weights = {WEIGHTS + name: value for name, value in policy.items()}
    average = {AVERAGE + name: value for name, value in run.ema.weights.items()} if run.ema else {}
    state = {OPTIMIZER + name: value for name, value in flat(optimizer).items()}
    buffers = {WEIGHTS + name for name, _ in run.policy.named_buffers()}
    return weights | average | state, (weights.keys() - buffers) | average.keys() | state.keys()


def _part(tensors: Mapping[str, Tensor], beginning: str) -> dict[str, Tensor]:
    return {name.removeprefix(beginning): t for name, t in tensors.items() if name.startswith(beginning)}


@dataclass(frozen=True)
class _Then:
    """An optimizer or a schedule as it was."""

    state: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        """Its state then."""
        return self.state


@dataclass(frozen=True)
class _PolicyThen:
    """A policy with the weights it had."""

    policy: PreTrainedPolicy
    weights: Mapping[str, Tensor]

    def save_pretrained(self, folder: Path) -> None:
        """Write it as it was then."""
        self.policy.save_pretrained(folder, weights=self.weights)


# ---------------------------------------------------------------------------------- resume
def restore_state(run: Run) -> None:
    """Bring a new run to where its checkpoint stood; optimizer settings that were changed since then apply.

    Raises:
        CheckpointError: the checkpoint is damaged or belongs to another model.
        ConfigError: the run has already taken all its steps.
    """
    assert run.cfg.checkpoint_path is not None
    folder = Path(run.cfg.checkpoint_path)
    progress = checkpoint.load(folder, scheduler=run.scheduler, rank=run.world.rank)
    restore_optimizer(run, folder)
    if progress.step >= run.cfg.steps:
        raise ConfigError(
            f"{folder} has taken all its {progress.step} steps. "
            f"To train longer, type: --steps={2 * progress.step}"
        )
    apply_changes(run, folder / keys.PRETRAINED_FOLDER / keys.TRAIN_CONFIG_FILE)
    restore_parts(run, progress.extra | (run.ema.load(folder) if run.ema else {}), source=folder)
    run.policy.resume(progress.extra.get(POLICY, {}), step=progress.step)
    before, now = progress.num_processes or run.world.size, run.world.size
    if now > before:
        which = f"rank {before}" if now == before + 1 else f"ranks {before} to {now - 1}"
        logger.warning("%s has no random state of %s: they keep their own.", folder, which)
    run.step, run.saver.last = progress.step, folder
    # The weights came from this very run: what is stored is where it began.
    stored = read_json(folder / keys.PRETRAINED_FOLDER / keys.CONFIG_FILE, dict)
    run.policy.config.pretrained_path = stored.get("pretrained_path")
    run.loader.start = position_of(run, progress)


def apply_changes(run: Run, saved_config: Path) -> None:
    """Set what the config says of the optimizer other than the checkpoint's; a schedule goes on from it."""
    before, _ = build_optimizer(load_train_config(saved_config, is_quiet=True), run.policy)
    now, _ = build_optimizer(run.cfg, run.policy)
    groups = zip(run.optimizer.param_groups, before.param_groups, now.param_groups, strict=True)
    for index, (group, old, new) in enumerate(groups):
        for name in new.keys() - {"params", "lr"}:
            if old.get(name) != new[name]:
                group[name] = new[name]
        if old["lr"] != new["lr"]:
            group["lr"] = group["lr"] * new["lr"] / old["lr"] if old["lr"] else new["lr"]
            if run.scheduler is not None:
                group["initial_lr"] = run.scheduler.base_lrs[index] = new["lr"]


def restore_parts(run: Run, extra: Mapping[str, Any], *, source: Path) -> None:
    """Give the parts of a run the state they had, with one warning about those that only one side has."""
    parts = parts_of(run)
    for name in parts.keys() & extra.keys():
        parts[name].load_state_dict(extra[name])
    meters = extra.get("meters", [])
    if run.world.rank < len(meters) == run.world.size:  # else the next log row is of the steps after it
        run.meter.load_state_dict(meters[run.world.rank])
    fresh, unused = sorted(parts.keys() - extra.keys()), sorted(extra.keys() & set(PARTS) - parts.keys())
    words = [f"{', '.join(fresh)} start afresh"] if fresh and extra else []  # other releases save no parts
    words += [f"its {', '.join(unused)} are not used"] if unused else []
    if words:
        logger.warning("%s and the settings of this run differ: %s.", source, "; ".join(words))


def position_of(run: Run, progress: Progress) -> Position:
    """Where the order of frames goes on: also with another number of processes or another batch size.

    Checkpoints of other releases hold the step alone, from which it follows if those two are as they were.
    """
    loader, saved = run.loader, progress.extra.get("sampler")
    if saved is None:
        state = compute_sampler_state(
            progress.step * run.cfg.gradient_accumulation_steps,
            loader.frames_per_epoch,
            progress.batch_size or loader.batch_size,
            progress.num_processes or loader.num_ranks,
        )
        return replace(loader.start, epoch=state["epoch"], offset=state["start_index"])
    position = Position.from_state(saved)
    if position.seed != loader.start.seed:
        logger.warning(
            "--seed=%s: the order of frames goes on with the run's first seed, %s.",
            run.cfg.seed,
            position.seed,
        )
        loader.reseed(position.seed)
    if position.frames_per_epoch != loader.frames_per_epoch:
        logger.warning(
            "The data has %d frames per epoch and had %d when the run was saved; a new epoch begins.",
            loader.frames_per_epoch,
            position.frames_per_epoch,
        )
        return replace(position, epoch=position.epoch + 1, offset=0, frames_per_epoch=loader.frames_per_epoch)
    return loader.fitting(position, progress.num_processes)
