"""Between two looks: queues of observations and actions, and averaging of overlapping chunks.

    observation -> ObservationQueue -> (B, O, ...) -> policy -> chunk (B, T, A) -> ActionQueue -> action (B,
    A)
                                                                             \\-> TemporalEnsemble -> action
                                                                             (B, A)

Shapes: B batch, O observations a policy looks at, T actions of a chunk, A action size.
"""

from collections import deque

import torch
from torch import Tensor


class ActionQueue:
    """The actions of a chunk that are still to be executed."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._actions: deque[Tensor] = deque()

    def __len__(self) -> int:
        return len(self._actions)

    def put(self, chunk: Tensor) -> None:
        """Keep the first `length` actions of a chunk (B, T, A), replacing what was left."""
        self._actions = deque(chunk[:, : self.length].unbind(1))

    def pop(self) -> Tensor:
        """The next action (B, A)."""
        return self._actions.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._actions.clear()


class ObservationQueue:
    """The last `length` observations; the first one after `clear` fills all places."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._seen: deque[dict[str, Tensor]] = deque(maxlen=length)

    def put(self, observation: dict[str, Tensor]) -> None:
        """Add an observation {name: (B, ...)}; the oldest one leaves."""
        self._seen.extend([observation] * (1 if self._seen else self.length))

    def stacked(self) -> dict[str, Tensor]:
        """All observations, oldest first: {name: (B, O, ...)}."""
        return {name: torch.stack([seen[name] for seen in self._seen], dim=1) for name in self._seen[-1]}

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()


class TemporalEnsemble:
    """Averages what successive chunks say about the same moment.

    With the predictions for a moment counted from the oldest, i = 0, their weights are exp(-coeff * i): a
    positive `coeff` trusts old predictions more. Only the running average and the number of predictions in it
    are kept.

    Paper: Zhao et al. 2023, algorithm 2.
    """

    def __init__(self, coeff: float, chunk_size: int) -> None:
        self.weights = torch.exp(-coeff * torch.arange(chunk_size))  # (T,)
        self.sums = self.weights.cumsum(0)  # (T,)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._average: Tensor | None = None  # (B, T-1, A) between calls
        self._counts = torch.ones(0, 1, dtype=torch.long)  # (T-1, 1)

    def update(self, chunk: Tensor) -> Tensor:
        """The averaged action (B, A) of now, given the chunk (B, T, A) that was just predicted."""
        if self._average is None:
            self.weights, self.sums = self.weights.to(chunk.device), self.sums.to(chunk.device)
            self._average = chunk
            self._counts = torch.ones(chunk.shape[1], 1, dtype=torch.long, device=chunk.device)
        else:
            known, counts = chunk[:, :-1], self._counts  # (B, T-1, A), (T-1, 1)
            blended = self._average * self.sums[counts - 1] + known * self.weights[counts]
            self._average = torch.cat([blended / self.sums[counts], chunk[:, -1:]], dim=1)
            self._counts = torch.cat([counts + 1, torch.ones_like(counts[:1])])
        action = self._average[:, 0]
        self._average, self._counts = self._average[:, 1:], self._counts[1:]
        return action
