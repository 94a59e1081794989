"""Adds the batch axis that single observations and dataset items lack."""

from typing import Any

from torch import Tensor

from lerobot.core import keys
from lerobot.core.types import TransitionKey
from lerobot.processor.step import (
    ComplementaryDataProcessorStep,
    EnvTransition,
    ObservationProcessorStep,
    PolicyActionProcessorStep,
    ProcessorStep,
    ProcessorStepRegistry,
)


@ProcessorStepRegistry.register("to_batch_processor_observation")
class AddBatchDimensionObservationStep(ObservationProcessorStep):
    """States (J,) become (1, J), images (C, H, W) become (1, C, H, W); batched ones are kept."""

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation with a batch axis."""
        return {name: _with_axis(value, rank_without_batch(name)) for name, value in observation.items()}


@ProcessorStepRegistry.register("to_batch_processor_action")
class AddBatchDimensionActionStep(PolicyActionProcessorStep):
    """An action (A,) becomes (1, A)."""

    def action(self, action: Tensor) -> Tensor:
        """The action with a batch axis."""
        return _with_axis(action, 1)


@ProcessorStepRegistry.register("to_batch_processor_complementary_data")
class AddBatchDimensionComplementaryDataStep(ComplementaryDataProcessorStep):
    """A task text becomes a list of one, an index () becomes (1,)."""

    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        """The complementary data with a batch axis."""
        changed = dict(complementary_data)
        if isinstance(changed.get(keys.TASK), str):
            changed[keys.TASK] = [changed[keys.TASK]]
        for name in (keys.INDEX, keys.TASK_INDEX):
            if name in changed:
                changed[name] = _with_axis(changed[name], 0)
        return changed


@ProcessorStepRegistry.register("to_batch_processor")
class AddBatchDimensionProcessorStep(ProcessorStep):
    """All three of the above in one step."""

    def __init__(self) -> None:
        self._parts = (
            AddBatchDimensionActionStep(),
            AddBatchDimensionObservationStep(),
            AddBatchDimensionComplementaryDataStep(),
        )

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition with a batch axis in every part."""
        for part in self._parts:
            is_tensor_action = isinstance(transition.get(TransitionKey.ACTION), Tensor)
            if is_tensor_action or not isinstance(part, AddBatchDimensionActionStep):
                transition = part(transition)
        return transition


def rank_without_batch(name: str) -> int | None:
    """How many axes an observation has before it is batched, or None where its name does not tell."""
    if name in (keys.STATE, keys.ENV_STATE):
        return 1
    if name == keys.IMAGE or name.startswith(keys.IMAGES_PREFIX):
        return 3
    return None


def _with_axis(value: Any, rank: int | None) -> Any:
    return value.unsqueeze(0) if isinstance(value, Tensor) and value.ndim == rank else value
