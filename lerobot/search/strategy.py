"""Which values a trial tries, and when one that falls behind is stopped: Optuna's samplers and pruners."""

import importlib.util
import itertools
import random
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lerobot.core.errors import ConfigError
from lerobot.core.optional import require
from lerobot.search.config import TuneConfig
from lerobot.search.space import Choices, Domain, Params, grid_of
from lerobot.training.config import TrainConfig

if TYPE_CHECKING:
    import optuna

Space = Mapping[str, Domain]


def build_sampler(cfg: TuneConfig, *, num_trials: int) -> "optuna.samplers.BaseSampler":
    """The sampler; one that goes on after `num_trials` does not draw the first numbers again.

    Raises:
        ConfigError: it needs a package that is not installed.
    """
    samplers = require("optuna", extra="tune").samplers
    seed = None if cfg.seed is None else cfg.seed + num_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of their arguments are called experimental
        if cfg.sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=cfg.startup_trials, constant_liar=True)
        if cfg.sampler == "cmaes":
            if importlib.util.find_spec("cmaes") is None:
                raise ConfigError("--sampler=cmaes: 'cmaes' is not installed. Type: pip install cmaes")
            return samplers.CmaEsSampler(seed=seed, n_startup_trials=max(1, cfg.startup_trials))
        return samplers.RandomSampler(seed=seed)


def build_pruner(cfg: TuneConfig, train: TrainConfig) -> "optuna.pruners.BasePruner":
    """The pruner; steps are those of training."""
    pruners = require("optuna", extra="tune").pruners
    if cfg.pruner == "none":
        return pruners.NopPruner()
    if cfg.pruner == "hyperband":
        first = max(1, min(measured_every(cfg, train), train.steps))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pruners.HyperbandPruner(min_resource=first, max_resource=train.steps)
    return pruners.MedianPruner(n_startup_trials=cfg.startup_trials, n_warmup_steps=cfg.warmup_steps)


def measured_every(cfg: TuneConfig, train: TrainConfig) -> int:
    """Training steps from one value of the objective to the next."""
    if cfg.is_validation_loss:
        return train.eval_steps
    return train.eval_freq if cfg.objective.startswith("eval/") else train.log_freq


def distributions(space: Space) -> dict[str, "optuna.distributions.BaseDistribution"]:
    """The space as Optuna has it."""
    kinds = require("optuna", extra="tune").distributions
    found: dict[str, Any] = {}
    for name, domain in space.items():
        if isinstance(domain, Choices):
            found[name] = kinds.CategoricalDistribution(domain.options)
        elif domain.is_whole:
            step = 1 if domain.is_log else int(domain.step or 1)
            found[name] = kinds.IntDistribution(
                int(domain.low), int(domain.high), log=domain.is_log, step=step
            )
        else:
            found[name] = kinds.FloatDistribution(
                domain.low, domain.high, log=domain.is_log, step=domain.step
            )
    return found


class Grid:
    """Every combination of values, in an order that covers the whole early."""

    def __init__(self, space: Space, *, seed: int | None) -> None:
        grid = grid_of(space)
        self.points: list[Params] = [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
        random.Random(seed).shuffle(self.points)

    def next(self, tried: list[Params]) -> Params | None:
        """The first combination that was not tried."""
        return next((point for point in self.points if point not in tried), None)
