"""Renames observations, so that a policy trained on one robot's cameras reads another's."""

from collections.abc import Mapping
from typing import Any

from lerobot.core.errors import ConfigError
from lerobot.processor.step import Features, ObservationProcessorStep, ProcessorStepRegistry


@ProcessorStepRegistry.register("rename_observations_processor")
class RenameObservationsProcessorStep(ObservationProcessorStep):
    """Gives the observations named in `rename_map` their new names; the others keep theirs."""

    def __init__(self, rename_map: Mapping[str, str] | None = None) -> None:
        """`rename_map` is old name -> new name.

        Raises:
            ConfigError: two observations would get the same name.
        """
        self.rename_map = dict(rename_map or {})
        if len(set(self.rename_map.values())) < len(self.rename_map):
            raise ConfigError(f"--rename_map={self.rename_map}: two observations would get the same name.")

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The same values under their new names."""
        return rename(observation, self.rename_map)

    def get_config(self) -> dict[str, Any]:
        """The map."""
        return {"rename_map": self.rename_map}

    def transform_features(self, features: Features) -> Features:
        """Features under their new names."""
        return {part: rename(own, self.rename_map) for part, own in features.items()}


def rename(values: Mapping[str, Any], rename_map: Mapping[str, str]) -> dict[str, Any]:
    """Any table keyed by feature names (observations, features, statistics) with new names, order kept."""
    return {rename_map.get(name, name): value for name, value in values.items()}
