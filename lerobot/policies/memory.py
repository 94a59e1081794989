"""What a policy remembers of one episode between two looks.

    observation -> Memory.see -> the last O of them -> plan -> Memory.put -> queue -> pop -> action of now

Every episode has a memory of its own, so those of a batch may begin and end at different times, and none
knows who else is in the batch.

Shapes: O observations a policy looks at, T actions of a chunk, A action size.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lerobot.nn.draws import Draws


class Memory:
    """One episode under way: what was seen last, what is planned, and what the policy keeps besides.

    Args:
        num_looks: how many observations are kept.
        seed: of the episode's own random numbers; None leaves them to torch's generator.
    """

    def __init__(self, num_looks: int = 1, *, seed: int | None = None) -> None:
        self.seen: deque[dict[str, Tensor]] = deque(maxlen=num_looks)  # {name: tensor without batch axis}
        self.actions: deque[Tensor] = deque()  # (A,) each
        self.kept: dict[str, Any] = {}  # a policy's own: a running average, the last plan
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def see(self, observation: dict[str, Tensor]) -> None:
        """Add an observation {name: (...)}; the oldest leaves, the first of an episode fills all places."""
        assert self.seen.maxlen is not None
        self.seen.extend([observation] * (1 if self.seen else self.seen.maxlen))

    def history(self) -> dict[str, Tensor]:
        """All observations, oldest first: {name: (O, ...)}."""
        return {name: torch.stack([seen[name] for seen in self.seen]) for name in self.seen[-1]}

    def put(self, actions: Tensor) -> None:
        """Plan these (T, A), instead of what was left."""
        self.actions = deque(actions.unbind(0))

    def drain(self) -> list[Tensor]:
        """All actions (A,) that are still planned, which will not be asked for one by one."""
        planned = list(self.actions)
        self.actions.clear()
        return planned

    def stand_in(self) -> "Memory":
        """Another memory with the same past, whose use leaves this one as it is."""
        twin = Memory(self.seen.maxlen or 1, seed=None if self.generator is None else 0)
        twin.seen.extend(self.seen)
        twin.kept = dict(self.kept)
        return twin


def draws_of(memories: Sequence[Memory]) -> Draws:
    """Where a batch of these episodes gets its random numbers from."""
    generators = [memory.generator for memory in memories if memory.generator is not None]
    assert len(generators) in (0, len(memories)), "some episodes have random numbers of their own, some not"
    return Draws(generators or None)


def pick(batch: Mapping[str, Any], items: Sequence[int]) -> dict[str, Any]:
    """These items of a batch; the batch itself where they are all of it, in order."""
    if list(items) == list(range(batch_size(batch))):
        return dict(batch)

    def chosen(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim():
            return value[list(items)]
        return [value[i] for i in items] if isinstance(value, list) else value

    return {name: chosen(value) for name, value in batch.items()}


def batch_size(batch: Mapping[str, Any]) -> int:
    """How many items a batch has."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim())
