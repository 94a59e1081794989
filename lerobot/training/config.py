"""Everything a training run is: the flags of `lerobot-train`, and `train_config.json` of a checkpoint.

Keys, order and defaults are those of LeRobot's train_config.json; fields made with `extra(...)` are ours and
are written only when they are set, so that other installations can read the file.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lerobot.core import keys
from lerobot.core.aliases import TRAIN_ALIASES, apply_aliases
from lerobot.core.config import decode, encode, extra, read_file, read_section, stored_as
from lerobot.core.errors import ConfigError
from lerobot.core.flags import merge
from lerobot.core.text import Text
from lerobot.datasets.source import DatasetConfig
from lerobot.envs.base import EnvConfig
from lerobot.evaluation.config import EvalConfig
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.policies.config import PreTrainedConfig, fill_from_checkpoint, portable_device
from lerobot.training import origin
from lerobot.training.contradictions import check_keeping, check_objective, check_online, check_processes
from lerobot.training.releases import from_other_releases, with_weighting_section
from lerobot.training.schedule import choose_schedule
from lerobot.training.sections import (
    CurriculumConfig,
    EarlyStoppingConfig,
    EMAConfig,
    JobConfig,
    OnlineConfig,
    PeftConfig,
    SampleWeightingConfig,
    TrackioConfig,
    WandBConfig,
)

logger = logging.getLogger(__name__)
Tree = dict[str, Any]


@dataclass(kw_only=True)
class TrainConfig:
    """Train a policy on a dataset."""

    dataset: DatasetConfig  # what to learn from
    env: EnvConfig | None = None  # simulated environment to evaluate in
    policy: PreTrainedConfig | None = None  # what to train
    reward_model: dict[str, Any] | None = None  # reward models are not available yet
    output_dir: Path | None = None  # folder of the run; null is outputs/train/<date>/<time>_<job_name>
    job_name: str | None = None  # name of the run; null is made from environment and policy
    resume: bool = False  # continue the run whose train_config.json (or output_dir) is given
    seed: int | None = 1000  # seed of weights, sample order and noise; null leaves them random
    cudnn_deterministic: bool = False  # same bits on every GPU run, slower
    num_workers: int = 4  # loader threads; 0 reads in the training thread
    batch_size: int = 8  # items per micro-batch and process; auto takes the most that fit
    prefetch_factor: int = 4  # batches each loader thread prepares ahead
    persistent_workers: bool = (
        True  # accepted for old commands; loader threads always live as long as the run
    )
    dataloader_multiprocessing_context: str | None = "spawn"  # kept in files; loader processes are spawned
    steps: int = 100_000  # optimizer steps
    eval_freq: int = stored_as("env_eval_freq", 20_000)  # steps between evaluations in env; 0 is never
    log_freq: int = 200  # steps between log lines
    eval_steps: int = 0  # steps between validation losses (needs dataset.eval_split); 0 is never
    max_eval_samples: int = 0  # frames per validation loss; 0 is all held-out frames
    tolerance_s: float = 1e-4  # largest difference between a timestamp and its frame
    save_checkpoint: bool = True  # write checkpoints
    save_freq: int = 20_000  # steps between checkpoints; the last step is always saved
    use_policy_training_preset: bool = True  # start from the policy's published optimizer and schedule
    optimizer: OptimizerConfig | None = None  # null is the policy's preset; single fields override it
    scheduler: LRSchedulerConfig | None = None  # null is the policy's preset
    eval: EvalConfig = field(default_factory=EvalConfig)  # evaluations during training
    wandb: WandBConfig = field(default_factory=WandBConfig)  # Weights & Biases
    peft: PeftConfig | None = None  # train small adapters instead of the whole policy
    job: JobConfig = field(default_factory=JobConfig)  # remote jobs are not available
    save_checkpoint_to_hub: bool = False  # upload each checkpoint; not available yet
    sample_weighting: SampleWeightingConfig | None = None  # weigh items in the loss
    rename_map: dict[str, str] = field(default_factory=dict)  # dataset's key: policy's key
    checkpoint_path: str | None = None  # set when a run is resumed: the checkpoint it continues from
    task: str | None = extra(None)  # task text that replaces the dataset's on every item
    num_epochs: int | None = extra(None)  # train for so many passes over the data instead of `steps`
    action_dim: int | None = extra(None)  # checked against the dataset's action size
    input_shapes: dict[str, tuple[int, ...]] = extra(factory=dict)  # camera: [C, H, W] it is resized to
    gradient_accumulation_steps: int = extra(1)  # micro-batches per optimizer step
    mixed_precision: bool | Literal["no", "fp16", "bf16"] = extra(
        False
    )  # half precision where the device has it
    grad_checkpointing: bool = extra(False)  # trade compute for memory in every transformer stack
    lr_scheduler: bool | str | None = extra(
        None
    )  # true: the policy's schedule or a cosine; or a schedule's name
    pin_memory: bool = extra(True)  # page-locked host memory for transfers to CUDA
    loader_workers: Literal["threads", "processes"] = extra("threads")  # what num_workers counts
    auto_batch_size: bool = extra(False)  # what --batch_size=auto sets: take the largest that fits
    batch_size_is: Literal["per_process", "global"] = extra(
        "per_process"
    )  # what batch_size counts; global is all frames of a step, of all processes and micro-batches
    global_batch_size: int | None = extra(None)  # set by batch_size_is=global: frames of a whole step
    num_processes: int | None = extra(None)  # processes on this machine; null is one per visible GPU
    parallelism: Literal["ddp", "fsdp"] = extra("ddp")  # whole copies of the policy, or one in shards
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"] = extra(False)  # torch.compile
    ema: EMAConfig = extra(factory=EMAConfig)  # average of the weights
    freeze: list[str] = extra(factory=list)  # parts that are not trained, such as vision_backbone
    lr_scale: dict[str, float] = extra(factory=dict)  # part of the policy: factor on its learning rate
    statistics: Literal["dataset", "checkpoint"] | None = extra(None)  # whose numbers normalise a fine-tuning
    curriculum: CurriculumConfig = extra(factory=CurriculumConfig)  # easy episodes first
    early_stopping: EarlyStoppingConfig = extra(factory=EarlyStoppingConfig)  # end when it gets no better
    on_nan: Literal["stop", "skip"] = extra(
        "stop"
    )  # a loss or gradient that is NaN: stop the run or skip the step
    keep_last: int | None = extra(None)  # newest checkpoints that are kept; null keeps all
    keep_best: str | None = extra(None)  # metric (eval/loss ...) whose best checkpoint is kept as well
    eval_workers: int = extra(1)  # processes that evaluate in env beside the training; 0: it waits instead
    trackio: TrackioConfig = extra(factory=TrackioConfig)  # Trackio
    online_training: bool = extra(False)  # learn from what the policy does in env; a dataset may help
    online: OnlineConfig = extra(factory=OnlineConfig)  # how much is done and learned, and from what
    log_level: str = extra("INFO")  # DEBUG, INFO, WARNING or ERROR

    def __post_init__(self) -> None:
        if self.policy is None:
            raise ConfigError(
                "Say what to train: --policy.type=NAME, or --policy.path=CHECKPOINT to continue from one."
            )
        for name, least in MINIMUM.items():
            if getattr(self, name) < least:
                raise ConfigError(f"--{name}={getattr(self, name)}: expected at least {least}.")
        for given, what in self._unavailable():
            if given:
                raise ConfigError(f"{what} is not available in this release.")
        if not self.use_policy_training_preset and self.optimizer is None:
            raise ConfigError("--use_policy_training_preset=false needs --optimizer.type=NAME.")
        if self.dataset.streaming and self.loader_workers != "threads":
            raise ConfigError(
                "--dataset.streaming=true is read by threads; leave out "
                f"--loader_workers={self.loader_workers}."
            )
        for is_given, flag in (
            (self.curriculum.difficulty is not None, "--curriculum.difficulty"),
            (self.sample_weighting is not None, "--sample_weighting"),
        ):
            if self.dataset.streaming and is_given:
                raise ConfigError(
                    f"{flag} needs every episode at hand, and --dataset.streaming=true reads them as they "
                    "come. Leave one of them out."
                )
        if self.statistics == "checkpoint" and not self.policy.pretrained_path:
            raise ConfigError("--statistics=checkpoint needs the checkpoint: give --policy.path=CHECKPOINT.")
        if self.statistics == "checkpoint" and self.dataset.stats == "per_dataset":
            raise ConfigError(
                "--statistics=checkpoint and --dataset.stats=per_dataset contradict each other; give one."
            )
        if self.eval_steps > 0 and self.dataset.eval_split == 0:
            raise ConfigError("--eval_steps needs held-out episodes: give --dataset.eval_split=0.1 or so.")
        check_objective(self)
        check_processes(self)
        check_keeping(self)
        check_online(self)

    def _unavailable(self) -> tuple[tuple[bool, str], ...]:
        return (
            (self.reward_model is not None, "--reward_model"),
            (self.job.target not in (None, "local"), "--job.target (remote jobs)"),
            (self.save_checkpoint_to_hub, "--save_checkpoint_to_hub"),
            (self.dataset.repo_type != "dataset", f"--dataset.repo_type={self.dataset.repo_type}"),
        )

    @property
    def uses_ema(self) -> bool:
        """Whether an average of the weights is kept: `ema.enable`, or else the policy's choice."""
        assert self.policy is not None
        return self.policy.uses_ema if self.ema.enable is None else self.ema.enable

    @property
    def name(self) -> str:
        """`job_name`, or one made from environment and policy."""
        assert self.policy is not None
        made = f"{self.env.type}_{self.policy.type}" if self.env else self.policy.type
        return self.job_name or made


MINIMUM = {
    "steps": 1,
    "batch_size": 1,
    "num_workers": 0,
    "prefetch_factor": 1,
    "log_freq": 1,
    "eval_freq": 0,
    "save_freq": 0,
    "gradient_accumulation_steps": 1,
    "eval_workers": 0,
}


def complete(file: Tree, flags: Tree) -> Tree:
    """One tree from file and flags, with the checkpoint's config, resumed run and presets filled in."""
    file, flags = with_weighting_section(file), with_weighting_section(flags)
    config_path = flags.pop("config_path", None)
    if (
        config_path and Path(str(config_path)).name == keys.TRAIN_CONFIG_FILE
    ):  # written by a run, not a person
        file = without_unknown(file, source=str(config_path))
    if origin.is_asked(flags.get("resume", file.get("resume", False))):
        path, flags = origin.resumed(file, flags, config_path=config_path)
        if path != Path(str(config_path)):
            file = without_unknown(apply_aliases(read_file(path), TRAIN_ALIASES), source=str(path))
        origin.say_changes(file, flags)
        if isinstance(file.get("policy"), dict) and "device" in file["policy"]:
            file = merge(file, {"policy": {"device": portable_device(file["policy"]["device"])}})
    tree = merge(file, flags)
    whole = tree.pop("global_batch_size", None)
    if whole and "batch_size" not in flags:  # of a run whose steps stay as large with other processes
        tree |= {"batch_size": whole, "batch_size_is": "global"}
    if isinstance(tree.get("policy"), dict):
        tree["policy"] = fill_from_checkpoint(tree["policy"])
    if str(tree.get("batch_size", "")).strip().lower() == "auto":
        del tree["batch_size"]
        tree["auto_batch_size"] = True
    if origin.is_asked(tree.get("online_training", False)):  # then nothing need have been recorded before
        tree["dataset"] = {"repo_id": []} | _section(tree.get("dataset"))
    if str(tree.get("use_policy_training_preset", True)).lower() == "true":
        _fill_presets(tree, file=file, flags=flags)
    else:
        _choose_schedule(tree, preset=None, given=_section(tree.get("scheduler")))
    return tree


def without_unknown(tree: Tree, *, source: str) -> Tree:
    """The tree of a run's own file without the keys of newer releases, which one warning names."""
    unknown: Tree = {}
    tree = from_other_releases(tree)
    config = decode(TrainConfig, tree, unknown=unknown)
    if not unknown:
        return tree
    logger.warning("%s: unknown keys are not used: %s", source, ", ".join(unknown))
    return encode(config)


def _fill_presets(tree: Tree, *, file: Tree, flags: Tree) -> None:
    """Put the policy's preset under `optimizer` and `scheduler`; what file or flags say of them goes on top.

    A saved file repeats the preset of its own policy settings: those copies are not a user's choice, so that
    `--policy.optimizer_lr` on top of a saved file does what it says.
    """
    policy, before = _decoded(tree.get("policy")), _decoded(file.get("policy"))
    if policy is None:
        return
    optimizer = encode(policy.get_optimizer_preset())
    own = encode(before.get_optimizer_preset()) if before is not None else None
    for given in (_chosen(file.get("optimizer"), own), _section(flags.get("optimizer"))):
        optimizer = _over_preset(optimizer, given)
    tree["optimizer"] = optimizer
    own = encode(before.get_scheduler_preset()) if before is not None else None
    given = merge({"_": _chosen(file.get("scheduler"), own)}, {"_": _section(flags.get("scheduler"))})[
        "_"
    ]  # a type of its own in the flags replaces that of the file
    _choose_schedule(tree, preset=encode(policy.get_scheduler_preset()), given=given)


def _chosen(section: Any, own: Tree | None) -> Tree:
    """What a file says of an optimizer or schedule, without copies of the policy's preset."""
    if not isinstance(section, dict) or not isinstance(own, dict) or section.get("type") != own.get("type"):
        return _section(section)
    return {key: value for key, value in section.items() if key not in own or own[key] != value}


def _over_preset(preset: Tree, given: Tree) -> Tree:
    """The preset with the given fields; another type replaces it whole, unless it is a kind of the same."""
    if "type" in given:
        chosen, own = (OptimizerConfig.get_choice_class(str(one["type"])) for one in (given, preset))
        if issubclass(chosen, own):
            return {**preset, **given}
    return merge({"_": preset}, {"_": given})["_"]


def _choose_schedule(tree: Tree, *, preset: Tree | None, given: Tree) -> None:
    tree["scheduler"] = choose_schedule(
        tree.get("lr_scheduler"),
        preset=preset,
        given=given,
        steps=tree.get("steps"),
        lr=_section(tree.get("optimizer")).get("lr"),
    )


def _section(value: Any) -> Tree:
    if isinstance(value, Text) and value.strip().startswith("{"):
        value = read_section(value)
    return value if isinstance(value, dict) else {}


def _decoded(section: Any) -> PreTrainedConfig | None:
    if not isinstance(section, dict) or "type" not in section:
        return None
    return decode(
        PreTrainedConfig, {k: v for k, v in section.items() if k != "path"}, where="policy", unknown={}
    )


def load_train_config(path: Path, *, is_quiet: bool = False) -> TrainConfig:
    """The config a `train_config.json` holds; other releases' keys are left out, with one warning or none."""
    tree = apply_aliases(read_file(path), TRAIN_ALIASES)
    if is_quiet:
        return decode(TrainConfig, from_other_releases(tree), unknown={})
    return decode(TrainConfig, without_unknown(tree, source=str(path)))
