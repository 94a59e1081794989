"""The arm, the cube and the bin in MuJoCo: set targets, step, read joints, take pictures, save and restore.

    targets (J,) rad --set_targets--> position servos --step--> positions, velocities, loads (J,)
                                                           \\--render--> image (H, W, 3) uint8

The Gymnasium environments and the simulated servo bus both stand on this class. It is not thread-safe.

Shapes: J = 6 joints, the gripper last.
"""

import numpy as np

from lerobot.core.errors import ConfigError, LeRobotError, UserError, suggest
from lerobot.sim import gl
from lerobot.sim.drawing import Drawing
from lerobot.sim.geometry import JOINTS, LOWER, MOTOR_NAMES, UPPER
from lerobot.sim.scene import BIN_HALF, CAMERAS, CUBE_HALF, MAX_IMAGE_SIZE, scene_xml

NUM_JOINTS = len(JOINTS)


class Physics:
    """One simulated tabletop.

    Args:
        timestep_s: seconds of one physics step.
    """

    def __init__(self, *, timestep_s: float = 0.004):
        if not 0 < timestep_s <= 0.01:
            raise ConfigError(f"timestep_s={timestep_s}: expected a number above 0 and at most 0.01 s.")
        self.timestep_s = timestep_s
        self._mujoco = gl.import_mujoco()
        self._model = self._mujoco.MjModel.from_xml_string(scene_xml(timestep_s=timestep_s))
        self._data = self._mujoco.MjData(self._model)
        self._state_kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        warnings = self._mujoco.mjtWarning
        self._blow_ups = (warnings.mjWARN_BADQPOS, warnings.mjWARN_BADQVEL, warnings.mjWARN_BADQACC)
        self._servo_gain = self._model.actuator_gainprm[:, 0].copy()
        self._servo_bias = self._model.actuator_biasprm[:, :3].copy()
        self._max_torque = self._model.actuator_forcerange[:, 1].copy()  # (J,) N·m
        self._cube_geom = self._model.geom("cube").id
        self._arm_geoms = self._model.geom_contype == 1
        self._has_torque = np.ones(NUM_JOINTS, dtype=bool)
        self._drawing = Drawing(self._model)
        self.reset()

    # -------------------------------------------------------------------------------------------------- state
    def reset(
        self,
        *,
        angles: np.ndarray | None = None,
        cube: tuple[float, float, float] = (0.22, 0.0, 0.0),
        bin_position: tuple[float, float] = (0.17, -0.14),
    ) -> None:
        """Put everything at rest with torque on.

        Args:
            angles: joints (J,) in rad; also the servos' targets. Default: all zero.
            cube: x, y in m and yaw in rad; the cube lies on the table.
            bin_position: x, y in m.
        """
        angles = np.zeros(NUM_JOINTS) if angles is None else _checked(angles)
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:NUM_JOINTS] = angles
        x, y, yaw = cube
        self._data.qpos[NUM_JOINTS:] = (x, y, CUBE_HALF, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        self._data.mocap_pos[0] = (*bin_position, 0.0)
        for motor in MOTOR_NAMES:
            self.set_torque(motor, is_on=True)
        self.set_targets(angles)
        self._mujoco.mj_forward(self._model, self._data)

    def save_state(self) -> np.ndarray:
        """Everything the future depends on, as one flat array."""
        state = np.empty(self._mujoco.mj_stateSize(self._model, self._state_kind))
        self._mujoco.mj_getState(self._model, self._data, state, self._state_kind)
        return np.concatenate([state, self._has_torque])

    def restore_state(self, state: np.ndarray) -> None:
        """Go back to where `save_state` was called."""
        for motor, is_on in zip(MOTOR_NAMES, state[-NUM_JOINTS:], strict=True):
            self.set_torque(motor, is_on=bool(is_on))
        numbers = state[:-NUM_JOINTS].copy()
        self._mujoco.mj_setState(self._model, self._data, numbers, self._state_kind)
        self._mujoco.mj_forward(self._model, self._data)
        self._mujoco.mj_setState(
            self._model, self._data, numbers, self._state_kind
        )  # forward moves the warm start

    # ------------------------------------------------------------------------------------------------- motors
    def set_targets(self, angles: np.ndarray) -> None:
        """Give the servos their goals (J,) in rad; one beyond a joint's limit is held at it, as servos do.

        Raises:
            UserError: wrong shape, or a value that is not a finite number.
        """
        self._data.ctrl[:] = np.clip(_checked(angles), LOWER, UPPER)

    @property
    def targets(self) -> np.ndarray:
        """The servos' goals (J,) in rad."""
        return self._data.ctrl.copy()

    def set_torque(self, motor: str, *, is_on: bool) -> None:
        """Switch one motor's torque; off, only friction holds its joint.

        Raises:
            UserError: no motor has that name.
        """
        if motor not in MOTOR_NAMES:
            raise UserError(
                f"No motor {motor!r}. Known: {', '.join(MOTOR_NAMES)}.{suggest(motor, MOTOR_NAMES)}"
            )
        i = MOTOR_NAMES.index(motor)
        self._has_torque[i] = is_on
        self._model.actuator_gainprm[i, 0] = self._servo_gain[i] if is_on else 0.0
        self._model.actuator_biasprm[i, :3] = self._servo_bias[i] if is_on else 0.0

    def has_torque(self, motor: str) -> bool:
        """Whether that motor's torque is on."""
        return bool(self._has_torque[MOTOR_NAMES.index(motor)])

    def step(self, count: int = 1) -> None:
        """Advance by `count` physics steps.

        Raises:
            LeRobotError: the simulation blew up; MuJoCo then starts again by itself, which must be seen.
        """
        before = self._data.time
        self._mujoco.mj_step(self._model, self._data, count)
        if any(self._data.warning[kind].number for kind in self._blow_ups):
            raise LeRobotError(
                f"The simulation blew up after {before:.3f} s. Reset it, or give a smaller timestep_s."
            )

    @property
    def time_s(self) -> float:
        """Simulated seconds since the reset."""
        return float(self._data.time)

    @property
    def positions(self) -> np.ndarray:
        """Joint angles (J,) in rad."""
        return self._data.qpos[:NUM_JOINTS].copy()

    @property
    def velocities(self) -> np.ndarray:
        """Joint speeds (J,) in rad/s."""
        return self._data.qvel[:NUM_JOINTS].copy()

    @property
    def loads(self) -> np.ndarray:
        """Servo torques (J,) as parts of the largest one, -1..1."""
        return self._data.actuator_force / self._max_torque

    # ------------------------------------------------------------------------------------------------- things
    @property
    def cube_pose(self) -> np.ndarray:
        """(7,): x, y, z in m and the quaternion w, x, y, z, in the base frame."""
        return self._data.qpos[NUM_JOINTS:].copy()

    @property
    def cube_speed(self) -> float:
        """m/s."""
        return float(np.linalg.norm(self._data.qvel[NUM_JOINTS : NUM_JOINTS + 3]))

    @property
    def bin_position(self) -> np.ndarray:
        """(3,): x, y, z of the middle of the bin's floor in m, in the base frame."""
        return self._data.mocap_pos[0].copy()

    def is_cube_in_bin(self) -> bool:
        """Whether the cube's middle is between the bin's walls and below their top."""
        x, y, z = self._data.qpos[NUM_JOINTS : NUM_JOINTS + 3] - self._data.mocap_pos[0]
        return abs(x) < BIN_HALF and abs(y) < BIN_HALF and z < 2.2 * CUBE_HALF

    def is_cube_touched(self) -> bool:
        """Whether any part of the arm touches the cube."""
        pairs = self._data.contact.geom  # (contacts, 2)
        others = pairs[(pairs == self._cube_geom).any(axis=1)]
        return bool(self._arm_geoms[others].any())

    # ----------------------------------------------------------------------------------------------- pictures
    def render(self, camera: str, *, width: int, height: int, has_shadows: bool = False) -> np.ndarray:
        """A picture (H, W, 3) uint8 from `camera`.

        Args:
            has_shadows: shadows and smooth edges, for people; in software that takes about 20 times as long.

        Raises:
            UserError: unknown camera, or a size beyond 1920.
            EnvironmentSetupError: nothing here can draw.
        """
        if camera not in CAMERAS:
            raise UserError(f"No camera {camera!r}. Known: {', '.join(CAMERAS)}.{suggest(camera, CAMERAS)}")
        if not (0 < width <= MAX_IMAGE_SIZE[0] and 0 < height <= MAX_IMAGE_SIZE[1]):
            raise UserError(
                f"A picture of {width}x{height} was asked for; each side must be 1 to {MAX_IMAGE_SIZE[0]}."
            )
        return self._drawing.picture(self._data, camera, width=width, height=height, is_fast=not has_shadows)

    def close(self) -> None:
        """Free the drawing contexts; called at exit if nobody did before."""
        self._drawing.close()


def _checked(angles: np.ndarray) -> np.ndarray:
    angles = np.asarray(angles, dtype=np.float64)
    if angles.shape != (NUM_JOINTS,):
        raise UserError(
            f"Expected {NUM_JOINTS} joint angles ({', '.join(MOTOR_NAMES)}), got shape {angles.shape}."
        )
    if not np.isfinite(angles).all():
        raise UserError(f"Joint angles must be finite numbers, got {angles.tolist()}.")
    return angles
