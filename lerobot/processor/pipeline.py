"""Pipelines: a list of steps, saved and loaded as one JSON file and the tensors beside it.

batch --to_transition--> transition --step 0--> ... --step n--> transition --to_output--> batch or action
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

from lerobot.core.types import TransitionKey
from lerobot.processor import store
from lerobot.processor.converters import batch_to_transition, create_transition, transition_to_batch
from lerobot.processor.step import EnvTransition, Features, ProcessorStep, ProcessorStepRegistry

__all__ = [
    "DataProcessorPipeline",
    "IdentityProcessorStep",
    "ModelInput",
    "PolicyProcessorPipeline",
    "ProcessorStep",
    "ProcessorStepRegistry",
    "RobotProcessorPipeline",
]

In = TypeVar("In")
Out = TypeVar("Out")


class ModelInput(dict):
    """A batch that went through a policy's preprocessor; `{**batch}` and `dict(batch)` are plain again.

    A policy that is given one knows that it must not preprocess it a second time.
    """


class IdentityProcessorStep(ProcessorStep):
    """Changes nothing."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition itself."""
        return transition


class DataProcessorPipeline(Generic[In, Out]):
    """Steps in order, with a conversion before the first and after the last."""

    default_name = "data_processor"

    def __init__(
        self,
        steps: Sequence[ProcessorStep] = (),
        name: str | None = None,
        to_transition: Callable[[Any], EnvTransition] = batch_to_transition,
        to_output: Callable[[EnvTransition], Any] = transition_to_batch,
    ) -> None:
        self.steps = list(steps)
        self.name = name or self.default_name
        self.to_transition = to_transition
        self.to_output = to_output

    def __call__(self, data: In) -> Out:
        """What the steps make of `data`; `data` itself is left as it is."""
        return self.to_output(self.run_steps(self.to_transition(data)))

    def run_steps(self, transition: EnvTransition) -> EnvTransition:
        """The transition after the last step."""
        for step in self.steps:
            transition = step(transition)
        return transition

    def step_through(self, data: In) -> Iterator[EnvTransition]:
        """The transition before the first step and after each one, to look at."""
        transition = self.to_transition(data)
        yield transition
        for step in self.steps:
            transition = step(transition)
            yield transition

    def process_observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """What the steps make of an observation alone."""
        return self.run_steps(create_transition(observation=observation))[TransitionKey.OBSERVATION]

    def process_action(self, action: Any) -> Any:
        """What the steps make of an action alone."""
        return self.run_steps(create_transition(action=action))[TransitionKey.ACTION]

    def transform_features(self, features: Features) -> Features:
        """What the features look like after the last step."""
        for step in self.steps:
            change = getattr(step, "transform_features", None)  # steps of other packages may leave it out
            features = change(features) if change else features
        return features

    def reset(self) -> None:
        """Tell every step that a new episode begins."""
        for step in self.steps:
            if hasattr(step, "reset"):
                step.reset()

    # --- files
    def save_pretrained(self, folder: str | Path, *, config_filename: str | None = None) -> None:
        """Write `<name>.json` and one safetensors file per step that has tensors."""
        store.write(Path(folder), name=self.name, steps=self.steps, config_filename=config_filename)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        config_filename: str,
        *,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        revision: str | None = None,
        trusted_classes: Collection[str] = (),
        to_transition: Callable[[Any], EnvTransition] = batch_to_transition,
        to_output: Callable[[EnvTransition], Any] = transition_to_batch,
    ) -> Self:
        """The pipeline stored in a folder or a Hub repository.

        Args:
            config_filename: its JSON file, "policy_preprocessor.json" or "policy_postprocessor.json".
            overrides: registered step name -> constructor arguments that replace the stored ones.
            trusted_classes: dotted names of unregistered classes that the file may import; see `store.read`.

        Raises:
            CheckpointError: no such pipeline, a part of it is missing, or it names code that is not trusted.
            ConfigError: an override names no step, or an argument the step does not take.
        """
        name, steps = store.read(
            pretrained_model_name_or_path,
            config_filename,
            overrides=overrides or {},
            revision=revision,
            trusted_classes=trusted_classes,
        )
        return cls(steps, name=name, to_transition=to_transition, to_output=to_output)

    # --- a pipeline is a sequence of its steps
    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[ProcessorStep]:
        return iter(self.steps)

    @overload
    def __getitem__(self, index: int) -> ProcessorStep: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> "ProcessorStep | Self":
        if isinstance(index, int):
            return self.steps[index]
        return type(self)(
            self.steps[index], name=self.name, to_transition=self.to_transition, to_output=self.to_output
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}: {', '.join(type(step).__name__ for step in self.steps)})"
        )


class PolicyProcessorPipeline(DataProcessorPipeline[In, Out]):
    """A pipeline before or after a policy; a batch that comes out of it is marked as `ModelInput`."""

    default_name = "policy_processor"

    def __call__(self, data: In) -> Out:
        """What the steps make of `data`: a `ModelInput`, or whatever else `to_output` returns."""
        output: Any = super().__call__(data)
        marked: Any = ModelInput(output) if type(output) is dict else output
        return marked


RobotProcessorPipeline = DataProcessorPipeline
