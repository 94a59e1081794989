"""What environments of gymnasium return, under the names that datasets and policies have for it.

{"pixels", "agent_pos", "environment_state"} -> features_of -> {"observation.images.<camera>", ...}
"""

from collections.abc import Mapping
from typing import Any

from lerobot.core import keys

PIXELS = "pixels"
STATES = {"agent_pos": keys.STATE, "environment_state": keys.ENV_STATE}

# What a dataset of episodes in simulation has besides observations and actions: what came of each step.
OUTCOME_FEATURES = {
    keys.REWARD: {"dtype": "float32", "shape": [1], "names": None},
    keys.DONE: {"dtype": "bool", "shape": [1], "names": None},
    keys.SUCCESS: {"dtype": "bool", "shape": [1], "names": None},
}


def features_of(observation: Mapping[str, Any]) -> dict[str, Any]:
    """An environment's observation as the values of a dataset's features; pictures stay (H, W, C) uint8."""
    found = {STATES[name]: value for name, value in observation.items() if name in STATES}
    pictures = observation.get(PIXELS, {})
    if not isinstance(pictures, Mapping):
        return found | {keys.IMAGE: pictures}
    return found | {keys.IMAGES_PREFIX + camera: picture for camera, picture in pictures.items()}
