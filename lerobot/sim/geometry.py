"""The SO-101's joints as numbers: where each sits, how far it turns, what its link weighs, and our units.

Poses are those of the public CAD-derived model in its "new calibration": zero is the middle of a joint's
range and every joint turns about the z axis of its own frame. Lengths in m, angles in rad, masses in kg.

    degrees, gripper 0..100   --to_radians-->   joint angles   --physics, kinematics-->   poses

What policies and datasets see are the units of a real arm with `use_degrees=True`: five joints in degrees and
the gripper from 0 (closed) to 100 (open).

Shapes: J = 6 joints, the gripper last.
"""

from dataclasses import dataclass

import numpy as np

from lerobot.core.errors import UserError


@dataclass(frozen=True)
class Joint:
    """One revolute joint: its frame in the parent link, its limits and the mass of the link it moves."""

    name: str
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]  # fixed axes: Rz(yaw) Ry(pitch) Rx(roll)
    lower: float
    upper: float
    mass: float


PI = float(np.pi)
JOINTS = (
    Joint("shoulder_pan", (0.03884, 0.0, 0.0624), (PI, 0.0, -PI), -1.9199, 1.9199, 0.100),
    Joint("shoulder_lift", (-0.03040, -0.01828, -0.0542), (-PI / 2, -PI / 2, 0.0), -1.7453, 1.7453, 0.103),
    Joint("elbow_flex", (-0.11257, -0.028, 0.0), (0.0, 0.0, PI / 2), -1.69, 1.69, 0.104),
    Joint("wrist_flex", (-0.1349, 0.0052, 0.0), (0.0, 0.0, -PI / 2), -1.6581, 1.6581, 0.079),
    Joint("wrist_roll", (0.0, -0.0611, 0.0181), (PI / 2, 0.04868, PI), -2.7439, 2.8412, 0.087),
    Joint("gripper", (0.0202, 0.0188, -0.0234), (PI / 2, 0.0, 0.0), -0.1745, 1.7453, 0.012),
)
MOTOR_NAMES = tuple(joint.name for joint in JOINTS)
FEATURE_NAMES = tuple(f"{name}.pos" for name in MOTOR_NAMES)
BASE_MASS = 0.147
TOOL_XYZ = (-0.0079, -0.00022, -0.09813)  # gripper_frame_link in the gripper link: the tip of the fixed jaw
TOOL_RPY = (0.0, PI, 0.0)

LOWER = np.array([joint.lower for joint in JOINTS])  # (J,) rad
UPPER = np.array([joint.upper for joint in JOINTS])  # (J,) rad
GRIPPER = len(JOINTS) - 1


def to_radians(positions: np.ndarray) -> np.ndarray:
    """Joint angles (..., J) in rad from degrees and, for the gripper, 0..100.

    Raises:
        UserError: the last axis does not hold six values.
    """
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim == 0 or positions.shape[-1] != len(JOINTS):
        raise UserError(
            f"Expected {len(JOINTS)} joint positions ({', '.join(FEATURE_NAMES)}), got {positions.shape}."
        )
    angles = np.deg2rad(positions)
    angles[..., GRIPPER] = LOWER[GRIPPER] + positions[..., GRIPPER] / 100 * (UPPER[GRIPPER] - LOWER[GRIPPER])
    return angles


def from_radians(angles: np.ndarray) -> np.ndarray:
    """Degrees and, for the gripper, 0..100, from joint angles (..., J) in rad."""
    positions = np.rad2deg(angles)
    positions[..., GRIPPER] = (
        (angles[..., GRIPPER] - LOWER[GRIPPER]) / (UPPER[GRIPPER] - LOWER[GRIPPER]) * 100
    )
    return positions


POSITION_LOWER, POSITION_UPPER = from_radians(LOWER), from_radians(UPPER)  # (J,) degrees and 0..100
