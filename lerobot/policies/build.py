"""Config -> policy, ready to train or to act: features filled in or compared, weights loaded, on its device.

dataset or environment --features--> config --class--> policy
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lerobot.core.errors import ConfigError, FeatureMismatchError, suggest
from lerobot.core.types import FeatureType, PolicyFeature, policy_features
from lerobot.policies.cameras import confirming_flag, propose_cameras
from lerobot.policies.classes import get_policy_class
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.device import asked_device
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.policies.processors import make_pre_post_processors

__all__ = ["get_policy_class", "make_policy", "make_pre_post_processors"]

Features = Mapping[str, PolicyFeature]


def make_policy(
    cfg: PreTrainedConfig,
    ds_meta: Any = None,
    env_cfg: Any = None,
    rename_map: Mapping[str, str] | None = None,
    *,
    image_shapes: Mapping[str, Sequence[int]] | None = None,
) -> PreTrainedPolicy:
    """A policy for a dataset or an environment: with the weights of `cfg.pretrained_path`, or new ones.

    Empty `input_features` and `output_features` of `cfg` are filled in, in place, so that pipelines made from
    the same config know them.

    Args:
        ds_meta: metadata of the dataset (`features` is read).
        env_cfg: config of the environment (`features` and `features_map` are read).
        rename_map: name of a feature there -> name in the policy.
        image_shapes: cameras that are resized on the way, policy's name -> (C, H, W).

    Raises:
        ConfigError: both sources are given, or none while `cfg` has no features.
        FeatureMismatchError: the features do not fit the policy.
        CheckpointError: the checkpoint is missing or does not fit.
        DeviceError: `cfg.device` is absent; for a checkpoint's device that is only a warning.
    """
    if ds_meta is not None and env_cfg is not None:
        raise ConfigError(
            "Give make_policy the metadata of a dataset or the config of an environment, not both."
        )
    offered = offered_features(ds_meta, env_cfg, rename_map or {})
    if offered is not None:
        for name, shape in (image_shapes or {}).items():
            offered[name] = PolicyFeature(FeatureType.VISUAL, tuple(shape))
        source = "dataset" if env_cfg is None else "environment"
        adopt_features(cfg, offered, source=source, rename_map=rename_map or {})
    elif not cfg.output_features:
        raise ConfigError("The policy has no features yet: give make_policy ds_meta=… or env_cfg=….")
    policy_class = get_policy_class(cfg.type)
    if cfg.pretrained_path:
        return policy_class.from_pretrained(cfg.pretrained_path, config=cfg, revision=cfg.pretrained_revision)
    device = asked_device(cfg.device)
    cfg.device = str(device)
    return policy_class(cfg).to(device)


def offered_features(
    ds_meta: Any, env_cfg: Any, rename_map: Mapping[str, str]
) -> dict[str, PolicyFeature] | None:
    """What a dataset or an environment has, under the policy's names; None without either."""
    if ds_meta is not None:
        features: Features = policy_features(ds_meta.features)
    elif env_cfg is not None:
        features = {env_cfg.features_map.get(name, name): f for name, f in env_cfg.features.items()}
    else:
        return None
    strangers = rename_map.keys() - features.keys()
    if strangers:
        name = sorted(strangers)[0]
        raise FeatureMismatchError(
            f"--rename_map renames {name!r}, which is not there.{suggest(name, features)} There are: "
            f"{', '.join(features)}."
        )
    return {rename_map.get(name, name): feature for name, feature in features.items()}


def adopt_features(
    cfg: PreTrainedConfig, offered: Features, *, source: str, rename_map: Mapping[str, str]
) -> None:
    """Fill the config's empty feature tables; compare the others with what is offered.

    Cameras are matched by name. Where names differ the error proposes pairs, and the `--rename_map` that
    accepts them: a picture of the wrong view is never fed in silence.

    Raises:
        FeatureMismatchError: there are no actions, a feature is missing, or has another shape.
    """
    actions = {name: f for name, f in offered.items() if f.type is FeatureType.ACTION}
    if not actions:
        raise FeatureMismatchError(
            f"The {source} has no actions, so there is nothing to imitate. It has: "
            f"{', '.join(offered) or 'nothing'}."
        )
    if not cfg.input_features:
        cfg.input_features = {name: f for name, f in offered.items() if name not in actions}
    if not cfg.output_features or cfg.is_shape_free:
        cfg.output_features = actions
    wanted = {**cfg.input_features, **cfg.output_features}
    problems = missing(wanted, offered, cfg) + misshapen(wanted, offered, cfg)
    if problems:
        there = ", ".join(f"{name} {list(f.shape)}" for name, f in offered.items())
        raise FeatureMismatchError(
            f"The {source} does not fit this {cfg.type} policy: {'; '.join(problems)}. "
            f"The {source} has: {there}. {_advice(wanted, offered, rename_map)}"
        )


def _advice(wanted: Features, offered: Features, rename_map: Mapping[str, str]) -> str:
    """What to type: the pairs of cameras that only differ by name, or how sizes and parts are changed."""
    lacking = [n for n, f in wanted.items() if f.type is FeatureType.VISUAL and n not in offered]
    strangers = [n for n, f in offered.items() if f.type is FeatureType.VISUAL and n not in wanted]
    proposal = propose_cameras(lacking, strangers)
    names = (
        f"Are these the same views: {', '.join(f'{there} = {name}' for there, name in proposal.items())}? "
        f"Then type: {confirming_flag(proposal, rename_map)} . "
        if proposal
        else ""
    )
    return (
        f"{names}For another size of picture: --policy.input_shapes.CAMERA=[C,H,W]; to start anew, give "
        "--policy.type without --policy.path."
    )


def missing(wanted: Features, offered: Features, cfg: PreTrainedConfig) -> list[str]:
    """Features the policy has and the other side lacks, as sentences."""
    absent = [
        name for name in wanted if name not in offered and wanted[name].type is not FeatureType.LANGUAGE
    ]
    if cfg.is_shape_free:  # absent cameras are masked, as long as none is a stranger
        cameras = {name for name, f in offered.items() if f.type is FeatureType.VISUAL}
        is_subset = cameras <= wanted.keys()
        absent = [n for n in absent if wanted[n].type is FeatureType.VISUAL and not is_subset]
    return [
        f"the policy reads or writes {name} {list(wanted[name].shape)}, which is not there" for name in absent
    ]


def misshapen(wanted: Features, offered: Features, cfg: PreTrainedConfig) -> list[str]:
    """Features whose shapes differ, as sentences; the size of images counts for trained policies only."""
    if cfg.is_shape_free:
        return []
    found = []
    for name in wanted.keys() & offered.keys():
        ours, theirs = wanted[name].shape, offered[name].shape
        if wanted[name].type is FeatureType.VISUAL and not cfg.pretrained_path:
            ours, theirs = ours[:1], theirs[:1]
        if ours != theirs:
            found.append(f"{name} has shape {list(theirs)} there and {list(ours)} in the policy")
    return sorted(found)
