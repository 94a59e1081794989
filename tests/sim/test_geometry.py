"""Units: degrees and 0..100 on the outside, rad inside."""

import numpy as np
import pytest

from lerobot.core.errors import UserError
from lerobot.sim.geometry import FEATURE_NAMES, LOWER, UPPER, from_radians, to_radians


def test_names_are_those_of_the_real_arm():
    assert FEATURE_NAMES == (
        "shoulder_pan.pos",
        "shoulder_lift.pos",
        "elbow_flex.pos",
        "wrist_flex.pos",
        "wrist_roll.pos",
        "gripper.pos",
    )


def test_zero_is_the_middle_and_the_gripper_runs_from_0_to_100():
    assert from_radians(LOWER)[5] == pytest.approx(0) and from_radians(UPPER)[5] == pytest.approx(100)
    np.testing.assert_allclose(to_radians(np.zeros(6))[:5], 0)
    assert to_radians(np.array([90.0, 0, 0, 0, 0, 0]))[0] == pytest.approx(np.pi / 2)


def test_units_survive_a_round_trip_of_any_batch():
    angles = np.random.default_rng(0).uniform(LOWER, UPPER, (4, 3, 6))
    np.testing.assert_allclose(to_radians(from_radians(angles)), angles, atol=1e-12)


@pytest.mark.parametrize("wrong", [np.zeros(5), np.float64(1.0), np.zeros((6, 2))])
def test_another_number_of_joints_is_an_error(wrong):
    with pytest.raises(UserError, match="6 joint positions"):
        to_radians(wrong)
