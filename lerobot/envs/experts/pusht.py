"""A sampling planner for PushT: it tries pushes on a copy of the simulator and carries out the best one.

    block, pusher --every contact, along its normal, every length--> predicted poses --nearest to the goal-->
    one push --around the block, then the push--> actions;   then plan again from where the block really is

The block has no friction with the pusher, so a push acts along the normal of its contact, and a place on the
outline and a length are all there is to sample. Far from the goal pushes are quick, near it slow and fine:
the mean distance of the block's corners from where they belong says how near it is.

Everything is in the units of the plane, 0 to 512; a pose is x, y and an angle in rad; N places, T steps.
"""

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerobot.core.optional import require
from lerobot.sim.decision import Decision, Drift

OUTLINE = np.array(  # (8, 2) the block's corners in its own frame, counter-clockwise
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], dtype=np.float64
)
RADIUS = 15.0  # of the pusher
LOW, HIGH = 23.0, 488.0  # where the pusher's middle does not touch a wall
STEP_S, TICKS = 0.1, 10  # a control step and the physics steps in it
STIFFNESS, DAMPING = 100.0, 20.0  # of the spring that pulls the pusher to the action
LEAD_S = DAMPING / STIFFNESS  # the pusher follows a moving action by so much later
SPACING = 12.0  # between contacts
GAP = 3.0  # between pusher and block before a push
NEAR = 25.0  # mean distance of the corners below which pushes are fine
QUICK, FINE = (9.0, 16), (3.0, 12)  # distance a step, and steps, of the longest push
STEP_PRICE, FINE_STEP_PRICE = 0.25, 0.01  # mean distance of the corners that a step more must be worth
TRAVEL = 20.0  # distance a step on the way to a push
MARGIN = 4.0  # that the way keeps from the block where it can
CELL = 6.0  # of the grid on which ways are found


@dataclass(frozen=True)
class Push:
    """One push: where the pusher begins (2,), where it goes (2,), how far a step, for how many steps."""

    start: np.ndarray
    direction: np.ndarray
    speed: float
    steps: int


class PushTPlanner:
    """Plans pushes for the episode that was just reset.

    Args:
        env: `gym_pusht`'s own environment; it is only read.
        noise: standard deviation of the difference between executed and recorded actions.
        seed: of that noise.

    Raises:
        UserError: the noise is negative.
    """

    def __init__(self, env: Any, *, noise: float = 0.0, seed: int = 0):
        self._env, self._drift = env, Drift(noise, size=2, seed=seed)
        self._rng = np.random.default_rng([seed, 2])
        self._sandbox = Sandbox()
        self._ahead: Iterator[np.ndarray] = iter(())

    def step(self) -> Decision:
        """The next wished place of the pusher (2,)."""
        clean = next(self._ahead, None)
        if clean is None:
            self._ahead = iter(self._plan())
            clean = next(self._ahead)
        noisy = np.clip(clean + self._drift.step(), 0, 512)
        return Decision(clean.astype(np.float32), noisy.astype(np.float32))

    def _plan(self) -> list[np.ndarray]:
        """Actions that take the pusher to the best push and through it."""
        pose = np.array([*self._env.block.position, self._env.block.angle])
        here = np.array(self._env.agent.position)
        for push in self._ranked(pose, here):
            way = route(outline(pose), here, push.start)
            if way is not None:
                return [np.clip(action, 0, 512) for action in actions(way, push)]
        return [
            np.clip(here + self._rng.normal(0, 60, 2), LOW, HIGH)
        ]  # stuck between block and wall: wriggle

    def _ranked(self, pose: np.ndarray, here: np.ndarray) -> list[Push]:
        """Every contact's best push, the best of all first."""
        goal = outline(self._env.goal_pose)
        is_near = corner_distance(outline(pose), goal) < NEAR
        (speed, longest), price = (FINE, FINE_STEP_PRICE) if is_near else (QUICK, STEP_PRICE)
        found: list[tuple[float, int, Push]] = []
        for start, direction in contacts(pose):
            longest_push = Push(start, direction, speed, longest)
            poses = self._sandbox.push(pose, longest_push)
            steps = np.linalg.norm(start - here) / TRAVEL + np.arange(1, len(poses) + 1)
            costs = [corner_distance(outline(p), goal) for p in poses] + price * steps
            best = int(np.argmin(costs))
            found.append((costs[best], len(found), Push(start, direction, speed, best + 1)))
        return [push for _, _, push in sorted(found)]


class Sandbox:
    """The simulator's walls, pusher and block once more, to try pushes on."""

    def __init__(self) -> None:
        package, pymunk = (require(name, extra="pusht") for name in ("gym_pusht.envs.pusht", "pymunk"))
        self._space = pymunk.Space()
        self._space.damping = 0.0  # what is not pushed stands still
        corners = [(5, 5), (506, 5), (506, 506), (5, 506)]
        for i in range(4):
            self._space.add(package.PushTEnv.add_segment(self._space, corners[i - 1], corners[i], 2))
        self._pusher = package.PushTEnv.add_circle(self._space, (256, 400), RADIUS)
        self._block, _ = package.PushTEnv.add_tee(self._space, (256, 300), 0)

    def push(self, pose: np.ndarray, push: Push) -> np.ndarray:
        """The block's poses (T, 3) after each step of a push; fewer where a wall ends it."""
        block, pusher = self._block, self._pusher
        block.angle = float(pose[2])  # before the position: it turns about the centre of gravity
        block.position = tuple(map(float, pose[:2]))
        block.velocity, block.angular_velocity = (0, 0), 0
        pusher.position, pusher.velocity = tuple(map(float, push.start)), (0, 0)
        poses = []
        for action in push_actions(push):
            self._follow(float(action[0]), float(action[1]))
            poses.append([*block.position, block.angle])
            if not all(LOW <= place <= HIGH for place in pusher.position):
                break
        return np.array(poses)

    def _follow(self, x: float, y: float) -> None:
        """One control step, the pusher pulled to x, y."""
        (px, py), (vx, vy), tick_s = self._pusher.position, self._pusher.velocity, STEP_S / TICKS
        for _ in range(TICKS):
            vx += (STIFFNESS * (x - px) - DAMPING * vx) * tick_s
            vy += (STIFFNESS * (y - py) - DAMPING * vy) * tick_s
            self._pusher.velocity = (vx, vy)
            self._space.step(tick_s)
            px, py = px + vx * tick_s, py + vy * tick_s


def outline(pose: np.ndarray) -> np.ndarray:
    """The block's corners (8, 2) at a pose."""
    return pose[:2] + OUTLINE @ turn(pose[2]).T


def turn(angle: float) -> np.ndarray:
    """The matrix (2, 2) that turns by an angle."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def corner_distance(corners: np.ndarray, goal: np.ndarray) -> float:
    """Mean distance of corners (8, 2) from where they belong."""
    return float(np.linalg.norm(corners - goal, axis=1).mean())


def contacts(pose: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where a pusher can stand before the outline, and the way from there into the block, each (2,)."""
    shapely = require("shapely", extra="pusht")
    corners = outline(pose)
    block = shapely.Polygon(corners)
    for corner, following in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = np.linalg.norm(following - corner)
        along = (following - corner) / length
        outwards = np.array([along[1], -along[0]])
        number = int(length // SPACING)
        for k in range(number):
            start = corner + along * length * (k + 0.5) / number + outwards * (RADIUS + GAP)
            is_inside = (start > LOW).all() and (start < HIGH).all()
            if is_inside and block.distance(shapely.Point(start)) > RADIUS + GAP - 0.5:
                yield start, -outwards


def actions(way: list[np.ndarray], push: Push) -> Iterator[np.ndarray]:
    """Actions (2,) along a way, a moment of rest at its end, and the push."""
    for start, end in itertools.pairwise(way):
        number = max(1, int(np.ceil(np.linalg.norm(end - start) / TRAVEL)))
        change = (end - start) / number
        for k in range(1, number + 1):
            yield start + k * change + change * LEAD_S / STEP_S
    yield push.start
    yield push.start
    yield from push_actions(push)


def push_actions(push: Push) -> Iterator[np.ndarray]:
    """Actions (2,) that move the pusher evenly: each is as far ahead as the pusher lags."""
    for k in range(1, push.steps + 1):
        yield push.start + push.direction * push.speed * (k + LEAD_S / STEP_S)


def route(block: np.ndarray, start: np.ndarray, goal: np.ndarray) -> list[np.ndarray] | None:
    """Corners of a short way for the pusher from `start` to `goal` around the block (8, 2), or None.

    A* on a grid; cells within `MARGIN` of the block are dear, those that touch it closed.
    """
    shapely = require("shapely", extra="pusht")
    polygon = shapely.Polygon(block)
    axis = np.arange(LOW, HIGH, CELL)
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)  # (N, N, 2)
    distance = shapely.distance(polygon, shapely.points(places))  # (N, N)
    first, last = (
        tuple(np.clip(np.rint((p - LOW) / CELL), 0, len(axis) - 1).astype(int)) for p in (start, goal)
    )
    price = np.where(distance > RADIUS + MARGIN, 1.0, 12.0)
    price[distance <= RADIUS - 1] = np.inf
    price[last] = 1.0
    cells = _shortest(price, first, last)
    if cells is None:
        return None
    points = [start, *(places[cell] for cell in cells[1:-1]), goal]
    way = [start]
    while way[-1] is not goal:
        begin = next(i for i, p in enumerate(points) if p is way[-1])
        ahead = range(len(points) - 1, begin + 1, -1)
        is_free = (  # a straight line saves corners wherever it passes
            i for i in ahead if polygon.distance(shapely.LineString([way[-1], points[i]])) >= RADIUS + MARGIN
        )
        way.append(points[next(is_free, begin + 1)])
    return way


def _shortest(price: np.ndarray, first: tuple, last: tuple) -> list[tuple] | None:
    """The cheapest chain of neighbouring cells of a grid (N, N) of prices."""
    best, queue = {first: 0.0}, [(0.0, first)]
    came_from: dict[tuple, tuple] = {}
    while queue:
        _, cell = heapq.heappop(queue)
        if cell == last:
            chain = [last]
            while chain[-1] != first:
                chain.append(came_from[chain[-1]])
            return chain[::-1]
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                near = (cell[0] + dx, cell[1] + dy)
                if not (0 <= near[0] < len(price) and 0 <= near[1] < len(price)) or near == cell:
                    continue
                cost = best[cell] + price[near] * np.hypot(dx, dy)
                if cost < best.get(near, np.inf):
                    best[near], came_from[near] = cost, cell
                    ahead = np.hypot(near[0] - last[0], near[1] - last[1])
                    heapq.heappush(queue, (cost + ahead, near))
    return None
