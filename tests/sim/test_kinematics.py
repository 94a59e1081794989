"""Kinematics against the table of recorded poses, and against itself: forward, inverse, forward again."""

import numpy as np
import pytest

from lerobot.sim import kinematics
from lerobot.sim.geometry import LOWER, UPPER

# shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, wrist_roll in degrees; tool x, y, z in m; tool z axis
RECORDED = [
    ((0, 0, 0, 0, 0), (0.3914, 0.0, 0.2265), (1, 0, 0)),
    ((30, 0, 0, 0, 0), (0.3441, -0.1763, 0.2265), (0.866, -0.5, 0)),
    ((0, 30, 0, 0, 0), (0.4031, 0, 0.0507), (0.866, 0, -0.5)),
    ((0, 0, 30, 0, 0), (0.3506, 0, 0.0798), (0.866, 0, -0.5)),
    ((0, 0, 0, 45, 0), (0.3391, 0, 0.1162), (0.707, 0, -0.707)),
    ((0, -45, 45, 0, 0), (0.3036, 0, 0.2133), (1, 0, 0)),
    ((0, -90, 90, 0, 0), (0.2508, 0, 0.1419), (1, 0, 0)),
]


@pytest.mark.parametrize(("degrees", "position", "axis"), RECORDED)
def test_forward_gives_recorded_poses(degrees, position, axis):
    pose = kinematics.forward(np.deg2rad(degrees))
    np.testing.assert_allclose(pose[:3, 3], position, atol=6e-5)
    np.testing.assert_allclose(pose[:3, 2], axis, atol=5e-4)


def test_poses_are_rigid():
    angles = np.random.default_rng(0).uniform(LOWER[:5], UPPER[:5])
    for pose in kinematics.link_poses(angles):
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_jacobian_is_the_derivative_of_forward():
    angles, step = np.array([0.3, -0.4, 0.5, 0.6, -0.7]), 1e-6
    here = kinematics.forward(angles)
    slope = kinematics.jacobian(kinematics.link_poses(angles), here[:3, 3])
    for i in range(5):
        moved = angles.copy()
        moved[i] += step
        change = kinematics.pose_error(here, kinematics.forward(moved)) / step
        np.testing.assert_allclose(slope[:, i], change, atol=1e-5)


def test_inverse_finds_the_way_back():
    rng = np.random.default_rng(1)
    middle = np.array([0.0, -0.3, 0.4, 0.8, 0.5])
    for _ in range(50):
        wanted = middle + rng.uniform(-0.5, 0.5, 5)
        solution = kinematics.inverse(kinematics.forward(wanted), middle)
        assert solution.position_error_m < 1e-5
        assert solution.rotation_error_rad < 1e-4
        np.testing.assert_allclose(solution.angles, wanted, atol=1e-3)


def test_inverse_keeps_the_limits_and_says_how_far_off_it_is():
    target = kinematics.forward(np.zeros(5))
    target[0, 3] += 1.0  # a metre beyond the arm's reach
    solution = kinematics.inverse(target, np.zeros(5), rotation_weight_m=0.0)
    assert (solution.angles >= LOWER[:5]).all() and (solution.angles <= UPPER[:5]).all()
    assert solution.position_error_m > 0.9


def test_pose_error_measures_turns_of_every_size():
    for angle in (0.0, 1e-6, 0.5, 3.0):
        turned = kinematics.pose((0, 0, 0), (0, 0, angle))
        assert kinematics.pose_error(np.eye(4), turned)[5] == pytest.approx(angle, abs=1e-9)
