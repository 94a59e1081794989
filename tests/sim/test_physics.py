"""The simulated arm and cube behave like things: they fall, rest, hold, are pushed, and repeat themselves."""

import numpy as np
import pytest

from lerobot.core.errors import ConfigError, LeRobotError, UserError
from lerobot.sim import kinematics
from lerobot.sim.geometry import GRIPPER, MOTOR_NAMES, UPPER
from lerobot.sim.physics import Physics
from lerobot.sim.scene import CUBE_HALF

RAISED = np.array([0.0, -0.5, 0.2, 0.5, 0.0, 0.5])


@pytest.fixture
def physics():
    made = Physics()
    yield made
    made.close()


def test_the_model_is_the_same_chain_as_the_kinematics(physics):
    physics.reset(angles=np.array([0.4, -0.7, 0.6, 0.3, -1.1, 0.2]))
    body = physics._data.body("wrist_roll_link")
    expected = kinematics.link_poses(physics.positions)[-1]
    np.testing.assert_allclose(body.xpos, expected[:3, 3], atol=1e-6)
    np.testing.assert_allclose(body.xmat.reshape(3, 3), expected[:3, :3], atol=1e-6)


def test_servos_reach_their_targets(physics):
    physics.reset(angles=RAISED)
    target = RAISED + np.array([0.4, 0.2, -0.2, 0.3, -0.5, 0.3])
    physics.set_targets(target)
    physics.step(500)
    np.testing.assert_allclose(physics.positions, target, atol=np.deg2rad(0.6))
    assert np.abs(physics.velocities).max() < 0.01


def test_loads_carry_the_weight_of_a_stretched_arm(physics):
    physics.reset(angles=np.zeros(6))
    physics.step(500)
    assert 0.05 < np.abs(physics.loads).max() < 0.5
    assert np.abs(physics.loads).argmax() == MOTOR_NAMES.index("shoulder_lift")


def test_a_limp_arm_falls_and_one_with_torque_does_not(physics):
    physics.reset(angles=np.zeros(6))
    before = kinematics.forward(physics.positions)[2, 3]
    physics.step(250)
    assert kinematics.forward(physics.positions)[2, 3] == pytest.approx(before, abs=0.003)
    for motor in MOTOR_NAMES:
        physics.set_torque(motor, is_on=False)
    physics.step(500)
    assert kinematics.forward(physics.positions)[2, 3] < before - 0.1
    np.testing.assert_array_equal(physics.loads, 0)


def test_torque_is_per_motor(physics):
    physics.reset(angles=RAISED)
    physics.set_torque("shoulder_pan", is_on=False)
    physics.set_targets(RAISED + 0.3)
    physics.step(500)
    moved = physics.positions - RAISED
    assert abs(moved[0]) < 0.01 and moved[1] == pytest.approx(0.3, abs=0.02)
    assert not physics.has_torque("shoulder_pan") and physics.has_torque("gripper")


def test_the_cube_stays_where_it_lies(physics):
    physics.reset(angles=RAISED, cube=(0.22, 0.05, 0.4))
    before = physics.cube_pose
    physics.step(2000)
    np.testing.assert_allclose(physics.cube_pose, before, atol=5e-4)
    assert physics.cube_speed < 1e-6 and not physics.is_cube_touched()


def test_a_pushed_cube_moves_and_stays_on_the_table(physics):
    beside = kinematics.inverse(_pointing_down(0.22, 0.06, 0.02), np.array([0, -0.3, 0.4, 1.4, 0])).angles
    physics.reset(angles=np.append(beside, 0.0), cube=(0.22, 0.0, 0.0))
    across = kinematics.inverse(_pointing_down(0.22, 0.0, 0.02), beside).angles
    for part in np.linspace(0, 1, 100):
        physics.set_targets(np.append(beside + part * (across - beside), 0.0))
        physics.step(4)
    assert physics.cube_pose[1] < -0.01
    physics.set_targets(np.append(beside, 0.0))
    physics.step(200)
    assert not physics.is_cube_touched()
    assert physics.cube_pose[2] == pytest.approx(CUBE_HALF, abs=1e-3)


def test_goals_beyond_a_limit_are_held_at_it(physics):
    physics.set_targets(UPPER + 1.0)
    np.testing.assert_allclose(physics.targets, UPPER)


def test_a_saved_state_has_the_same_future(physics):
    physics.reset(angles=RAISED)
    physics.set_targets(RAISED - 0.5)
    physics.set_torque("gripper", is_on=False)
    physics.step(30)
    saved = physics.save_state()
    physics.step(100)
    first = physics.positions
    physics.reset()
    physics.restore_state(saved)
    assert not physics.has_torque("gripper")
    physics.step(100)
    np.testing.assert_array_equal(physics.positions, first)


def test_reset_forgets_what_was_before(physics):
    physics.set_torque("gripper", is_on=False)
    physics.set_targets(UPPER)
    physics.step(100)
    physics.reset(angles=RAISED)
    assert physics.time_s == 0 and physics.has_torque("gripper")
    np.testing.assert_array_equal(physics.positions, RAISED)
    np.testing.assert_array_equal(physics.velocities, 0)
    np.testing.assert_array_equal(physics.targets, RAISED)


def test_wrong_calls_are_errors_that_name_the_way_out(physics):
    with pytest.raises(UserError, match="finite"):
        physics.set_targets(np.full(6, np.nan))
    with pytest.raises(UserError, match="6 joint angles"):
        physics.set_targets(np.zeros(GRIPPER))
    with pytest.raises(UserError, match="Did you mean 'gripper'"):
        physics.set_torque("griper", is_on=True)
    with pytest.raises(UserError, match="Did you mean 'front'"):
        physics.render("fron", width=8, height=8)
    with pytest.raises(ConfigError, match="timestep_s"):
        Physics(timestep_s=0.5)


def test_a_simulation_that_blows_up_is_an_error_until_it_is_reset(physics, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it stands
    physics._data.qvel[:] = 1e12
    for _ in range(2):
        with pytest.raises(LeRobotError, match="blew up"):
            physics.step(10)
    physics.reset()
    physics.step(10)


def _pointing_down(x: float, y: float, z: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = [[0, 1, 0], [1, 0, 0], [0, 0, -1]]
    pose[:3, 3] = (x, y, z)
    return pose
