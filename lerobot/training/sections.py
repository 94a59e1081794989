"""Sections of a run's settings: tracking, averaging, adapters, weighting, what is learned from, stopping."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from lerobot.core.config import extra
from lerobot.core.errors import ConfigError, suggest

LENGTH, LOSS, COLUMN, JSON = "length", "loss", "column:", ".json"  # what --curriculum.difficulty may be


@dataclass(kw_only=True)
class WandBConfig:
    """Weights & Biases."""

    enable: bool = False  # send metrics to Weights & Biases
    disable_artifact: bool = False  # do not upload checkpoints as artifacts
    project: str = "lerobot"  # project name
    entity: str | None = None  # user or team
    notes: str | None = None  # free text shown with the run
    run_id: str | None = None  # id of the run to continue; a resumed run finds its own
    mode: Literal["online", "offline", "disabled"] | None = None  # offline: upload later with `wandb sync`
    add_tags: bool = True  # tag the run with policy, seed, dataset, environment
    tags: list[str] | None = extra(None)  # further tags


@dataclass(kw_only=True)
class TrackioConfig:
    """Trackio, a local dashboard with the interface of Weights & Biases."""

    enable: bool = False  # send metrics to Trackio
    project: str = "lerobot"  # project name
    space_id: str | None = None  # Hugging Face Space that shows the dashboard; null keeps it on this machine
    run_name: str | None = None  # name of the run there, by which it is continued; null is job_name and time


@dataclass(kw_only=True)
class EMAConfig:
    """A running average of the weights, which evaluates better than the last ones.

    decay at step t: 1 - (1 + t / inv_gamma) ** -power, within min_decay and max_decay; or `decay`, if given.
    """

    enable: bool | None = None  # keep one; null leaves it to the policy (Diffusion does, as in its paper)
    decay: float | None = None  # share of the old average kept at each step; null grows by the formula
    update_after_step: int = 0  # steps before the average begins
    inv_gamma: float = 1.0  # steps after which the growing decay leaves zero
    power: float = 0.75  # how fast it grows
    min_decay: float = 0.0  # least decay
    max_decay: float = 0.9999  # largest decay
    use_for_eval: bool = True  # evaluate the averaged weights


@dataclass(kw_only=True)
class PeftConfig:
    """Small trainable adapters on a frozen policy, by the package `peft`."""

    target_modules: list[str] | str | None = None  # names, suffixes or a regex; null is the policy's choice
    full_training_modules: list[str] | None = None  # parts that are trained whole beside the adapters
    method_type: str = "LORA"  # kind of adapter, as `peft` calls it
    init_type: str | None = None  # how adapters begin; null is the method's default
    r: int = 16  # rank of the adapters
    lora_alpha: int | None = None  # scale of the adapters; null is r


# Kinds of weighting, and their extra_params.
WEIGHTINGS = {"rabc": ("fallback_weight", "chunk_size"), "column": ("column",), "tasks": (), "uniform": ()}


@dataclass(kw_only=True)
class SampleWeightingConfig:
    """Weights of items in the loss: from predicted progress (RA-BC), a column, or by task."""

    type: str = "rabc"  # rabc, column (extra_params={column: NAME}), tasks (all count the same), uniform
    progress_path: str | None = None  # rabc: table of progress; null is sarm_progress.parquet of the dataset
    head_mode: str = "sparse"  # rabc: sparse or dense, which head's progress is read
    kappa: float = 0.01  # rabc: progress over a chunk from which an item counts fully
    epsilon: float = 1e-6  # rabc: against division by zero
    extra_params: dict[str, Any] = field(default_factory=dict)  # rabc: fallback_weight, chunk_size; column

    def __post_init__(self) -> None:
        if self.type not in WEIGHTINGS:
            raise ConfigError(
                f"--sample_weighting.type={self.type}: expected one of {', '.join(WEIGHTINGS)}."
                f"{suggest(self.type, WEIGHTINGS)}"
            )
        known = WEIGHTINGS[self.type]
        for name in self.extra_params:
            if name not in known:
                raise ConfigError(
                    f"--sample_weighting.extra_params={{{name}: ...}}: {self.type} takes "
                    f"{' and '.join(known) or 'none'}.{suggest(name, known)}"
                )


@dataclass(kw_only=True)
class CurriculumConfig:
    """Begin with easy episodes: up to each threshold of the run, only the easiest part of them is drawn."""

    difficulty: str | None = None  # length, loss, column:NAME, or a .json file {episode: number}; null is off
    thresholds: list[float] = field(default_factory=lambda: [0.3, 0.7])  # shares of the run, ascending
    shares: list[float] = field(default_factory=lambda: [1 / 3, 2 / 3])  # easiest share drawn before each

    def __post_init__(self) -> None:
        kind = self.difficulty
        if not (kind in (None, LENGTH, LOSS) or kind.startswith(COLUMN) or kind.endswith(JSON)):
            raise ConfigError(
                f"--curriculum.difficulty={kind}: expected length, loss, column:NAME, or a .json file "
                f"{{episode: number}}.{suggest(kind, (LENGTH, LOSS))}"
            )
        if len(self.thresholds) != len(self.shares):
            raise ConfigError(
                f"--curriculum.thresholds={self.thresholds} and --curriculum.shares={self.shares}: expected "
                "as many numbers in both, a share to draw before each threshold."
            )
        for name in ("thresholds", "shares"):
            values = [0, *getattr(self, name), 1]
            if any(low >= high for low, high in pairwise(values)):
                raise ConfigError(
                    f"--curriculum.{name}={getattr(self, name)}: expected ascending numbers between 0 and 1."
                )


@dataclass(kw_only=True)
class EarlyStoppingConfig:
    """End a run that no longer gets better."""

    metric: str | None = None  # eval/loss, eval/success_rate, loss ...; null never stops early
    patience: int = 5  # measurements without an improvement before the run ends
    min_delta: float = 0.0  # smaller changes are no improvement


@dataclass(kw_only=True)
class OnlineConfig:
    """Learn from what the policy lives through in `env` while it learns."""

    utd_ratio: float = 1.0  # optimizer steps per step in the environment (update-to-data)
    steps_before_learning: int = 1000  # steps in the environment before the first optimizer step
    random_steps: int | None = (
        None  # first steps, with random actions; null: all before learning, or none for a trained policy
    )
    buffer_capacity: int = 100_000  # newest steps in the environment that are learned from
    ratio: float = 0.5  # share of each batch that comes from the environment, where there is a dataset, too

    def __post_init__(self) -> None:
        if self.utd_ratio <= 0:
            raise ConfigError(f"--online.utd_ratio={self.utd_ratio}: expected a number above 0.")
        for name, least in (("steps_before_learning", 1), ("random_steps", 0), ("buffer_capacity", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--online.{name}={value}: expected at least {least}.")
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"--online.ratio={self.ratio}: expected a share above 0, up to 1.")


@dataclass(kw_only=True)
class JobConfig:
    """Where the run takes place; only this machine so far."""

    target: str | None = None  # null or local: this machine
    image: str = "huggingface/lerobot-gpu:latest"  # container image of a remote job
    timeout: str = "2d"  # time limit of a remote job
    detach: bool = False  # do not wait for a remote job
    tags: list[str] = field(default_factory=list)  # tags of a remote job
