"""One step of a pipeline, and the registry of the names under which steps are stored in files.

    transition --step--> transition          {"observation": {...}, "action": tensor, ...}

A step reads a transition and returns a new one; it leaves the one it was given unchanged.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from lerobot.core.errors import CheckpointError, ConfigError, suggest
from lerobot.core.types import PolicyFeature, TransitionKey

EnvTransition = dict[
    TransitionKey, Any
]  # what flows between steps; parts that are absent may be missing or None
PolicyAction = Tensor  # (A,), (B, A) or (B, T, A), as a policy reads and writes it
RobotAction = dict[str, Any]  # "shoulder_pan.pos" -> number, as a robot reads it
RobotObservation = dict[str, Any]  # what a robot or an environment returned

Features = dict[str, dict[str, PolicyFeature]]  # "observation" or "action" -> feature name -> feature
StepClass = TypeVar("StepClass", bound=type)


class ProcessorStep(ABC):
    """Base of every step: a call, and the four methods that files and episodes need.

    A step is rebuilt from its file by giving the keys that `get_config` returned to its constructor.
    """

    # Config keys of the file that the constructor does not take; written back when the step is saved.
    unread_config: ClassVar[dict[str, Any]] = {}
    # Constructor arguments that name a folder beside the pipeline file (tokenizers): argument -> folder name.
    artifacts: ClassVar[dict[str, str]] = {}

    @abstractmethod
    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition after this step."""

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON values."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors to store beside the config; empty for most steps."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the tensors that `state_dict` gave.

        Raises:
            CheckpointError: this step stores none.
        """
        if state:
            raise CheckpointError(
                f"{type(self).__name__} stores no tensors, but was given {', '.join(sorted(state))}."
            )

    def reset(self) -> None:  # noqa: B027  optional: most steps remember nothing
        """Forget the running episode."""

    def transform_features(self, features: Features) -> Features:
        """What the features look like after this step; unchanged for most."""
        return features


class _PartStep(ProcessorStep):
    """A step that changes one part of a transition and is skipped where that part is absent."""

    part: ClassVar[TransitionKey]

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        value = transition.get(self.part)
        return transition if value is None else {**transition, self.part: self._change(value)}

    @abstractmethod
    def _change(self, value: Any) -> Any: ...


class ObservationProcessorStep(_PartStep):
    """A step whose subclass writes `observation(observation) -> observation`."""

    part = TransitionKey.OBSERVATION

    @abstractmethod
    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation after this step; the given one is left as it is."""

    def _change(self, value: Any) -> Any:
        return self.observation(dict(value))


class ActionProcessorStep(_PartStep):
    """A step whose subclass writes `action(action) -> action`."""

    part = TransitionKey.ACTION

    @abstractmethod
    def action(self, action: Any) -> Any:
        """The action after this step."""

    def _change(self, value: Any) -> Any:
        return self.action(value)


class PolicyActionProcessorStep(ActionProcessorStep):
    """An action step for tensors, as policies write them."""

    def _change(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"{type(self).__name__} changes action tensors, but was given a {type(value).__name__}."
            )
        return self.action(value)


class RobotActionProcessorStep(ActionProcessorStep):
    """An action step for dicts of named numbers, as robots read them."""

    def _change(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ConfigError(
                f"{type(self).__name__} changes action dicts, but was given a {type(value).__name__}."
            )
        return self.action(dict(value))


class ComplementaryDataProcessorStep(_PartStep):
    """A step whose subclass writes `complementary_data(data) -> data` (tasks, indices, padding masks)."""

    part = TransitionKey.COMPLEMENTARY_DATA

    @abstractmethod
    def complementary_data(self, complementary_data: dict[str, Any]) -> dict[str, Any]:
        """The complementary data after this step."""

    def _change(self, value: Any) -> Any:
        return self.complementary_data(dict(value))


class ProcessorStepRegistry:
    """Names on disk -> step classes. A registered name is a promise: files hold it for ever."""

    _classes: ClassVar[dict[str, type]] = {}

    @classmethod
    def register(cls, name: str | None = None) -> Callable[[StepClass], StepClass]:
        """Decorator: the class is stored in files under `name` (its own name when none is given)."""

        def decorate(step: StepClass) -> StepClass:
            key = name or step.__name__
            taken = cls._classes.get(key)
            if taken is not None and (taken.__module__, taken.__qualname__) != (
                step.__module__,
                step.__qualname__,
            ):
                raise ConfigError(
                    f"The processor step {key!r} is registered twice: by {taken.__module__}."
                    f"{taken.__qualname__} and by {step.__module__}.{step.__qualname__}."
                )
            cls._classes[key] = step
            step._registry_name = key  # type: ignore[attr-defined]
            return step

        return decorate

    @classmethod
    def get(cls, name: str) -> type:
        """The class registered as `name`; the modules of this room are imported when it is not known yet.

        Raises:
            ConfigError: no such step.
        """
        if name not in cls._classes:
            _import_room()
        if name not in cls._classes:
            known = sorted(cls._classes)
            raise ConfigError(
                f"There is no processor step called {name!r}.{suggest(name, known)} "
                f"Known: {', '.join(known)}. If a package of its own has it, import that package first."
            )
        return cls._classes[name]

    @classmethod
    def unregister(cls, name: str) -> None:
        """Forget a name; unknown ones are ignored."""
        cls._classes.pop(name, None)

    @classmethod
    def list(cls) -> list[str]:
        """Registered names of everything imported so far and of this room, sorted."""
        _import_room()
        return sorted(cls._classes)


def registered_name(step: ProcessorStep | type) -> str | None:
    """The name a step is stored under, or None for a class that was never registered.

    A subclass that was not registered itself has none: it must not be stored as its parent.
    """
    cls = step if isinstance(step, type) else type(step)
    return cls.__dict__.get("_registry_name")


def _import_room() -> None:
    """Import every module of this folder, so that the steps in it are registered."""
    room = importlib.import_module("lerobot.processor")
    for module in pkgutil.iter_modules(room.__path__):
        importlib.import_module(f"lerobot.processor.{module.name}")
