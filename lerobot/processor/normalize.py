"""Scaling of features by statistics of the dataset, and back.

    MEAN_STD                (x - mean) / (std + eps)              x * std + mean
    MIN_MAX                 2 (x - min) / d - 1                   (x + 1) / 2 * d + min
    QUANTILES, QUANTILE10   as MIN_MAX with q01 and q99, or q10 and q90
    IDENTITY                x                                     x

where d = max - min, or eps where that is 0. Nothing is clamped.

File format: one float32 tensor per statistic, `<feature>.<statistic>`, for every feature of the dataset.
Images have statistics (C, 1, 1), everything else one number per dimension.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import ConfigError, MissingStatsError
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature, TransitionKey
from lerobot.processor.step import EnvTransition, ProcessorStep, ProcessorStepRegistry

Stats = dict[str, dict[str, Tensor]]  # feature -> statistic -> values

# The two statistics each mode reads: for MEAN_STD shift and spread, else lower and upper end.
STATS_OF_MODE = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}


class _StatsStep(ProcessorStep):
    """What normalising and undoing it share: declared features, modes, statistics and their checks."""

    def __init__(
        self,
        features: Mapping[str, PolicyFeature | Mapping[str, Any]],
        norm_map: Mapping[FeatureType | str, NormalizationMode | str],
        stats: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        device: torch.device | str | None = None,
        eps: float = 1e-8,
        normalize_observation_keys: Iterable[str] | None = None,
    ) -> None:
        """A step for the declared features.

        Args:
            features: feature name -> kind and shape; only these are touched.
            norm_map: kind of feature -> mode; kinds that are not named are left as they are.
            stats: statistics of the dataset, as lists, arrays or tensors; no stored file replaces them.
            device: where to keep the statistics until the first tensor says where it lives.
            normalize_observation_keys: the observations to touch; all declared ones when None.
        """
        self.features = {name: _as_feature(feature) for name, feature in features.items()}
        self.norm_map = {FeatureType(kind): NormalizationMode(mode) for kind, mode in norm_map.items()}
        self.eps = eps
        self.normalize_observation_keys = (
            None if normalize_observation_keys is None else set(normalize_observation_keys)
        )
        self.has_given_stats = bool(stats)
        self._device = device
        self._set_stats(as_stats(stats or {}))

    # --- files
    def get_config(self) -> dict[str, Any]:
        """eps, features and norm_map, and the observation keys when they were chosen."""
        config: dict[str, Any] = {
            "eps": self.eps,
            "features": {
                name: {"type": feature.type.value, "shape": list(feature.shape)}
                for name, feature in self.features.items()
            },
            "norm_map": {kind.value: mode.value for kind, mode in self.norm_map.items()},
        }
        if self.normalize_observation_keys is not None:
            config["normalize_observation_keys"] = sorted(self.normalize_observation_keys)
        return config

    def state_dict(self) -> dict[str, Tensor]:
        """`<feature>.<statistic>` -> values."""
        return {
            f"{name}.{stat}": value.cpu() for name, own in self.stats.items() for stat, value in own.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take stored statistics, unless the constructor was given some: the dataset at hand wins."""
        if self.has_given_stats:
            return
        stats: Stats = {}
        for key, value in state.items():
            feature, _, stat = key.rpartition(".")  # feature names hold dots themselves
            stats.setdefault(feature, {})[stat] = value
        self._set_stats(as_stats(stats))

    def _set_stats(self, stats: Stats) -> None:
        self.stats = {
            name: {k: self._as_image_stat(name, v) for k, v in own.items()} for name, own in stats.items()
        }
        if self._device is not None:
            self.stats = {
                name: {k: v.to(self._device) for k, v in own.items()} for name, own in self.stats.items()
            }
        self._ready: dict[tuple, tuple[Tensor, Tensor]] = {}

    def _as_image_stat(self, name: str, value: Tensor) -> Tensor:
        """Per-channel numbers of a declared image as (C, 1, 1)."""
        feature = self.features.get(name)
        is_image = feature is not None and feature.type is FeatureType.VISUAL
        return value.reshape(-1, 1, 1) if is_image and value.ndim == 1 else value

    # --- work
    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition with every declared feature scaled that is present."""
        changed = dict(transition)
        observation = transition.get(TransitionKey.OBSERVATION)
        if observation is not None:
            changed[TransitionKey.OBSERVATION] = self._scale_observation(observation)
        action = transition.get(TransitionKey.ACTION)
        if action is not None:
            if not isinstance(action, Tensor):
                raise ConfigError(
                    f"{type(self).__name__} scales action tensors, but was given {type(action).__name__}."
                )
            if keys.ACTION in self.features or keys.ACTION in self.stats:
                changed[TransitionKey.ACTION] = self._scale(keys.ACTION, FeatureType.ACTION, action)
        return changed

    def _scale_observation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        scaled = dict(observation)
        for name, feature in self.features.items():
            is_chosen = self.normalize_observation_keys is None or name in self.normalize_observation_keys
            value = observation.get(name)
            if feature.type is not FeatureType.ACTION and is_chosen and isinstance(value, Tensor):
                scaled[name] = self._scale(name, feature.type, value)
        return scaled

    def _scale(self, name: str, kind: FeatureType, value: Tensor) -> Tensor:
        mode = self.norm_map.get(kind, NormalizationMode.IDENTITY)
        if mode is NormalizationMode.IDENTITY:
            return value
        if not value.is_floating_point():
            value = self._as_float(name, kind, value)
        # Half precision is too coarse for statistics: 170.3 degrees would be 170, and eps 0.
        wide = value if value.dtype in (torch.float32, torch.float64) else value.float()
        return self._formula(mode, wide, *self._numbers(name, mode, wide)).to(value.dtype)

    def _formula(self, mode: NormalizationMode, value: Tensor, first: Tensor, second: Tensor) -> Tensor:
        raise NotImplementedError

    def _as_float(self, name: str, kind: FeatureType, value: Tensor) -> Tensor:
        if kind is FeatureType.VISUAL:
            raise ConfigError(
                f"{name} holds {value.dtype} pixels, but its statistics are of pixels in [0, 1]. "
                "Divide the picture by 255 first (observation_processor does it for environments)."
            )
        return value.float()

    def _numbers(self, name: str, mode: NormalizationMode, value: Tensor) -> tuple[Tensor, Tensor]:
        """The two checked statistics of a mode, on the value's device and in its precision.

        For MEAN_STD mean and std; else the lower end and the range, which is eps where there is none.
        """
        key = (name, value.device, value.dtype)
        if key not in self._ready:
            with torch.inference_mode(False):  # kept, and possibly used with gradients later
                first, second = (stat.to(value.device, value.dtype) for stat in self._checked(name, mode))
                if mode is not NormalizationMode.MEAN_STD:
                    span = second - first
                    second = torch.where(span == 0, torch.full_like(span, self.eps), span)
            self._ready[key] = (first, second)
        for numbers in self._ready[key]:
            if not _fits(numbers.shape, value.shape):
                raise MissingStatsError(
                    f"The {mode} statistics of {name} have shape {tuple(numbers.shape)}, which does not fit "
                    f"a tensor of shape {tuple(value.shape)}: they are those of another dataset. {HOW_TO_FIX}"
                )
        return self._ready[key]

    def lacking(self) -> dict[str, NormalizationMode]:
        """Declared features whose mode needs statistics that are missing or not finite -> that mode."""
        chosen = self.normalize_observation_keys
        modes = {
            name: self.norm_map.get(feature.type, NormalizationMode.IDENTITY)
            for name, feature in self.features.items()
            if feature.type is FeatureType.ACTION or chosen is None or name in chosen
        }
        return {
            name: mode
            for name, mode in modes.items()
            for found in [self.stats.get(name, {})]
            if not all(
                stat in found and bool(torch.isfinite(found[stat]).all())
                for stat in STATS_OF_MODE.get(mode, ())
            )
        }

    def _checked(self, name: str, mode: NormalizationMode) -> tuple[Tensor, Tensor]:
        """Statistics that exist and are finite.

        Raises:
            MissingStatsError: they are not; scaling with anything else would move a robot wrongly.
        """
        found = self.stats.get(name, {})
        wanted = STATS_OF_MODE[mode]
        missing = [stat for stat in wanted if stat not in found]
        if missing:
            raise MissingStatsError(_missing_message(name, mode, missing, found, list(self.stats)))
        for stat in wanted:
            if not bool(torch.isfinite(found[stat]).all()):
                raise MissingStatsError(
                    f"{name}.{stat}, which {mode} needs, holds values that are not finite: "
                    f"{found[stat].flatten().tolist()}. {HOW_TO_FIX}"
                )
        return found[wanted[0]], found[wanted[1]]


@ProcessorStepRegistry.register("normalizer_processor")
class NormalizerProcessorStep(_StatsStep):
    """Scales the declared observations and the action to what a policy was trained on."""

    def _formula(self, mode: NormalizationMode, value: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if mode is NormalizationMode.MEAN_STD:
            return (value - first) / (second + self.eps)
        return 2 * (value - first) / second - 1


@ProcessorStepRegistry.register("unnormalizer_processor")
class UnnormalizerProcessorStep(_StatsStep):
    """Scales a policy's action (and declared observations) back to the units of the dataset."""

    def _formula(self, mode: NormalizationMode, value: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if mode is NormalizationMode.MEAN_STD:
            return value * second + first
        return (value + 1) / 2 * second + first


HOW_TO_FIX = (
    "Pass the dataset's own statistics (stats=dataset.meta.stats), compute them again when the dataset's "
    "meta/stats.json lacks them, or set that kind of feature to IDENTITY in --policy.normalization_mapping."
)


def _missing_message(name: str, mode: str, missing: list[str], found: Mapping, features: list[str]) -> str:
    has = f"it has {', '.join(sorted(found))}" if found else "it has no statistics at all"
    have = f" There are statistics of {', '.join(sorted(features))}." if features and not found else ""
    return f"{name} is scaled by {mode}, which needs {' and '.join(missing)}, but {has}.{have} {HOW_TO_FIX}"


def _fits(stat: torch.Size, value: torch.Size) -> bool:
    """Whether a statistic applies to the last axes of a value without widening it."""
    last = value[len(value) - len(stat) :] if len(stat) <= len(value) else None
    return last is not None and all(s in (1, v) for s, v in zip(stat, last, strict=True))


def _as_feature(feature: PolicyFeature | Mapping[str, Any]) -> PolicyFeature:
    if isinstance(feature, Mapping):
        return PolicyFeature(FeatureType(feature["type"]), tuple(feature["shape"]))
    return feature


def as_stats(stats: Mapping[str, Mapping[str, Any]]) -> Stats:
    """Statistics given as lists, arrays or tensors, as float32 tensors of at least one axis."""
    return {
        name: {
            stat: torch.as_tensor(value).detach().to(torch.float32, copy=True).cpu()
            for stat, value in own.items()
        }
        for name, own in stats.items()
    }
