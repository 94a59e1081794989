"""Episodes of a scripted expert, attempted one after the other here or several at a time in processes.

    environment, seed --reset, expert.step(), step, ...--> frames: observation, recorded action, outcome

A worker process loads no torch, hears no Ctrl-C, and ends with the process it belongs to, however that ends.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import gymnasium
import numpy as np

from lerobot.core import keys
from lerobot.core.errors import ConfigError, LeRobotError, suggest
from lerobot.core.observation import features_of
from lerobot.core.signals import become_worker

PATIENCE_S = 0.1  # between two looks at whether somebody wants to stop

Frame = dict[str, Any]


class Decision(Protocol):
    """One decision of an expert."""

    recorded: np.ndarray  # (A,) the action that the dataset stores
    executed: np.ndarray  # (A,) the action that the robot is told


class Expert(Protocol):
    """Solves the episode that was just reset."""

    def step(self) -> Decision:
        """What to do now."""


@runtime_checkable
class HasExperts(Protocol):
    """An environment with experts for the episode it is in."""

    task_description: str
    experts: Mapping[str, Callable[[float], Expert]]  # from a standard deviation of noise; its own first
    expert_noise: float  # the usual standard deviation


class Buildable(Protocol):
    """The config of an environment with one task."""

    def build(self) -> gymnasium.Env:
        """A new environment."""


@dataclass(frozen=True)
class Driver:
    """Who drives: the expert's name and noise; None is the environment's own, and its usual noise."""

    expert: str | None = None
    noise: float | None = None

    def attempt(self, env: gymnasium.Env, *, seed: int, is_stopped: Callable[[], bool]) -> Iterator[Frame]:
        """The frames of one episode, as they happen."""
        world = world_with_expert(env, self.expert)
        observation, _ = env.reset(seed=seed)
        name = self.expert or next(iter(world.experts))
        expert = world.experts[name](world.expert_noise if self.noise is None else self.noise)
        is_done = False
        while not is_done and not is_stopped():
            decision = expert.step()
            frame = features_of(observation)
            observation, reward, has_ended, is_over_time, info = env.step(decision.executed)
            is_done = bool(has_ended or is_over_time)
            yield frame | {
                keys.ACTION: decision.recorded,
                keys.REWARD: np.array([reward], np.float32),
                keys.DONE: np.array([is_done]),
                keys.SUCCESS: np.array([bool(info["is_success"])]),
                keys.TASK: world.task_description,
            }


class Here:
    """Attempts in this process; use it in a `with`."""

    def __init__(self, driver: Driver, *, is_stopped: Callable[[], bool]):
        self._driver, self._is_stopped = driver, is_stopped
        self._cfg: Buildable | None = None
        self._env: gymnasium.Env | None = None

    def attempts(
        self, cfg: Buildable, *, first_seed: int, wanted: Callable[[], int]
    ) -> Generator[Iterable[Frame], None, None]:
        """Episodes of one environment with consecutive seeds, while more than 0 are `wanted`."""
        seed = first_seed
        while wanted() > 0:
            yield self._driver.attempt(self._env_of(cfg), seed=seed, is_stopped=self._is_stopped)
            seed += 1

    def _env_of(self, cfg: Buildable) -> gymnasium.Env:
        """The environment, kept until another one is asked for."""
        if self._env is None or cfg != self._cfg:
            self.close()
            self._cfg, self._env = cfg, cfg.build()
        return self._env

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Elsewhere:
    """Attempts in `num_processes` processes, in the same order with the same results; use it in a `with`."""

    def __init__(self, driver: Driver, *, num_processes: int, is_stopped: Callable[[], bool]):
        self._num_processes, self._is_stopped = num_processes, is_stopped
        context = multiprocessing.get_context("spawn")  # a fork of a process that has drawn cannot draw
        self._stop = context.Event()
        self._pool = ProcessPoolExecutor(
            num_processes, mp_context=context, initializer=begin_worker, initargs=(driver, self._stop)
        )

    def attempts(
        self, cfg: Buildable, *, first_seed: int, wanted: Callable[[], int]
    ) -> Generator[Iterable[Frame], None, None]:
        """Episodes of one environment with consecutive seeds, while more than 0 are `wanted`."""
        seed, ahead = first_seed, deque[Future[list[Frame]]]()
        try:
            while wanted() > 0:
                while len(ahead) < min(self._num_processes, wanted()):
                    ahead.append(self._pool.submit(attempt_in_worker, cfg, seed))
                    seed += 1
                yield self._frames(ahead.popleft())
        except BrokenProcessPool as error:
            raise LeRobotError(
                "A process of --num_processes ended amid an episode. If nobody did that, the simulator "
                "crashed or the system had no memory left: try fewer. A script that collects does it below "
                '`if __name__ == "__main__":`, since such processes import it.'
            ) from error
        finally:
            for future in ahead:
                future.cancel()

    def _frames(self, future: "Future[list[Frame]]") -> list[Frame]:
        """An episode when it is there; none when somebody wants to stop before."""
        while not self._is_stopped():
            try:
                return future.result(timeout=PATIENCE_S)
            except TimeoutError:
                continue
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()  # what still runs is not wanted
        self._pool.shutdown(cancel_futures=True)


# ------------------------------------------------------------------------------------------- in the worker
_worker: Here | None = None


def begin_worker(driver: Driver, stop: Event) -> None:
    """Make this process one that attempts episodes until `stop`."""
    global _worker  # a pool gives its tasks no other place to keep an environment
    become_worker()
    _worker = Here(driver, is_stopped=stop.is_set)


def attempt_in_worker(cfg: Buildable, seed: int) -> list[Frame]:
    """One episode, whole."""
    assert _worker is not None
    return list(next(_worker.attempts(cfg, first_seed=seed, wanted=lambda: 1)))


# ------------------------------------------------------------------------------------------------- shared
def world_with_expert(env: gymnasium.Env, name: str | None = None) -> HasExperts:
    """The environment, without wrappers around it, that makes an expert of this name (None: any).

    Raises:
        ConfigError: it has no expert, or none of this name.
    """
    world: Any = env
    while not isinstance(world, HasExperts) and isinstance(world, gymnasium.Wrapper):
        world = world.env
    if not isinstance(world, HasExperts):
        raise ConfigError(
            f"{type(env.unwrapped).__name__} has no scripted expert. Environments with one: "
            "aloha, metaworld, pusht, so101."
        )
    if name is not None and name not in world.experts:
        raise ConfigError(
            f"--expert={name}: there is no such expert here. Known: {', '.join(world.experts)}."
            f"{suggest(name, world.experts)}"
        )
    return world
