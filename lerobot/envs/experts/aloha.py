"""A scripted expert for ALOHA's two tasks: hand a cube over, put a peg into a socket.

The environments are those of Zhao et al. 2023 in the `gym-aloha` package: 14 joint targets at 50 Hz. Each arm
follows its own waypoints of a grasp point between the finger tips, eased and turned evenly; damped least
squares (Wampler 1986) on MuJoCo's Jacobian makes joint targets of them.

    transfer_cube   right   over the cube, down, close, up to the meeting point, hold .......... open, away
                    left    wait ........................ beside it, rolled by 90°, to the cube, close, away
    insertion       both    over peg and socket, down, close, up, face to face, slowly together

Grippers that hold something keep their slope all the way, so that it stays level: the cube arrives upright,
and the left jaws close on its top and bottom while the right ones hold its sides. The environment ends an
episode, with success, when the left fingers touch the cube in the air, or the peg the pin inside the socket.

Shapes: A = 14 action: left joints (6) in rad and gripper 0..1, then the right ones; T steps of the plan.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerobot.core.errors import UserError
from lerobot.core.optional import require
from lerobot.sim.decision import Decision, Drift, Plan

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
FINGERS = 2  # slides behind the six joints of each arm in the simulator's state
GRASP_X = 0.140  # m from the gripper link along the fingers; their tips are at 0.154
CUBE_HALF, PEG_HALF, SOCKET_HALF = 0.020, 0.010, 0.022  # m, half their heights
MIN_GRASP_HEIGHT = 0.020  # m; lower, the tips would press on the table
CLOSED, OPEN = 0.0, 1.0
MEETING = np.array([0.0, 0.5, 0.25])  # m, world
SLOPE = np.pi / 3  # rad by which fingers point downwards to pick something up
APART, TOGETHER = (
    0.20,
    0.09,
)  # m between the middles of peg and socket; their ends meet at 0.12, the pin at 0.10
DAMPING = 1e-4
MAX_ITERATIONS = 100
MAX_PLAN_ERROR = 0.002  # m


@dataclass(frozen=True)
class Waypoint:
    """Where the grasp point (3,) in m is to be at a step, the gripper's turn (w, x, y, z), how far open."""

    step: int
    position: np.ndarray
    turn: np.ndarray
    gripper: float


class AlohaExpert:
    """Plans one episode from the simulator's present state and hands the plan out step by step.

    Args:
        model, data: the `MjModel` and `MjData` of the task, just reset; they are only read.
        task: transfer_cube or insertion.
        noise: standard deviation in rad of the difference between executed and recorded arm joints.
        seed: of that noise.

    Raises:
        UserError: something cannot be reached, or the noise is negative.
    """

    def __init__(self, model: Any, data: Any, *, task: str, noise: float = 0.0, seed: int = 0):
        self._drift = Drift(noise, size=2 * len(JOINTS), seed=seed)
        self._plan = Plan(plan(model, data, task=task))

    def __len__(self) -> int:
        return len(self._plan)

    def step(self) -> Decision:
        """The next step; after the end of the plan its last target, again and again."""
        clean = self._plan.step()
        noisy = clean.copy()
        is_joint = np.ones(len(clean), dtype=bool)
        is_joint[[len(JOINTS), -1]] = False  # the grippers are never disturbed
        noisy[is_joint] += self._drift.step()
        return Decision(clean.astype(np.float32), noisy.astype(np.float32))


def plan(model: Any, data: Any, *, task: str) -> np.ndarray:
    """Action targets (T, A) that solve the task."""
    left, right = Arm(model, data, side="left"), Arm(model, data, side="right")
    if task == "transfer_cube":
        ways = taking(left.here()), giving(right.here(), lying(data, "box", CUBE_HALF))
    else:
        ways = (
            joining(left.here(), lying(data, "socket", SOCKET_HALF), side=-1),
            joining(right.here(), lying(data, "peg", PEG_HALF), side=1),
        )
    tracks = [arm.follow(way) for arm, way in zip((left, right), ways, strict=True)]
    length = max(map(len, tracks))
    return np.concatenate([np.pad(t, ((0, length - len(t)), (0, 0)), mode="edge") for t in tracks], axis=1)


def lying(data: Any, body: str, half: float) -> np.ndarray:
    """The middle (3,) of a thing on the table; it is dropped at the start and lies when an arm arrives."""
    x, y, _ = data.body(body).xpos
    return np.array([x, y, half])


def giving(here: Waypoint, cube: np.ndarray) -> list[Waypoint]:
    """The way of the arm that picks the cube up; its fingers point back over the table, and down."""
    sloped = turned((0, 0, np.pi), (0, SLOPE, 0))
    back = np.array([np.cos(SLOPE), 0.0, np.sin(SLOPE)])  # out of the fingers, towards the hand
    return [
        here,
        Waypoint(70, cube + [0, 0, 0.09], sloped, OPEN),
        Waypoint(105, cube, sloped, OPEN),
        Waypoint(130, cube, sloped, CLOSED),
        Waypoint(210, MEETING, sloped, CLOSED),
        Waypoint(285, MEETING, sloped, CLOSED),
        Waypoint(300, MEETING, sloped, OPEN),
        Waypoint(330, MEETING + 0.10 * back, sloped, OPEN),
    ]


def taking(here: Waypoint) -> list[Waypoint]:
    """The way of the arm that takes the cube over; its fingers point across, one jaw is above the other."""
    rolled = turned((np.pi / 2, 0, 0))
    beside, away = np.array([-0.12, 0, 0]), np.array([-0.15, 0, 0])
    return [
        here,
        Waypoint(110, here.position, here.turn, here.gripper),
        Waypoint(200, MEETING + beside, rolled, OPEN),
        Waypoint(250, MEETING, rolled, OPEN),
        Waypoint(280, MEETING, rolled, CLOSED),
        Waypoint(300, MEETING, rolled, CLOSED),
        Waypoint(340, MEETING + away, rolled, CLOSED),
    ]


def joining(here: Waypoint, thing: np.ndarray, *, side: int) -> list[Waypoint]:
    """The way of the left (`side` -1) or right (1) arm that brings socket or peg to the other one."""
    sloped = turned((0, 0, np.pi), (0, SLOPE, 0)) if side > 0 else turned((0, SLOPE, 0))
    grasp = thing.copy()
    grasp[2] = max(thing[2], MIN_GRASP_HEIGHT)
    middle = MEETING + grasp - thing  # what is held higher than its middle hangs that much lower
    out = np.array([side / 2, 0, 0])
    return [
        here,
        Waypoint(80, grasp + [0, 0, 0.09], sloped, OPEN),
        Waypoint(120, grasp, sloped, OPEN),
        Waypoint(150, grasp, sloped, CLOSED),
        Waypoint(240, middle + APART * out, sloped, CLOSED),
        Waypoint(260, middle + APART * out, sloped, CLOSED),
        Waypoint(380, middle + TOGETHER * out, sloped, CLOSED),
    ]


class Arm:
    """One of the two arms: which joint angles put its grasp point where a waypoint says."""

    def __init__(self, model: Any, data: Any, *, side: str):
        self._mujoco = require("mujoco", extra="aloha")
        self._model, self._data = model, self._mujoco.MjData(model)
        self._data.qpos[:] = data.qpos
        joints = [model.joint(f"vx300s_{side}/{name}") for name in JOINTS]
        self._places = np.array([joint.qposadr[0] for joint in joints])
        self._columns = np.array([joint.dofadr[0] for joint in joints])
        self._lower, self._upper = np.array([joint.range for joint in joints]).T
        self._link = model.body(f"vx300s_{side}/gripper_link").id

    def here(self) -> Waypoint:
        """Where the arm is, at step 0, its gripper as good as closed."""
        position, turn = self._pose()
        return Waypoint(0, position, turn, CLOSED)

    def follow(self, waypoints: list[Waypoint]) -> np.ndarray:
        """Joint targets and gripper (T, 7) along eased ways from each waypoint to the next.

        Raises:
            UserError: a place on the way is out of reach.
        """
        targets = []
        for start, goal in itertools.pairwise(waypoints):
            for step in range(1, goal.step - start.step + 1):
                part = 0.5 - 0.5 * np.cos(np.pi * step / (goal.step - start.step))
                position = start.position + part * (goal.position - start.position)
                angles = self._reach(position, self._between(start.turn, goal.turn, part))
                targets.append([*angles, start.gripper + part * (goal.gripper - start.gripper)])
        return np.array(targets)

    def _reach(self, position: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Joint angles (6,), beginning from the last ones."""
        jacobian, wrong_turn, back = np.zeros((6, self._model.nv)), np.zeros(3), np.zeros(4)
        for _ in range(MAX_ITERATIONS):
            here, here_turn = self._pose()
            self._mujoco.mju_negQuat(back, here_turn)
            difference = np.zeros(4)
            self._mujoco.mju_mulQuat(difference, turn, back)
            self._mujoco.mju_quat2Vel(wrong_turn, difference, 1.0)
            error = np.concatenate([position - here, wrong_turn])  # (6,) m and rad, world
            if np.abs(error).max() < 1e-4:
                break
            self._mujoco.mj_jac(self._model, self._data, jacobian[:3], jacobian[3:], here, self._link)
            ours = jacobian[:, self._columns]  # (6, 6)
            change = ours.T @ np.linalg.solve(ours @ ours.T + DAMPING * np.eye(6), error)
            angles = self._data.qpos[self._places] + change
            self._data.qpos[self._places] = np.clip(angles, self._lower, self._upper)
        error_m = float(np.linalg.norm(position - self._pose()[0]))
        if error_m > MAX_PLAN_ERROR:
            raise UserError(
                f"The arm cannot reach {position.round(3).tolist()} m (off by {1000 * error_m:.1f} mm). "
                "Put the cube nearer."
            )
        return self._data.qpos[self._places].copy()

    def _pose(self) -> tuple[np.ndarray, np.ndarray]:
        """The grasp point (3,) and the gripper's turn (4,) in the world."""
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)  # which the Jacobian needs
        forwards = self._data.xmat[self._link].reshape(3, 3)[:, 0]
        return self._data.xpos[self._link] + GRASP_X * forwards, self._data.xquat[self._link].copy()

    def _between(self, start: np.ndarray, goal: np.ndarray, part: float) -> np.ndarray:
        """The turn that is so far on the shortest way between two."""
        velocity, turn = np.zeros(3), start.copy()
        self._mujoco.mju_subQuat(velocity, goal, start)
        self._mujoco.mju_quatIntegrate(turn, velocity, part)
        return turn


def turned(*rotations: tuple[float, float, float]) -> np.ndarray:
    """The quaternion (w, x, y, z) of turns one after the other, each (3,) in rad in the frame so far."""
    mujoco = require("mujoco", extra="aloha")
    turn = np.array([1.0, 0.0, 0.0, 0.0])
    for rotation in rotations:
        mujoco.mju_quatIntegrate(turn, np.array(rotation, dtype=np.float64), 1.0)
    return turn
