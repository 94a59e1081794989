"""Whether an environment and a policy speak of the same things, asked before the first step.

environment's features -> its names -> rename_map -> preprocessor -> what the policy reads and writes
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from lerobot.core import keys
from lerobot.core.errors import FeatureMismatchError, suggest
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs.base import EnvConfig
from lerobot.policies.cameras import confirming_flag, propose_cameras
from lerobot.policies.config import PreTrainedConfig
from lerobot.processor.pipeline import DataProcessorPipeline
from lerobot.processor.rename import rename

logger = logging.getLogger(__name__)

Features = Mapping[str, PolicyFeature]
SIZES = ("observation_height", "observation_width")  # fields of environments that draw


def fitting_env(
    config: PreTrainedConfig,
    env_config: EnvConfig,
    preprocessor: DataProcessorPipeline,
    *,
    rename_map: Mapping[str, str],
) -> EnvConfig:
    """The environment; with pictures of the policy's size where its usual ones do not fit.

    A size that somebody asked for is never changed.

    Raises:
        FeatureMismatchError: the two do not fit; names both sides.
    """
    try:
        fitting_names(config, env_config, preprocessor, rename_map=rename_map)
    except FeatureMismatchError as misfit:
        resized = _resized(env_config, config)
        try:
            fitting_names(config, resized, preprocessor, rename_map=rename_map)
        except FeatureMismatchError:
            raise misfit from None
        logger.info(
            "The %s environment draws pictures of %s x %s, the policy's size.",
            env_config.type,
            *(getattr(resized, name) for name in SIZES),
        )
        return resized
    return env_config


def _resized(env_config: EnvConfig, config: PreTrainedConfig) -> EnvConfig:
    """The environment with pictures of the policy's size, if its own is the usual one."""
    usual = {field.name: field.default for field in fields(env_config) if field.name in SIZES}
    wanted = {tuple(feature.shape[1:]) for feature in config.image_features.values()}
    is_usual = all(getattr(env_config, name) == value for name, value in usual.items())
    if len(usual) != len(SIZES) or len(wanted) != 1 or not is_usual:
        return env_config
    size: dict[str, Any] = dict(zip(SIZES, wanted.pop(), strict=True))
    return replace(env_config, **size)


def fitting_names(
    config: PreTrainedConfig,
    env_config: EnvConfig,
    preprocessor: DataProcessorPipeline,
    *,
    rename_map: Mapping[str, str],
) -> dict[str, str]:
    """Every feature of the environment -> the name it has for the preprocessor of a policy that fits it.

    Raises:
        FeatureMismatchError: the two do not fit; names both sides.
    """
    source = f"{env_config.type} environment"
    mapped = rename(env_config.features, env_config.features_map)
    names = new_names(mapped, rename_map, source=source)
    check_fit(config, rename(mapped, names), preprocessor, source=source)
    return {name: names[own] for name, own in zip(env_config.features, mapped, strict=True)}


def new_names(own: Iterable[str], rename_map: Mapping[str, str], *, source: str) -> dict[str, str]:
    """Every name there -> the name it has for the preprocessor.

    Raises:
        FeatureMismatchError: `rename_map` names something that is not there.
    """
    own = list(own)
    strangers = sorted(rename_map.keys() - set(own))
    if strangers:
        raise FeatureMismatchError(
            f"--rename_map renames {strangers[0]!r}, which the {source} lacks.{suggest(strangers[0], own)} "
            f"It has: {', '.join(own)}."
        )
    return {name: rename_map.get(name, name) for name in own}


def check_fit(
    config: PreTrainedConfig, offered: Features, preprocessor: DataProcessorPipeline, *, source: str
) -> None:
    """Return when the policy finds every input with its shape, and its actions fit those that are offered.

    Args:
        offered: what the other side has, under the names that the preprocessor reads.
        source: what the other side is called in messages, "so101 environment".

    Raises:
        FeatureMismatchError: it does not fit; names both sides.
    """
    actions = {name: f for name, f in offered.items() if f.type is FeatureType.ACTION}
    observed = {keys.OBSERVATION: {n: f for n, f in offered.items() if n not in actions}}
    seen = {**preprocessor.transform_features(observed)[keys.OBSERVATION], **actions}
    problems = [
        problem
        for name, feature in {**config.input_features, **config.output_features}.items()
        if (problem := _problem(name, feature, seen, is_shape_free=config.is_shape_free))
    ]
    if problems:
        raise FeatureMismatchError(
            f"The {source} does not fit this {config.type} policy: {'; '.join(problems)}. "
            f"The {source} has {_listed(seen)}. {_advice(config, seen)}"
        )


def _problem(name: str, wanted: PolicyFeature, seen: Features, *, is_shape_free: bool) -> str:
    if wanted.type is FeatureType.LANGUAGE:
        return ""
    if name not in seen:
        # A policy of no fixed shape masks the cameras it lacks.
        may_lack = is_shape_free and wanted.type is FeatureType.VISUAL
        return "" if may_lack else f"the policy needs {name} {list(wanted.shape)}, which is not there"
    if is_shape_free or tuple(seen[name].shape) == tuple(wanted.shape):
        return ""
    return f"{name} is {list(seen[name].shape)} there and {list(wanted.shape)} in the policy"


def _advice(config: PreTrainedConfig, seen: Features) -> str:
    """What to type for the likeliest cause."""
    cameras = config.image_features
    strangers = [n for n, f in seen.items() if f.type is FeatureType.VISUAL and n not in cameras]
    proposal = propose_cameras([name for name in cameras if name not in seen], strangers)
    if proposal:
        pairs = ", ".join(f"{there} = {name}" for there, name in proposal.items())
        return f"Are these the same views: {pairs}? Then type: {confirming_flag(proposal, {})}"
    for name, wanted in cameras.items():
        if name not in seen:
            break
        if tuple(seen[name].shape) != tuple(wanted.shape) and not config.is_shape_free:
            _, height, width = wanted.shape
            return (
                f"An environment with pictures of the policy's size: --env.observation_height={height} "
                f"--env.observation_width={width}"
            )
    return "Give the environment (and its --env.obs_type) or a dataset of the robot it was trained for."


def _listed(features: Features) -> str:
    return ", ".join(f"{name} {list(feature.shape)}" for name, feature in features.items()) or "nothing"
