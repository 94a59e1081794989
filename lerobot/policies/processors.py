"""The two pipelines around a policy: stored ones, new ones, and those of checkpoints older than pipelines.

folder with pipelines    -> loaded, on this config's device, with new statistics when they are given
folder from before 0.4   -> the policy's own steps, statistics from the weights
no folder                -> the policy's own steps, statistics of the dataset
"""

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.core import keys
from lerobot.core.errors import CheckpointError, ConfigError, suggest
from lerobot.policies.classes import get_policy_class, sibling
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.device import stored_device
from lerobot.policies.legacy import read_stats
from lerobot.policies.locate import locate
from lerobot.processor.defaults import Overrides, Pair, load_policy_pipelines, policy_pipelines
from lerobot.processor.step import ProcessorStep, registered_name
from lerobot.processor.store import has_pipeline

DEVICE_STEP, NORMALIZER, UNNORMALIZER = "device_processor", "normalizer_processor", "unnormalizer_processor"
Stats = Mapping[str, Mapping[str, Any]]


def make_pre_post_processors(
    policy_cfg: PreTrainedConfig,
    pretrained_path: str | Path | None = None,
    *,
    pretrained_revision: str | None = None,
    dataset_stats: Stats | None = None,
    dataset_meta: Any = None,
    preprocessor_overrides: Overrides | None = None,
    postprocessor_overrides: Overrides | None = None,
    preprocessor_config_filename: str = f"{keys.PREPROCESSOR}.json",
    postprocessor_config_filename: str = f"{keys.POSTPROCESSOR}.json",
) -> Pair:
    """Pre- and postprocessor of a policy.

    Args:
        pretrained_path: where stored ones are (any spelling of a checkpoint); without it they are built new.
        dataset_stats: statistics of the dataset; they replace stored ones, together with features and modes.
        dataset_meta: metadata of the dataset, for policies whose steps need more than statistics.
        preprocessor_overrides: registered step name -> constructor arguments that win over all others.
        postprocessor_overrides: the same after the policy.

    Raises:
        CheckpointError: `pretrained_path` holds no processors and no statistics.
        ConfigError: an override names no step.
    """
    before, after = dict(preprocessor_overrides or {}), dict(postprocessor_overrides or {})
    if pretrained_path is None:
        pair = new_pair(policy_cfg, stats=dataset_stats, dataset_meta=dataset_meta)
        return overridden(pair[0], before), overridden(pair[1], after)
    folder = locate(pretrained_path, revision=pretrained_revision)
    if not has_pipeline(folder, preprocessor_config_filename):
        stats = read_stats(folder, policy_cfg) if dataset_stats is None else dataset_stats
        if stats is None:
            raise CheckpointError(
                f"{folder} holds neither {preprocessor_config_filename} nor statistics among its weights, so "
                "nothing can be scaled as it was in training. Give the folder of a complete checkpoint with "
                "--policy.path=FOLDER, or in Python dataset_stats=dataset.meta.stats."
            )
        pair = new_pair(policy_cfg, stats=stats, dataset_meta=dataset_meta)
        return overridden(pair[0], before), overridden(pair[1], after)
    own_before, own_after = own_overrides(policy_cfg, dataset_stats)
    names = (Path(preprocessor_config_filename).stem, Path(postprocessor_config_filename).stem)
    return load_policy_pipelines(
        folder,
        before_overrides=merged(
            own_before, before, steps=stored_names(folder / preprocessor_config_filename)
        ),
        after_overrides=merged(own_after, after, steps=stored_names(folder / postprocessor_config_filename)),
        names=names,
    )


def new_pair(config: PreTrainedConfig, *, stats: Stats | None, dataset_meta: Any = None) -> Pair:
    """Pipelines of the policy's own steps, or of a third party's `make_<type>_pre_post_processors`."""
    module_name = sibling(type(config), "processor", "processor")
    if importlib.util.find_spec(module_name) is not None:
        make = getattr(importlib.import_module(module_name), f"make_{config.type}_pre_post_processors", None)
        if make is not None:
            return make(config, dataset_stats=stats)
    before, after = get_policy_class(config.type).processor_steps(
        config, stats=stats, dataset_meta=dataset_meta
    )
    return policy_pipelines(before, after)


def own_overrides(config: PreTrainedConfig, stats: Stats | None) -> tuple[dict[str, dict], dict[str, dict]]:
    """What this config changes in stored pipelines: the device, and with new statistics, normalisation."""
    before: dict[str, dict] = {DEVICE_STEP: {"device": str(stored_device(config.device))}}
    after: dict[str, dict] = {}
    if stats is not None:
        scale = {"norm_map": config.normalization_mapping, "stats": stats}  # type: ignore[attr-defined]
        before[NORMALIZER] = {"features": {**config.input_features, **config.output_features}, **scale}
        after[UNNORMALIZER] = {"features": config.output_features, **scale}
    return before, after


def merged(ours: dict[str, dict], given: Overrides, *, steps: set[str]) -> dict[str, dict]:
    """Both overrides; `given` wins, and ours are left out where the pipeline has no such step."""
    kept = {name: values for name, values in ours.items() if name in steps}
    return {name: {**kept.get(name, {}), **given.get(name, {})} for name in {**kept, **given}}


def stored_names(path: Path) -> set[str]:
    """Registered names of the steps of a pipeline file."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as a pipeline: {error}") from error
    return {step.get("registry_name", "") for step in steps}


def overridden(pipeline: Any, overrides: Overrides) -> Any:
    """A new pipeline with some constructor arguments replaced, statistics kept.

    Raises:
        ConfigError: an override names no step.
    """
    names = [registered_name(step) or "" for step in pipeline.steps]
    for name in overrides:
        if name not in names:
            known = [known for known in names if known]
            raise ConfigError(
                f"There is no step {name!r} to override.{suggest(name, known)} Steps: {', '.join(known)}."
            )
    pipeline.steps = [
        rebuilt(step, overrides[name]) if name in overrides else step
        for step, name in zip(pipeline.steps, names, strict=True)
    ]
    return pipeline


def rebuilt(step: ProcessorStep, changes: Mapping[str, Any]) -> ProcessorStep:
    """The step with other constructor arguments."""
    new = type(step)(**{**step.get_config(), **changes})
    if "stats" not in changes:
        new.load_state_dict(step.state_dict())
    return new
