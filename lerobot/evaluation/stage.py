"""Where episodes take place: slots with an environment each, in this process or in several.

    Begin(assignment) | actions (n, A) --order--> slot --> Seen(observations, or the result)

Every order is answered once; between an order and its answer a slot is busy.
Shapes: n actions planned ahead, A action size.
"""

from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from lerobot.envs.base import Task
from lerobot.evaluation.assignment import Assignment
from lerobot.evaluation.episode import Episode, naming
from lerobot.evaluation.result import EpisodeResult

if TYPE_CHECKING:
    import gymnasium

Order = Assignment | np.ndarray  # an episode to begin, or the next actions (n, A)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A slot's answer: what there is to be seen, oldest first, or how its episode ended."""

    slot: int
    observations: list[Any] = field(default_factory=list)
    task: str = ""
    result: EpisodeResult | None = None
    renderer_problem: str | None = None  # why the episode that began is not filmed


class Stage(Protocol):
    """Slots that are told what to do, and answer when it is done."""

    def tell(self, slot: int, order: Order) -> None:
        """Have a slot begin an episode or go on with it."""

    def hear(self) -> list[Seen]:
        """The answers that have come since; waits for one."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass
class Slots:
    """The environments and episodes of one process; an environment stays until its slot changes the task."""

    num_looks: int
    text: str | None = None  # of the task, instead of the environments' own
    envs: "dict[int, tuple[Task, gymnasium.Env]]" = field(default_factory=dict)
    episodes: dict[int, Episode] = field(default_factory=dict)

    def obey(self, slot: int, order: Order) -> Seen:
        """Carry out an order.

        Raises:
            LeRobotError: what went wrong, with the episode it happened in.
        """
        problem = None
        if isinstance(order, Assignment):
            episode = Episode(self._env(slot, order), order, num_looks=self.num_looks, text=self.text)
            self.episodes[slot] = episode
            episode.start()
            problem = episode.renderer_problem
        else:
            episode = self.episodes[slot]
            episode.run(order)
        if episode.is_done:
            return Seen(slot=slot, result=self.episodes.pop(slot).finish())
        return Seen(
            slot=slot,
            observations=list(episode.observations),
            task=episode.text or "",
            renderer_problem=problem,
        )

    def _env(self, slot: int, order: Assignment) -> "gymnasium.Env":
        task, env = self.envs.get(slot, (None, None))
        if env is not None and task == order.task:
            return env
        if env is not None:
            del self.envs[slot]
            env.close()
        with naming(order, ()):
            self.envs[slot] = order.task, order.env.build()
        return self.envs[slot][1]

    def close(self) -> None:
        """Close the environments; episodes that have not ended leave nothing."""
        for episode in self.episodes.values():
            episode.abort()
        self.episodes.clear()
        while self.envs:
            self.envs.popitem()[1][1].close()


class Here:
    """A stage in this process: orders are carried out one after the other, when their answers are wanted."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.orders: deque[tuple[int, Order]] = deque()

    def tell(self, slot: int, order: Order) -> None:
        """Keep an order for `hear`."""
        self.orders.append((slot, order))

    def hear(self) -> list[Seen]:
        """The answer to the oldest order."""
        return [self.slots.obey(*self.orders.popleft())]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.slots.close()
