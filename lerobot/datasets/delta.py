"""Which other frames an item brings along: offsets in seconds, checked and turned into frame counts."""

from collections.abc import Mapping, Sequence
from typing import Any

from lerobot.core import keys
from lerobot.core.errors import DatasetError, suggest


def frame_deltas(
    delta_timestamps: Mapping[str, Sequence[float]], *, fps: float, tolerance_s: float, known: Sequence[str]
) -> dict[str, list[int]]:
    """Offsets in frames for every key.

    Raises:
        DatasetError: a key is not a feature, or an offset is not a multiple of 1 / fps within the tolerance.
    """
    deltas = {}
    for key, offsets in delta_timestamps.items():
        if key not in known:
            raise DatasetError(
                f"delta_timestamps names {key!r}, which the dataset lacks.{suggest(key, known)}"
            )
        wrong = [offset for offset in offsets if abs(offset * fps - round(offset * fps)) / fps > tolerance_s]
        if wrong or not len(offsets):
            raise DatasetError(
                f"delta_timestamps[{key!r}] holds {wrong or 'nothing'}; every offset must be a multiple of "
                f"1/{fps} s within {tolerance_s} s."
            )
        deltas[key] = [round(offset * fps) for offset in offsets]
    return deltas


def resolve_delta_timestamps(
    policy_config: Any, metadata: Any, rename_map: Mapping[str, str] | None = None
) -> dict[str, list[float]] | None:
    """The offsets, seconds, of the frames that a policy wants; None when it wants single frames.

    Args:
        policy_config: has observation_delta_indices, action_delta_indices and reward_delta_indices (lists or
            None).
        metadata: has `features` and `fps`.
        rename_map: dataset key -> the policy's key, where they differ.
    """
    found = {}
    for key in metadata.features:
        name = (rename_map or {}).get(key, key)
        indices = None
        if name == keys.REWARD:
            indices = policy_config.reward_delta_indices
        elif name == keys.ACTION:
            indices = policy_config.action_delta_indices
        elif name.startswith(keys.OBSERVATION_PREFIX):
            indices = policy_config.observation_delta_indices
        if indices is not None:
            found[key] = [index / metadata.fps for index in indices]
    return found or None
