"""The small vocabulary every floor shares: kinds of features, how they are normalised, their shapes."""

from dataclasses import dataclass
from enum import StrEnum

from lerobot.core import keys


class _PlainEnum(StrEnum):
    """A string enum that prints as its value also inside containers, so `str(dict)` parses back as YAML."""

    def __repr__(self) -> str:
        return repr(self.value)


class FeatureType(_PlainEnum):
    """What a feature is to a policy."""

    STATE = "STATE"
    VISUAL = "VISUAL"
    ENV = "ENV"
    ACTION = "ACTION"
    REWARD = "REWARD"
    LANGUAGE = "LANGUAGE"


class NormalizationMode(_PlainEnum):
    """How a feature is scaled before it reaches a policy."""

    MIN_MAX = "MIN_MAX"
    MEAN_STD = "MEAN_STD"
    IDENTITY = "IDENTITY"
    QUANTILES = "QUANTILES"
    QUANTILE10 = "QUANTILE10"


class PipelineFeatureType(_PlainEnum):
    """Which of a pipeline's two feature tables a feature belongs to."""

    ACTION = "ACTION"
    OBSERVATION = "OBSERVATION"


@dataclass(frozen=True, repr=False)
class PolicyFeature:
    """One input or output of a policy: kind, and shape without batch and time axes; images are (C, H, W)."""

    type: FeatureType
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"{{'type': {self.type!r}, 'shape': {list(self.shape)}}}"


class TransitionKey(_PlainEnum):
    """The parts of what flows between processor steps."""

    OBSERVATION = "observation"
    ACTION = "action"
    REWARD = "reward"
    DONE = "done"
    TRUNCATED = "truncated"
    INFO = "info"
    COMPLEMENTARY_DATA = "complementary_data"


def policy_features(dataset_features: dict[str, dict]) -> dict[str, PolicyFeature]:
    """Policy features of a dataset's feature table; columns that no policy reads are left out.

    Images declared (H, W, C) come out as (C, H, W).
    """
    found = {}
    for name, feature in dataset_features.items():
        kind = _feature_type(name, feature["dtype"])
        if kind is None:
            continue
        shape = tuple(feature["shape"])
        if kind is FeatureType.VISUAL:
            shape = image_shape(feature)
        found[name] = PolicyFeature(kind, shape)
    return found


def image_shape(feature: dict) -> tuple[int, ...]:
    """(C, H, W) of an image or video feature, whichever order its declaration uses."""
    shape, names = tuple(feature["shape"]), feature.get("names")
    is_channel_last = (
        isinstance(names, (list, tuple)) and len(names) == 3 and names[2] in ("channel", "channels")
    )
    if not isinstance(names, (list, tuple)):
        is_channel_last = shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4)
    return (shape[2], shape[0], shape[1]) if is_channel_last else shape


def _feature_type(name: str, dtype: str) -> FeatureType | None:
    if dtype in ("image", "video"):
        return FeatureType.VISUAL
    if dtype in ("string", "language"):
        return None
    if name == keys.ENV_STATE:
        return FeatureType.ENV
    if name.startswith(keys.OBSERVATION):
        return FeatureType.STATE
    if name.startswith(keys.ACTION):
        return FeatureType.ACTION
    return None
