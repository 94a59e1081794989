"""Where the SO-101's gripper is for given joint angles, and which joint angles bring it somewhere.

Inverse kinematics is damped least squares (Wampler 1986; Nakamura, Hanafusa 1986) on the geometric Jacobian:
five joints against six numbers of pose error, so a pose out of reach is met as well as the weights say.

    angles (5,) --forward--> tool pose in base (4, 4)        pose (4, 4) --inverse--> angles (5,)

A pose is a homogeneous matrix whose z axis points along the fingers. The gripper's own angle plays no part.
"""

from dataclasses import dataclass

import numpy as np

from lerobot.sim.geometry import JOINTS, LOWER, TOOL_RPY, TOOL_XYZ, UPPER

NUM_ARM_JOINTS = 5
DAMPING = 1e-3
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class Solution:
    """Joint angles (5,) in rad, and how far from the wished pose they leave the gripper."""

    angles: np.ndarray
    position_error_m: float
    rotation_error_rad: float


def pose(xyz: tuple[float, float, float], rpy: tuple[float, float, float]) -> np.ndarray:
    """A homogeneous matrix (4, 4) from a translation and fixed-axis roll, pitch, yaw in rad."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    matrix[:3, 3] = xyz
    return matrix


JOINT_POSES = np.stack([pose(joint.xyz, joint.rpy) for joint in JOINTS])  # (J, 4, 4) each in its parent
TOOL_POSE = pose(TOOL_XYZ, TOOL_RPY)  # in the gripper link


def link_poses(angles: np.ndarray) -> np.ndarray:
    """Poses (5, 4, 4) in the base frame of the links behind the arm's joints, for angles (5,) or (6,) rad."""
    poses, here = np.empty((NUM_ARM_JOINTS, 4, 4)), np.eye(4)
    cosines, sines = np.cos(angles), np.sin(angles)
    for i in range(NUM_ARM_JOINTS):
        here = here @ JOINT_POSES[i]
        x, y = here[:, 0].copy(), here[:, 1].copy()
        here[:, 0] = cosines[i] * x + sines[i] * y  # a turn about the frame's own z mixes its x and y columns
        here[:, 1] = cosines[i] * y - sines[i] * x
        poses[i] = here
    return poses


def forward(angles: np.ndarray, *, tool: np.ndarray = TOOL_POSE) -> np.ndarray:
    """The tool's pose (4, 4) in the base frame; `tool` (4, 4) is its pose in the gripper link."""
    return link_poses(angles)[-1] @ tool


def jacobian(poses: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(6, 5): velocity and turning speed of `point` (3,) per joint speed, in the base frame."""
    axes = poses[:, :3, 2]  # (5, 3)
    return np.concatenate([np.cross(axes, point - poses[:, :3, 3]), axes], axis=1).T


def inverse(
    target: np.ndarray,
    start: np.ndarray,
    *,
    tool: np.ndarray = TOOL_POSE,
    rotation_weight_m: float = 0.05,
    tolerance_m: float = 1e-5,
) -> Solution:
    """Joint angles within the limits that bring the tool near `target` (4, 4) in the base frame.

    Args:
        start: angles (5,) or (6,) in rad where the search begins; the solution is the one nearest to them.
        tool: the tool's pose (4, 4) in the gripper link.
        rotation_weight_m: metres that one rad of turning error counts as; 0 asks for a position only.
        tolerance_m: the search ends when the weighted error stops shrinking by more than this.
    """
    angles = np.array(start[:NUM_ARM_JOINTS], dtype=np.float64)
    lower, upper = LOWER[:NUM_ARM_JOINTS], UPPER[:NUM_ARM_JOINTS]
    weights = np.repeat([1.0, rotation_weight_m], 3)
    for _ in range(MAX_ITERATIONS):
        poses = link_poses(angles)
        here = poses[-1] @ tool
        error = weights * pose_error(here, target)
        slope = weights[:, None] * jacobian(poses, here[:3, 3])
        is_free = ~(((angles <= lower) & (slope.T @ error < 0)) | ((angles >= upper) & (slope.T @ error > 0)))
        slope = slope * is_free  # a joint at its stop does not take part
        change = slope.T @ np.linalg.solve(slope @ slope.T + DAMPING**2 * np.eye(6), error)
        moved = np.clip(angles + np.clip(change, -0.3, 0.3), lower, upper)
        is_settled = np.abs(moved - angles).max() < tolerance_m
        angles = moved
        if is_settled:
            break
    error = pose_error(forward(angles, tool=tool), target)
    return Solution(angles, float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:])))


def pose_error(here: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(6,): translation (m) and rotation vector (rad), in the base frame, that lead from here to target."""
    turn = target[:3, :3] @ here[:3, :3].T
    axis = 0.5 * np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    sine, cosine = np.linalg.norm(axis), 0.5 * (np.trace(turn) - 1)
    scale = np.arctan2(sine, cosine) / sine if sine > 1e-9 else 1.0
    return np.concatenate([target[:3, 3] - here[:3, 3], scale * axis])
