"""What a search is: the flags of `lerobot-tune`, and `tune_config.json` in the folder of its trials."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lerobot.core import log
from lerobot.core.aliases import TRAIN_ALIASES, apply_aliases
from lerobot.core.config import decode, encode, fields_of
from lerobot.core.errors import ConfigError
from lerobot.core.flags import merge, put, read_flags, read_section, tree_of
from lerobot.core.text import Text, read_file
from lerobot.search.space import flatten
from lerobot.training.config import TrainConfig, complete
from lerobot.training.contradictions import is_better_lower
from lerobot.training.origin import find_config

CONFIG_FILE = "tune_config.json"  # in the output folder
Tree = dict[str, Any]


@dataclass(kw_only=True)
class TuneConfig:
    """Search the settings of `lerobot-train` that train best; every flag of that command is accepted too.

    Flags that are not listed here are those of all trials.
    """

    space: dict[str, Any]  # settings: log[1e-6,1e-3], [0,0.3], int[8,64,8], {16,32}; or a file
    train: list[str] = field(default_factory=list)  # flags of all trials; filled from the command line
    objective: str = "eval/loss"  # number of metrics.jsonl to improve: eval/loss, eval/success_rate, loss ...
    objective_value: Literal["last", "best"] = "last"  # value of a trial: its last one or its best
    direction: Literal["minimize", "maximize"] | None = (
        None  # minimize or maximize; known for losses and rates
    )
    n_trials: int | None = None  # trials in all; null is 20, or every point of a grid
    n_jobs: int = 1  # trials at once
    timeout_s: float | None = None  # seconds after which the search stops
    sampler: Literal["tpe", "random", "grid", "cmaes"] = "tpe"  # tpe, random, grid or cmaes
    pruner: Literal["median", "hyperband", "none"] = "median"  # median, hyperband or none: stops trials
    startup_trials: int = 5  # trials before sampler and pruner go by what was found
    warmup_steps: int = 0  # steps of a trial before it may be pruned
    seed: int | None = 1000  # seed of the sampler, and --seed of every trial
    output_dir: Path | None = None  # folder of the search; null is outputs/tune/<date>/<time>_<policy>
    study_name: str = "lerobot"  # name of the study inside the storage
    storage: str | None = None  # SQLite file or database URL of the study; null is <output_dir>/study.db
    resume: bool = False  # continue the search in output_dir
    keep_trials: Literal["best", "all"] = "best"  # trials that keep checkpoints: best or all
    gpus_per_trial: int | None = None  # null is 1 where there are GPUs and the policy uses them
    cpus_per_trial: int | None = None  # CPU threads of a trial; null divides the machine's by n_jobs
    executor: Literal["local", "ray"] = "local"  # local (processes here) or ray (a Ray cluster)
    ray_address: str | None = None  # address of the Ray cluster; null starts one here
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR

    def __post_init__(self) -> None:
        for name, least in MINIMUM.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name}={value}: expected at least {least}.")
        if self.ray_address is not None and self.executor != "ray":
            raise ConfigError(f"--ray_address={self.ray_address} needs --executor=ray.")
        if self.resume and self.output_dir is None:
            raise ConfigError("--resume=true needs the search to continue: give --output_dir=FOLDER.")
        if self._way is None:
            raise ConfigError(
                f"--objective={self.objective}: is less or more of it better? "
                "Give --direction=minimize or --direction=maximize."
            )
        self.train = [str(word) for word in self.train]  # words of a command line, not values

    @property
    def is_validation_loss(self) -> bool:
        """Whether the objective is measured on held-out episodes: eval/loss, or that of a task or dataset."""
        return self.objective.startswith("eval/loss")

    @property
    def is_minimized(self) -> bool:
        """Whether less of the objective is better."""
        return self._way == "minimize"

    @property
    def _way(self) -> str | None:
        known = {True: "minimize", False: "maximize", None: None}
        return self.direction or known[is_better_lower(self.objective)]


MINIMUM = {
    "n_trials": 1,
    "n_jobs": 1,
    "timeout_s": 0,
    "startup_trials": 0,
    "warmup_steps": 0,
    "gpus_per_trial": 0,
    "cpus_per_trial": 1,
}
# What must stay as it was for results of a continued search to be comparable.
IDENTITY = ("space", "train", "objective", "objective_value", "direction", "seed", "study_name", "storage")


def parse_search(args: Sequence[str]) -> TuneConfig:
    """The search a command line asks for.

    Raises:
        ConfigError: a word that is no flag, an unknown flag, a wrong value.
    """
    own = {field.name for field in fields_of(TuneConfig)}
    given = read_flags(args)
    mine = {name: value for name, value in given.items() if name in own}
    train = {name: value for name, value in given.items() if name not in own}
    log.start(str(mine.get("log_level", "INFO")))
    if "space" in mine:
        mine["space"] = _plain_space(mine["space"])
    if train:
        mine["train"] = words_of(apply_aliases(train, TRAIN_ALIASES))
    mine = merge(_saved(mine), mine)
    if "space" not in mine:
        mine["space"] = {}
    return decode(TuneConfig, mine)


def _plain_space(given: Any) -> Tree:
    """Setting -> text, of flags or of a file, other spellings of settings resolved."""
    if isinstance(given, Text):
        given = read_section(given)
    if not isinstance(given, dict):
        raise ConfigError(f'--space={given}: expected --space.NAME="{{16,32,64}}", or a .yaml or .json file.')
    tree: Tree = {}
    for name, text in flatten(given).items():
        put(tree, name.split("."), text)
    return {name: str(text) for name, text in flatten(apply_aliases(tree, TRAIN_ALIASES)).items()}


def _saved(mine: Tree) -> Tree:
    """The config of the search in the output folder, where `--resume=true` asks for it."""
    if str(mine.get("resume", "false")).lower() not in ("true", "yes", "1") or "output_dir" not in mine:
        return {}
    path = Path(str(mine["output_dir"])) / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"--resume=true: {path.parent} holds no {CONFIG_FILE} to continue from.")
    return read_file(path)


def words_of(tree: Tree, prefix: str = "") -> list[str]:
    """The flags that a tree of flags came from."""
    words = []
    for name, value in tree.items():
        words += (
            words_of(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"--{prefix}{name}={value}"]
        )
    return words


def train_tree(words: Sequence[str]) -> Tree:
    """The tree of a training run's flags and its config file; presets are not filled in.

    Raises:
        ConfigError: a flag or a file cannot be read.
    """
    return tree_of(read_flags(words), aliases=TRAIN_ALIASES, find=find_config)


def train_config(words: Sequence[str]) -> TrainConfig:
    """The config of a training run, exactly as `lerobot-train` would read it.

    Raises:
        ConfigError: the command would end with that message.
    """
    tree = tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete, find=find_config)
    return decode(TrainConfig, tree)


def saved_form(cfg: TuneConfig) -> Tree:
    """What `tune_config.json` holds."""
    return {**encode(cfg), "resume": False}
