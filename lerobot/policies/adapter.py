"""Small trained adapters on the weights of another checkpoint, by the package `peft`.

Paper: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.

    base checkpoint's weights -> policy -> layers with adapters inside (same forward, other names of weights)
    folder: adapter_config.json, adapter_model.safetensors, config.json with use_peft; no model.safetensors
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.core.errors import CheckpointError
from lerobot.core.files import write_atomically
from lerobot.core.optional import require
from lerobot.policies.locate import is_hub_id, locate

PREFIX = "base_model.model."  # what the package puts before names of weights in its files


@dataclass
class Adapter:
    """The adapters of a policy, and the checkpoint whose weights they were trained on."""

    tuner: Any  # the package's own object around the policy
    base: str  # folder, or Hub id
    revision: str | None = None  # of that Hub id

    def weights(self, policy: Any) -> dict[str, Tensor]:
        """The trained tensors, by the policy's names."""
        return require("peft", extra="peft").get_peft_model_state_dict(policy, save_embedding_layers=False)

    def save(self, policy: Any, folder: Path, *, weights: Mapping[str, Tensor]) -> None:
        """Write the adapters' config and these weights, and the policy's config."""
        config = copy.deepcopy(next(iter(self.tuner.peft_config.values())))
        config.base_model_name_or_path = portable_base(self.base, folder)
        config.revision, config.inference_mode = self.revision, True
        config.auto_mapping = {
            "base_model_class": type(policy).__name__,
            "parent_library": type(policy).__module__,
        }
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # sets have another order in each process
        config.save_pretrained(folder)
        tensors = {PREFIX + name: value.detach().contiguous() for name, value in weights.items()}
        write_atomically(
            folder / keys.ADAPTER_FILE, lambda part: save_file(tensors, part, metadata={"format": "pt"})
        )
        replace(policy.config, use_peft=True, pretrained_path=config.base_model_name_or_path).save_pretrained(
            folder
        )

    def merge(self) -> nn.Module:
        """Fold the adapters into the weights: the policy then has its own names again, and no adapter."""
        policy = self.tuner.merge_and_unload()
        policy.adapter, policy.config.use_peft = None, False
        return policy


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint holds adapters instead of whole weights."""
    return (folder / keys.ADAPTER_CONFIG_FILE).is_file()


def attach(policy: Any, config: Any, *, base: str, revision: str | None = None) -> Adapter:
    """Put new adapters, as the package's config describes them, into a policy; only they are trained then."""
    peft = require("peft", extra="peft")
    tuner = peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](policy, config, "default")
    policy.adapter = Adapter(tuner, base, revision)
    policy.config.use_peft = True
    return policy.adapter


def find_base(folder: Path, *, base: str | Path | None = None) -> tuple[Path, str, str | None]:
    """The folder of the weights below an adapter, how they are called, and their revision on the Hub.

    Args:
        base: where they are, if not where the adapter says.

    Raises:
        CheckpointError: they are not there.
    """
    config = require("peft", extra="peft").PeftConfig.from_pretrained(str(folder))
    wanted = str(base or config.base_model_name_or_path or "")
    beside = folder / wanted
    name = str(beside.resolve()) if wanted and beside.exists() else wanted
    try:
        if not wanted or not (Path(name).exists() or is_hub_id(wanted)):
            raise CheckpointError("nothing is there")
        return locate(name, revision=config.revision), name, config.revision
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} is an adapter on the weights of {wanted or 'a checkpoint it does not name'}, which "
            f"cannot be read: {error}. Write where they are into base_model_name_or_path of "
            f"{folder / keys.ADAPTER_CONFIG_FILE}, or give from_pretrained base=FOLDER."
        ) from error


def load_adapter(policy: Any, folder: Path, *, base: str, revision: str | None) -> None:
    """Put the adapters of a folder into a policy that has the weights of their base, ready to be trained.

    Raises:
        CheckpointError: the adapters are not there, damaged, or of another policy.
    """
    peft = require("peft", extra="peft")
    path = folder / keys.ADAPTER_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds {keys.ADAPTER_CONFIG_FILE} and no {keys.ADAPTER_FILE}.")
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False
    weights = {name.removeprefix(PREFIX): value for name, value in load_file(path).items()}
    try:
        wanted = attach(policy, config, base=base, revision=revision).weights(policy)
        strangers = peft.set_peft_model_state_dict(policy, weights).unexpected_keys
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"The adapter in {folder} does not fit this policy: {error}") from error
    problems = [*strangers, *(wanted.keys() - weights.keys())]
    if problems:
        raise CheckpointError(
            f"The adapter in {folder} does not fit this policy: {len(problems)} weights are missing or left "
            f"over, such as {sorted(problems)[0]}."
        )


def portable_base(base: str, folder: Path) -> str:
    """How an adapter in `folder` names its base: a Hub id, or a path that holds when both move together."""
    if not Path(base).expanduser().exists():
        return base
    path, folder = Path(base).expanduser().resolve(), folder.resolve()
    shared = os.path.commonpath([path, folder])
    return str(path) if shared == path.anchor else os.path.relpath(path, folder)
