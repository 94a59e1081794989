"""Averaging of overlapping chunks.

    chunk (B, T, A) at every step -> TemporalEnsemble -> action (B, A)

Shapes: B batch, T actions of a chunk, A action size.
"""

import torch
from torch import Tensor


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
