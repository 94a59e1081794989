"""What a scripted expert decides at a step, and the noise that leads its robot a little astray.

    recorded = a[t]           the label a data set stores: what the expert wants
    executed = a[t] + n[t]    what the robot is told, so that the next observation is a little off the plan

so the data shows states beside the expert's way together with the actions that lead back to it: the idea of
DART (Laskey et al. 2017). Without noise the two are equal.
"""

from dataclasses import dataclass

import numpy as np

from lerobot.core.errors import UserError

MEMORY = 0.9  # correlation of the noise between one step and the next


@dataclass(frozen=True)
class Decision:
    """What to store as the action and what to send to the robot, each (A,) float32; see the file's top."""

    recorded: np.ndarray
    executed: np.ndarray


class Drift:
    """Noise that wanders: first-order autoregressive, the same for the same seed.

    Args:
        std: standard deviation of every number, at every step.
        size: how many numbers.

    Raises:
        UserError: `std` is negative.
    """

    def __init__(self, std: float, *, size: int, seed: int):
        if not std >= 0:
            raise UserError(f"noise={std}: expected a standard deviation, 0 or more.")
        self.std = std
        self._rng = np.random.default_rng([seed, 1])
        self._value = std * self._rng.standard_normal(size)

    def step(self) -> np.ndarray:
        """The next numbers (size,)."""
        fresh = self._rng.standard_normal(len(self._value))
        self._value = MEMORY * self._value + self.std * np.sqrt(1 - MEMORY**2) * fresh
        return self._value


class Plan:
    """Targets (T, A), one after the other; after the end the last one, again and again."""

    def __init__(self, targets: np.ndarray):
        self._targets, self._next = targets, 0

    def __len__(self) -> int:
        return len(self._targets)

    def step(self) -> np.ndarray:
        """The next target (A,)."""
        target = self._targets[min(self._next, len(self) - 1)]
        self._next += 1
        return target
