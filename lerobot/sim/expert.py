"""A scripted expert: joint targets along eased waypoints over the cube, down, close, up, across, down, open.

Each step of the plan holds a clean target, which is recorded; noise (`decision.py`) on the five arm joints,
not on the gripper, makes the executed one of it. The same seed gives the same plan and the same noise.

Shapes: J = 6 joints in degrees and, for the gripper, 0..100; T = steps of the plan.
"""

from dataclasses import dataclass

import numpy as np

from lerobot.core.errors import UserError
from lerobot.sim import kinematics
from lerobot.sim.arm import FIXED_JAW_X, JAW_GAP
from lerobot.sim.decision import Decision, Drift, Plan
from lerobot.sim.geometry import GRIPPER, JOINTS, LOWER, TOOL_RPY, TOOL_XYZ, UPPER, from_radians
from lerobot.sim.physics import Physics
from lerobot.sim.scene import CUBE_HALF

CLEARANCE = 0.005  # m between the fixed jaw and the cube on the way down
GRASP_POSE = kinematics.pose(  # between the jaws, a little above their tips, in the gripper link
    (FIXED_JAW_X + CLEARANCE + JAW_GAP / 2, 0.0, TOOL_XYZ[2] + 0.009), TOOL_RPY
)
OPEN, CLOSED = 40.0, 8.0  # gripper 0..100; the cube stops it at about 20
HOVER, CARRY, RELEASE = 0.065, 0.070, 0.050  # heights of the grasp point above the table, m
DEFAULT_NOISE = 0.01  # rad; about 3 mm at the tip
MAX_PLAN_ERROR = 0.001  # m
ROTATION_WEIGHT_M = 0.005  # far out and high up the gripper leans rather than miss its place
PAN_X = JOINTS[0].xyz[0]


@dataclass(frozen=True)
class Waypoint:
    """The grasp point around shoulder_pan (m, rad, m), the jaws' yaw (rad), gripper 0..100, and steps."""

    radius: float
    azimuth: float
    height: float
    yaw: float
    gripper: float
    steps: int

    def numbers(self) -> np.ndarray:
        """(5,): everything that is interpolated."""
        return np.array([self.radius, self.azimuth, self.height, self.yaw, self.gripper])


class PickPlaceExpert:
    """Plans one episode from the physics' present state and hands the plan out step by step.

    Args:
        noise: standard deviation in rad of the difference between executed and recorded arm joints.
        seed: of that noise.

    Raises:
        UserError: the cube or the bin cannot be reached from above, or the noise is negative.
    """

    def __init__(self, physics: Physics, *, noise: float = 0.0, seed: int = 0):
        self._drift = Drift(noise, size=GRIPPER, seed=seed)
        self._plan = Plan(plan(physics))

    def __len__(self) -> int:
        return len(self._plan)

    def step(self) -> Decision:
        """The next step; after the end of the plan its last target, again and again."""
        clean = self._plan.step()
        noisy = clean.copy()
        noisy[:GRIPPER] = np.clip(clean[:GRIPPER] + self._drift.step(), LOWER[:GRIPPER], UPPER[:GRIPPER])
        return Decision(from_radians(clean).astype(np.float32), from_radians(noisy).astype(np.float32))


def plan(physics: Physics) -> np.ndarray:
    """Joint targets (T, J) in rad that carry the cube into the bin."""
    angles, targets = physics.targets, []
    here = present_waypoint(angles)
    for goal in waypoints(physics, here):
        start, change = here.numbers(), goal.numbers() - here.numbers()
        for step in range(1, goal.steps + 1):
            eased = 0.5 - 0.5 * np.cos(np.pi * step / goal.steps)
            radius, azimuth, height, yaw, gripper = start + eased * change
            wished = grasp_pose(radius, azimuth, height, yaw)
            solution = kinematics.inverse(
                wished, angles, tool=GRASP_POSE, rotation_weight_m=ROTATION_WEIGHT_M
            )
            if solution.position_error_m > MAX_PLAN_ERROR:
                raise UserError(
                    f"The arm cannot reach radius {radius:.3f} m, height {height:.3f} m from above "
                    f"(off by {1000 * solution.position_error_m:.1f} mm). Put cube and bin nearer."
                )
            angles = np.append(
                solution.angles, LOWER[GRIPPER] + gripper / 100 * (UPPER[GRIPPER] - LOWER[GRIPPER])
            )
            targets.append(angles)
        here = goal
    return np.stack(targets)


def waypoints(physics: Physics, here: Waypoint) -> list[Waypoint]:
    """The way from `here` to a cube in the bin."""
    x, y, _, w, _, _, z = physics.cube_pose
    radius, azimuth = polar(x, y)
    yaw = nearest_quarter_turn(2 * np.arctan2(z, w), like=here.yaw - here.azimuth + azimuth)
    bin_radius, bin_azimuth = polar(*physics.bin_position[:2])
    cube, over_bin = (radius, azimuth), (bin_radius, bin_azimuth)
    turned = yaw - azimuth + bin_azimuth  # the wrist keeps its angle on the way to the bin
    return [
        Waypoint(*cube, HOVER, yaw, OPEN, steps=16),
        Waypoint(*cube, CUBE_HALF, yaw, OPEN, steps=11),
        Waypoint(*cube, CUBE_HALF, yaw, OPEN, steps=1),
        Waypoint(*cube, CUBE_HALF, yaw, CLOSED, steps=8),
        Waypoint(*cube, CARRY, yaw, CLOSED, steps=9),
        Waypoint(*over_bin, CARRY, turned, CLOSED, steps=18),
        Waypoint(*over_bin, RELEASE, turned, CLOSED, steps=6),
        Waypoint(*over_bin, RELEASE, turned, OPEN, steps=6),
        Waypoint(*over_bin, 0.5 * (CARRY + RELEASE), turned, OPEN, steps=5),
    ]


def present_waypoint(angles: np.ndarray) -> Waypoint:
    """Where the joint angles (J,) in rad put the grasp point."""
    pose = kinematics.forward(angles, tool=GRASP_POSE)
    gripper = from_radians(angles)[GRIPPER]
    yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
    return Waypoint(*polar(pose[0, 3], pose[1, 3]), float(pose[2, 3]), yaw, float(gripper), steps=0)


def grasp_pose(radius: float, azimuth: float, height: float, yaw: float) -> np.ndarray:
    """The pose (4, 4) of a gripper pointing straight down, its jaws apart along `yaw`."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    pose = np.eye(4)
    pose[:3, :3] = [[cosine, sine, 0], [sine, -cosine, 0], [0, 0, -1]]
    pose[:3, 3] = (PAN_X + radius * np.cos(azimuth), radius * np.sin(azimuth), height)
    return pose


def polar(x: float, y: float) -> tuple[float, float]:
    """Radius (m) and azimuth (rad) around the axis of shoulder_pan."""
    return float(np.hypot(x - PAN_X, y)), float(np.arctan2(y, x - PAN_X))


def nearest_quarter_turn(yaw: float, *, like: float) -> float:
    """The yaw of the same square cube that is nearest to `like`."""
    return float(yaw + np.pi / 2 * np.round((like - yaw) / (np.pi / 2)))
