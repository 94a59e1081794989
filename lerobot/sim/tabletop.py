"""The pick-and-place task: where cube and bin lie at the start of an episode, and when it has succeeded.

Places are drawn around the axis of `shoulder_pan`, in polar coordinates, so every one of them can be reached:

    easy     a small area to the arm's left, the cube turned to face the arm, the bin always in the same place
    medium   a wider area, otherwise the same
    hard     all that the arm can reach from above, the cube turned anyhow, the bin moved a little
"""

from dataclasses import dataclass

import numpy as np

from lerobot.core.errors import ConfigError, suggest
from lerobot.sim.geometry import JOINTS, to_radians
from lerobot.sim.physics import Physics

TASK = "Pick up the red cube and put it in the blue bin."
HOME = to_radians(np.array([3.6, -16.4, 21.7, 84.7, 96.4, 40.0]))  # (J,) rad: jaws down, 7 cm above the table
BIN_RADIUS, BIN_AZIMUTH = 0.190, -0.70
MIN_CUBE_TO_BIN = 0.130  # m between their middles, so that the open jaws fit in between
RESTING_SPEED = 0.02  # m/s


@dataclass(frozen=True)
class Area:
    """Ranges a layout is drawn from, around the axis of shoulder_pan: m, rad; azimuth 0 is straight ahead."""

    radius: tuple[float, float]
    azimuth: tuple[float, float]
    is_cube_turned: bool = False
    bin_radius_jitter: float = 0.0
    bin_azimuth_jitter: float = 0.0


AREAS = {
    "easy": Area(radius=(0.165, 0.205), azimuth=(0.05, 0.55)),
    "medium": Area(radius=(0.145, 0.225), azimuth=(-0.10, 0.95)),
    "hard": Area(
        radius=(0.130, 0.225),
        azimuth=(-1.30, 1.30),
        is_cube_turned=True,
        bin_radius_jitter=0.020,
        bin_azimuth_jitter=0.20,
    ),
}


@dataclass(frozen=True)
class Layout:
    """The start of an episode: cube x, y (m) and yaw (rad), bin x, y (m)."""

    cube: tuple[float, float, float]
    bin_position: tuple[float, float]


def draw_layout(difficulty: str, rng: np.random.Generator) -> Layout:
    """A layout of that difficulty.

    Raises:
        ConfigError: there is no such difficulty.
    """
    if difficulty not in AREAS:
        raise ConfigError(
            f"No difficulty {difficulty!r}. Known: {', '.join(AREAS)}.{suggest(difficulty, AREAS)}"
        )
    area = AREAS[difficulty]
    bin_radius = BIN_RADIUS + area.bin_radius_jitter * rng.uniform(-1, 1)
    bin_azimuth = BIN_AZIMUTH + area.bin_azimuth_jitter * rng.uniform(-1, 1)
    bin_position = around_pan(bin_radius, bin_azimuth)
    while True:
        azimuth = rng.uniform(*area.azimuth)
        x, y = around_pan(rng.uniform(*area.radius), azimuth)
        if np.hypot(x - bin_position[0], y - bin_position[1]) > MIN_CUBE_TO_BIN:
            break
    yaw = rng.uniform(-np.pi, np.pi) if area.is_cube_turned else azimuth
    return Layout(cube=(x, y, float(yaw)), bin_position=bin_position)


def around_pan(radius: float, azimuth: float) -> tuple[float, float]:
    """x, y in the base frame of a place in polar coordinates around the axis of shoulder_pan."""
    return float(JOINTS[0].xyz[0] + radius * np.cos(azimuth)), float(radius * np.sin(azimuth))


def is_placed(physics: Physics) -> bool:
    """Whether the cube rests in the bin and the arm has let go of it."""
    return physics.is_cube_in_bin() and physics.cube_speed < RESTING_SPEED and not physics.is_cube_touched()
