"""Meta-World's own scripted experts, one for each of its fifty tasks.

whole state (39,) --the package's policy of the task--> x, y, z, grip in -1..1
"""

import warnings
from typing import Any

import numpy as np

from lerobot.core.optional import require
from lerobot.sim.decision import Decision, Drift

NUM_DISTURBED = 3  # x, y and z; the grip is never disturbed


class MetaworldExpert:
    """Solves the episode that was just reset.

    Args:
        env: our `MetaworldEnv`; its `state` is read at every step.
        noise: standard deviation of the difference between executed and recorded x, y, z, in the action's
            units: 1 is a centimetre a step.
        seed: of that noise.

    Raises:
        UserError: the noise is negative.
    """

    def __init__(self, env: Any, *, noise: float = 0.0, seed: int = 0):
        self._env, self._drift = env, Drift(noise, size=NUM_DISTURBED, seed=seed)
        self._policy = require("metaworld.policies", extra="metaworld").ENV_POLICY_MAP[env.task]()

    def step(self) -> Decision:
        """What to do in the present state."""
        with (
            warnings.catch_warnings()
        ):  # the package warns of responses beyond 1, which are meant to be clipped
            warnings.simplefilter("ignore")
            wished = self._policy.get_action(self._env.state)
        clean = np.clip(wished, -1, 1).astype(np.float32)
        noisy = clean.copy()
        noisy[:NUM_DISTURBED] = np.clip(clean[:NUM_DISTURBED] + self._drift.step(), -1, 1)
        return Decision(clean, noisy)
