"""What every policy is: a module that learns from batches, acts on observations, lives in a folder.

    batch -> forward -> loss                                                       training
    observation -> [its preprocessor] -> memory -> plan -> memory -> [its postprocessor] -> action   acting

Shapes: B batch, O observations a policy looks at, T actions of a chunk, A action size.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from lerobot.core.errors import CheckpointError, ConfigError, FeatureMismatchError, suggest
from lerobot.core.hub import Repo
from lerobot.nn.loss import Reduction
from lerobot.policies.acting import Acting
from lerobot.policies.adapter import Adapter, find_base, is_adapter, load_adapter
from lerobot.policies.card import model_card
from lerobot.policies.classes import get_policy_class
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.device import asked_device, stored_device
from lerobot.policies.items import ITEMS, counted_by_items, num_items, takes_totals
from lerobot.policies.legacy import is_legacy, split_stats
from lerobot.policies.locate import locate
from lerobot.policies.processors import Stats
from lerobot.policies.weights import load_weights, read_weights, write_weights
from lerobot.processor.defaults import default_steps
from lerobot.processor.step import ProcessorStep

Steps = tuple[list[ProcessorStep], list[ProcessorStep]]
PUBLISHED = ("*.safetensors", "*.json", "*.yaml", "*.md")


def alone(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, where there is one."""
    return value


class PreTrainedPolicy(Acting):
    """Base of all policies. A policy writes `__init__`, `forward` and `plan`.

    **Two ways of acting.** A policy loaded by its path alone, `ACTPolicy.from_pretrained(path)`, carries its
    saved processors: `select_action` takes an observation as it comes from a dataset, a robot or a camera,
    and returns an action in the robot's units. An observation that went through the preprocessor (a
    `ModelInput`) is not processed again and its action stays as the model gives it. A policy that was built
    from a config, or loaded with `config=`, is bare: it never processes, the caller's two pipelines do.

    Class attributes: `config_class`; `name`, the value of `--policy.type`; `has_initial_weights`, whether a
    new one begins with weights from elsewhere, which `initial_weights=False` in `__init__` leaves out because
    a checkpoint has its own; `has_item_losses`, whether `forward` weighs items, which one that takes a batch
    alone does not; `adapter_targets`, which layers `--peft` adapts unless it is told: the ends of their
    names, or a regex over whole names; `has_static_graph`, whether the loss reaches the same parameters at
    every step; `looks_back`, whether `plan` reads the last `n_obs_steps` observations, on an axis O;
    `batch_facts`, names of numbers in the info that speak of one batch and do not add up (a maximum, a count
    of different things): of several batches together the mean of them is shown.

    **Episodes side by side.** `act` takes a batch of episodes with a `Memory` each, which may have begun at
    different times; `select_action` is `act` for episodes that all began at the last `reset`.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    name: ClassVar[str]
    has_initial_weights: ClassVar[bool] = False
    has_item_losses: ClassVar[bool] = True
    adapter_targets: ClassVar[list[str] | str | None] = None
    has_static_graph: ClassVar[bool] = False
    batch_facts: ClassVar[tuple[str, ...]] = ()
    # The sum of a tensor over all processes that train together; training sets it where there are several.
    sum_over_processes: Callable[[Tensor], Tensor] = staticmethod(alone)

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        if "forward" in vars(cls) and not takes_totals(cls.forward):
            cls.forward = counted_by_items(cls.forward)  # type: ignore[method-assign]
            cls.has_item_losses = False

    def __init__(self, config: PreTrainedConfig) -> None:
        """Keep and check the config.

        Raises:
            FeatureMismatchError: its features do not fit this policy.
        """
        super().__init__()
        config.validate_features()
        self.config = config
        self.adapter: Adapter | None = None  # small trained layers on the weights of another checkpoint

    # --- what a policy writes
    def forward(
        self,
        batch: dict[str, Tensor],
        *,
        reduction: Reduction = "mean",
        totals: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """The loss () of a preprocessed batch, and named parts of it for the log, detached.

        A plug-in may write `forward(self, batch)` alone: a mean over items that all count the same.

        Args:
            batch: may hold `loss_weight` (B,), how much each item counts.
            reduction: `none` gives the losses (B,) of single items, whatever their weight.
            totals: what this batch and others have together of each of `loss_totals`. The loss, and the parts
                of it, are then this batch's share: those of all the batches add up to that of one large one.

        Returns a loss, and parts among which may be `item_losses` (B,).
        """
        raise NotImplementedError

    def loss_totals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """How many values () each mean of the loss is over, items counted by their weight; nothing waits."""
        return {ITEMS: num_items(batch)}

    def get_optim_params(self) -> Any:
        """What the optimizer preset is built with: parameters, or groups of them."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def update(self) -> None:
        """Called after each optimizer step: for slow copies, and averages that learn without gradients."""

    def progress(self) -> dict[str, Any]:
        """Plain values that a run goes on from and no weight holds; a checkpoint keeps them."""
        return {}

    def resume(self, progress: Mapping[str, Any], *, step: int) -> None:
        """Called on the policy of a checkpoint whose run goes on, after `step` optimizer steps.

        Args:
            progress: what `progress` gave then; empty in checkpoints of other releases.
        """

    def count_tokens(self, batch: Mapping[str, Any]) -> Tensor | int | None:
        """How many tokens of a preprocessed batch its transformer reads; None where that is no measure of it.

        A tensor () on the device where padding is not counted: nothing waits for it in a step.
        """
        return None

    def enable_grad_checkpointing(self) -> None:
        """Recompute activations in the backward pass instead of keeping them: less memory, more time.

        Raises:
            ConfigError: no part of this policy can.
        """
        stacks = [module for module in self.modules() if hasattr(type(module), "grad_checkpointing")]
        if not stacks:
            raise ConfigError(f"{self.name} has no part that can recompute. Drop --grad_checkpointing.")
        for stack in stacks:
            stack.grad_checkpointing = True  # type: ignore[assignment]

    @property
    def shard_units(self) -> list[nn.Module]:
        """Parts that may be spread over several GPUs one at a time, in the order of use."""
        return []

    @classmethod
    def processor_steps(
        cls, config: PreTrainedConfig, *, stats: Stats | None, dataset_meta: Any = None
    ) -> Steps:
        """The steps before and after this policy; by default: names, batch axis, device, normalisation.

        Args:
            stats: statistics of the dataset, feature -> statistic -> numbers.
            dataset_meta: the dataset's metadata, for policies that need more than its statistics.
        """
        return default_steps(
            input_features=config.input_features,
            output_features=config.output_features,
            norm_map=config.normalization_mapping,  # type: ignore[attr-defined]
            device=str(stored_device(config.device)),
            stats=stats,
        )

    def read(self, batch: Mapping[str, Tensor], name: str) -> Tensor:
        """One entry of a batch.

        Raises:
            FeatureMismatchError: it is not there; the message lists what is.
        """
        if name not in batch:
            there = [key for key, value in batch.items() if isinstance(value, Tensor)]
            raise FeatureMismatchError(
                f"{self.name} needs {name!r} and the batch does not have it.{suggest(name, there)} It has: "
                f"{', '.join(there) or 'nothing'}."
            )
        return batch[name]

    # --- files
    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        strict: bool = True,
        revision: str | None = None,
        device: str | None = None,
        base: str | Path | None = None,
        **parts: Any,
    ) -> Self:
        """The policy of a checkpoint, in eval mode; the class may be `PreTrainedPolicy` itself.

        Args:
            pretrained_name_or_path: a folder with config.json, a checkpoint (`…/checkpoints/002000`,
                `…/checkpoints/last`), the output_dir of a run (its last checkpoint), or a Hub id.
            config: replaces the saved one; the policy is then bare and never processes observations.
            strict: whether missing and left-over weights are an error, or a warning.
            revision: branch, tag or commit of a Hub repository.
            device: where to put it; without it the config's device, or the best one if that is absent.
            base: of an adapter: where the weights are that it was trained on, if not where it says.
            parts: passed on to the class.

        Raises:
            CheckpointError: there is no checkpoint, it belongs to another policy, or its weights do not fit.
            DeviceError: `device` is absent.
        """
        folder = locate(pretrained_name_or_path, revision=revision)
        is_bare = config is not None
        config = PreTrainedConfig.from_pretrained(folder) if config is None else config
        policy_class = class_of(config, cls)
        chosen = stored_device(config.device) if device is None else asked_device(device)
        has_adapter = is_adapter(folder)
        below, name, its_revision = find_base(folder, base=base) if has_adapter else (folder, "", None)
        weights = read_weights(below)
        if is_legacy(below, weights):
            weights, _ = split_stats(weights, config, source=str(below))
        if policy_class.has_initial_weights:
            parts["initial_weights"] = False
        policy: Any = policy_class(config, **parts)
        load_weights(policy, policy.rename_weights(weights), source=str(below), strict=strict)
        if has_adapter:
            load_adapter(policy, folder, base=name, revision=its_revision)
        config.device = str(chosen)
        policy.to(chosen).eval()
        policy._source = None if is_bare else folder
        return policy

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights under this release's names; policies whose names changed override it."""
        return weights

    def saved_weights(self) -> dict[str, Tensor]:
        """The tensors that `save_pretrained` writes, by name: all, or those of its adapter."""
        return self.state_dict() if self.adapter is None else self.adapter.weights(self)

    def save_pretrained(self, folder: str | Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write config.json and model.safetensors (or its adapter's files), and the processors it carries.

        Args:
            weights: what `saved_weights` gave at an earlier instant, or averages; None writes those of now.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.saved_weights() if weights is None else weights
        if self.adapter is not None:
            self.adapter.save(self, folder, weights=weights)
        else:
            self.config.save_pretrained(folder)
            write_weights(self, folder, weights=weights)
        if self._source is not None:
            for pipeline in self.processors:
                pipeline.save_pretrained(folder)

    def push_to_hub(
        self,
        repo_id: str | None = None,
        *,
        private: bool | None = None,
        revision: str | None = None,
        message: str = "Upload policy",
        processors: Iterable[Any] = (),
    ) -> str:
        """Upload config, weights, processors and a model card; returns the address of the commit.

        Args:
            repo_id: user/name, or a name below your own account; the config's when not given.
            processors: pipelines to upload with it, when this policy does not carry its own.

        Raises:
            CheckpointError: no repo_id.
            HubError: the Hub refuses.
        """
        repo_id = repo_id or self.config.repo_id
        if not repo_id:
            raise CheckpointError("No repository to upload to. Type: --policy.repo_id=user/name")
        repo = Repo(repo_id=repo_id).create(private=self.config.private if private is None else private)
        if revision:
            repo.branch(revision)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            for pipeline in processors:
                pipeline.save_pretrained(folder)
            Path(folder, "README.md").write_text(
                model_card(self.config, repo.repo_id, folder=self._source), encoding="utf-8"
            )
            return repo.upload(Path(folder), message=message, revision=revision, patterns=PUBLISHED)


def class_of(config: PreTrainedConfig, cls: type[PreTrainedPolicy]) -> type[PreTrainedPolicy]:
    """The policy class for a config: `cls`, or the registered one when `cls` is the base.

    Raises:
        CheckpointError: the config belongs to another policy.
    """
    if cls is PreTrainedPolicy:
        return get_policy_class(config.type)
    if not isinstance(config, cls.config_class):
        right = get_policy_class(config.type).__name__
        raise CheckpointError(
            f"This is a {config.type!r} policy: load it with {right}, not with {cls.__name__}."
        )
    return cls
