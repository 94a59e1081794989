"""What a search is going to do, checked before anything is trained.

TuneConfig -> space + flags of all trials + the config of one of them -> Plan
"""

import math
import random
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lerobot.core.aliases import TRAIN_ALIASES, apply_aliases
from lerobot.core.errors import ConfigError, UserError
from lerobot.core.flags import read_flags
from lerobot.search.config import TuneConfig, train_config, train_tree, words_of
from lerobot.search.fields import check_space
from lerobot.search.space import Choices, Domain, Params, flags_of, grid_of, read_space
from lerobot.training.config import TrainConfig

DEFAULT_TRIALS = 20
DRAWS = 100  # combinations that are looked at for one that is valid
TRIALS_FOLDER = "trials"
TAKEN = ("output_dir", "resume", "config_path", "config")  # settings that belong to the search


@dataclass(frozen=True)
class Plan:
    """A search whose flags were understood."""

    cfg: TuneConfig
    space: Mapping[str, Domain]
    flags: tuple[str, ...]  # of lerobot-train, shared by all trials
    train: TrainConfig  # one trial, for what all have in common
    folder: Path
    n_trials: int

    def trial_folder(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.folder / TRIALS_FOLDER / f"{number:04d}"

    def command(self, params: Params) -> str:
        """The command that trains with these values, on one line."""
        words = [*self.flags, *flags_of(params), f"--output_dir={self.folder / 'best'}"]
        return shlex.join(["lerobot-train", *words])


def make_plan(cfg: TuneConfig) -> Plan:
    """The plan.

    Raises:
        UserError: the space, the shared flags or the objective are wrong; says what to type.
    """
    space = read_space(cfg.space)
    shared = words_of(apply_aliases(read_flags(cfg.train), TRAIN_ALIASES))
    check_shared(space, shared)
    if cfg.seed is not None and "seed" not in space:
        shared.append(f"--seed={cfg.seed}")
    check_space(space, train_tree(shared))
    train = first_valid(space, shared, seed=cfg.seed)
    check_objective(cfg, train)
    assert train.policy is not None
    if train.policy.push_to_hub and train.policy.repo_id is not None:
        raise ConfigError(
            f"--policy.repo_id={train.policy.repo_id}: trials are not published. Leave it out, and publish "
            "the best one by its own lerobot-train."
        )
    grid = grid_of(space) if cfg.sampler == "grid" else {}
    n_trials = cfg.n_trials or (math.prod(map(len, grid.values())) if grid else DEFAULT_TRIALS)
    now = datetime.now().astimezone()
    made = Path("outputs/tune") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{train.name}"
    return Plan(cfg, space, tuple(shared), train, cfg.output_dir or made, n_trials)


def check_shared(space: Mapping[str, Domain], shared: list[str]) -> None:
    """Nothing, if no setting is both searched and given.

    Raises:
        ConfigError: one is, or one belongs to the search itself.
    """
    given = {word.partition("=")[0].removeprefix("--") for word in shared}
    for name in space:
        if name in TAKEN:
            raise ConfigError(f"--space.{name} cannot be searched: the search sets it for each trial.")
        if name in given:
            raise ConfigError(f"--{name} is given and searched (--space.{name}). Leave one of them out.")


def first_valid(space: Mapping[str, Domain], shared: list[str], *, seed: int | None) -> TrainConfig:
    """The config of some combination of values that is one.

    Raises:
        UserError: there is none among the first ones; the message is that of the last.
    """
    draw = random.Random(seed or 0)
    for number in range(DRAWS):
        params: Params = {}
        for name, domain in space.items():
            words = domain.words() if isinstance(domain, Choices) else domain.words()[:: 2 if number else 1]
            params[name] = draw.choice(words)
        try:
            return train_config([*shared, *flags_of(params)])
        except UserError as error:
            last = error
    raise last


def refusal(plan: Plan, params: Params) -> str:
    """Why a combination of values is no valid run; empty when it is one."""
    try:
        train_config([*plan.flags, *flags_of(params)])
    except UserError as error:
        return str(error)
    return ""


def check_objective(cfg: TuneConfig, train: TrainConfig) -> None:
    """Nothing, if a run measures the objective at all.

    Raises:
        ConfigError: it does not; says which flags to add.
    """
    name, steps = cfg.objective, train.steps if train.num_epochs is None else None
    if cfg.is_validation_loss:
        if train.dataset.eval_split == 0 or train.eval_steps == 0:
            every = max(1, (steps or 10_000) // 10)
            raise ConfigError(
                f"--objective={name} is measured on episodes that are held out. Add "
                f"--dataset.eval_split=0.1 --eval_steps={every}"
            )
        _check_often_enough("eval_steps", train.eval_steps, steps, name)
    elif name.startswith("eval/"):
        if train.env is None or train.eval_freq == 0:
            every = max(1, (steps or 10_000) // 5)
            raise ConfigError(
                f"--objective={name} is measured in simulation. Add --env.type=NAME --eval_freq={every}"
            )
        _check_often_enough("eval_freq", train.eval_freq, steps, name)


def _check_often_enough(flag: str, every: int, steps: int | None, name: str) -> None:
    if steps is not None and every > steps:
        raise ConfigError(
            f"--{flag}={every} is more than --steps={steps}: {name} would never be measured. "
            f"Give --{flag}={max(1, steps // 5)} or so."
        )
