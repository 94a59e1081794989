"""The pair of pipelines that most policies use, and how any policy's pair is wrapped and loaded.

before: rename, batch axis, device, normalise            after: unnormalise, back to the CPU
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lerobot.core import keys
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.processor.batch import AddBatchDimensionProcessorStep
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.processor.device import DeviceProcessorStep
from lerobot.processor.images import ResizeImagesProcessorStep
from lerobot.processor.normalize import NormalizerProcessorStep, UnnormalizerProcessorStep
from lerobot.processor.pipeline import PolicyProcessorPipeline
from lerobot.processor.rename import RenameObservationsProcessorStep
from lerobot.processor.step import ProcessorStep

Overrides = Mapping[str, Mapping[str, Any]]
Pair = tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]


def default_steps(
    *,
    input_features: Mapping[str, PolicyFeature],
    output_features: Mapping[str, PolicyFeature],
    norm_map: Mapping[FeatureType | str, NormalizationMode | str],
    device: str | None = None,
    stats: Mapping[str, Mapping[str, Any]] | None = None,
    image_shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[list[ProcessorStep], list[ProcessorStep]]:
    """The default steps before and after a policy.

    Args:
        stats: statistics of the dataset, feature -> statistic -> values.
        image_shapes: cameras to resize, feature -> [height, width]; without it there is no such step.
    """
    before: list[ProcessorStep] = [
        RenameObservationsProcessorStep(),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device or "cpu"),
        NormalizerProcessorStep({**input_features, **output_features}, norm_map, stats),
    ]
    if image_shapes:
        before.insert(1, ResizeImagesProcessorStep(image_shapes))
    after: list[ProcessorStep] = [
        UnnormalizerProcessorStep(output_features, norm_map, stats),
        DeviceProcessorStep("cpu"),
    ]
    return before, after


def policy_pipelines(before: Sequence[ProcessorStep], after: Sequence[ProcessorStep]) -> Pair:
    """Pre- and postprocessor of a policy: batch -> `ModelInput`, and action tensor -> action tensor."""
    return (
        PolicyProcessorPipeline(before, name=keys.PREPROCESSOR),
        PolicyProcessorPipeline(
            after,
            name=keys.POSTPROCESSOR,
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )


def load_policy_pipelines(
    source: str | Path,
    *,
    before_overrides: Overrides | None = None,
    after_overrides: Overrides | None = None,
    revision: str | None = None,
    trusted_classes: Collection[str] = (),
    names: tuple[str, str] = (keys.PREPROCESSOR, keys.POSTPROCESSOR),
) -> Pair:
    """The pre- and postprocessor stored with a policy; see `PolicyProcessorPipeline.from_pretrained`."""
    before, after = names
    return (
        PolicyProcessorPipeline.from_pretrained(
            source,
            f"{before}.json",
            overrides=before_overrides,
            revision=revision,
            trusted_classes=trusted_classes,
        ),
        PolicyProcessorPipeline.from_pretrained(
            source,
            f"{after}.json",
            overrides=after_overrides,
            revision=revision,
            trusted_classes=trusted_classes,
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )
