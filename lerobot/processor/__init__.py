"""Steps between the world and a model."""

import importlib
from typing import Any

_LAZY = {
    "ActionProcessorStep": "lerobot.processor.step",
    "AddBatchDimensionProcessorStep": "lerobot.processor.batch",
    "ComplementaryDataProcessorStep": "lerobot.processor.step",
    "DataProcessorPipeline": "lerobot.processor.pipeline",
    "DeviceProcessorStep": "lerobot.processor.device",
    "EnvTransition": "lerobot.processor.step",
    "IdentityProcessorStep": "lerobot.processor.pipeline",
    "ModelInput": "lerobot.processor.pipeline",
    "NormalizerProcessorStep": "lerobot.processor.normalize",
    "ObservationProcessorStep": "lerobot.processor.step",
    "PolicyAction": "lerobot.processor.step",
    "PolicyActionProcessorStep": "lerobot.processor.step",
    "PolicyProcessorPipeline": "lerobot.processor.pipeline",
    "ProcessorStep": "lerobot.processor.step",
    "ProcessorStepRegistry": "lerobot.processor.step",
    "RenameObservationsProcessorStep": "lerobot.processor.rename",
    "ResizeImagesProcessorStep": "lerobot.processor.images",
    "RobotAction": "lerobot.processor.step",
    "RobotActionProcessorStep": "lerobot.processor.step",
    "RobotObservation": "lerobot.processor.step",
    "RobotProcessorPipeline": "lerobot.processor.pipeline",
    "TransitionKey": "lerobot.core.types",
    "UnnormalizerProcessorStep": "lerobot.processor.normalize",
    "VanillaObservationProcessorStep": "lerobot.processor.observation",
    "batch_to_transition": "lerobot.processor.converters",
    "create_transition": "lerobot.processor.converters",
    "default_steps": "lerobot.processor.defaults",
    "policy_action_to_transition": "lerobot.processor.converters",
    "policy_pipelines": "lerobot.processor.defaults",
    "transition_to_batch": "lerobot.processor.converters",
    "transition_to_policy_action": "lerobot.processor.converters",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
