"""Mean, spread and quantiles of data that arrives in pieces: stable moments and a histogram per dimension.

Moments follow Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances" (1979): deviations are taken from each piece's own mean, in float64, so a small spread around a
large mean survives.

    piece (N, D)  ->  update  ->  count, mean, squared deviation, min, max (D), histogram (D, 5000)

Shapes: N rows of a piece, D dimensions.
"""

import numpy as np

NUM_BINS = 5000
EDGE = 1e-10  # the outermost edges lie this far outside the data
QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)


def quantile_name(quantile: float) -> str:
    """The name in stats.json: 0.01 is q01."""
    return f"q{round(quantile * 100):02d}"


class RunningQuantileStats:
    """Statistics of rows seen so far; each dimension has a histogram that widens with its data."""

    def __init__(self, quantile_list: list[float] | None = None, num_quantile_bins: int = NUM_BINS) -> None:
        self.quantiles = tuple(quantile_list or QUANTILES)
        self.num_bins = num_quantile_bins
        self.count = 0

    def update(self, batch: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add rows (N, D), or (N,) for one dimension.

        `weights` (N, D) whole numbers say how often each value occurred: a table of distinct values then
        stands for all of them. Every column of `weights` must have the same sum.
        """
        batch = np.asarray(batch)
        batch = batch.reshape(-1, 1) if batch.ndim < 2 else batch.reshape(-1, batch.shape[-1])
        self.dtype = np.result_type(batch.dtype, np.float32)
        values = batch.astype(np.float64)  # (N, D)
        counts = np.ones_like(values) if weights is None else weights.astype(np.float64)
        total = int(round(counts[:, 0].sum()))
        if not total:
            return
        here = np.where(counts > 0, values, np.nan)
        low, high = np.nanmin(here, axis=0), np.nanmax(here, axis=0)  # (D,)
        mean = (values * counts).sum(axis=0) / total
        squares = (counts * (values - mean) ** 2).sum(axis=0)
        if not self.count:
            self.min, self.max, self.mean, self.squares, self.count = low, high, mean, squares, total
            self._start_histogram()
        else:
            self._merge_moments(mean, squares, total)
            self._widen(low, high)
        for d in range(values.shape[1]):
            self.histogram[d] += np.histogram(values[:, d], bins=self.edges[d], weights=counts[:, d])[0]

    def get_statistics(self) -> dict[str, np.ndarray]:
        """min, max, mean, std and the quantiles, each (D,), and count (1,): the number of rows.

        Raises:
            ValueError: nothing was added yet.
        """
        if not self.count:
            raise ValueError("There are no statistics of nothing: call update() with at least one row first.")
        stats = {
            "min": self.min.astype(self.dtype),
            "max": self.max.astype(self.dtype),
            "mean": self.mean.astype(self.dtype),
            "std": np.sqrt(self.squares / self.count).astype(self.dtype),
            "count": np.array([self.count]),
        }
        for quantile in self.quantiles:
            value = self.mean if self.count < 2 else self._quantile(quantile)
            stats[quantile_name(quantile)] = value.copy()
        return stats

    def _start_histogram(self) -> None:
        self.edges = np.linspace(self.min - EDGE, self.max + EDGE, self.num_bins + 1, axis=-1)  # (D, bins+1)
        self.histogram = np.zeros((len(self.min), self.num_bins))

    def _merge_moments(self, mean: np.ndarray, squares: np.ndarray, count: int) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + squares + delta**2 * (self.count * count / total)
        self.count = total

    def _widen(self, low: np.ndarray, high: np.ndarray) -> None:
        """Take in a wider range: old counts move to the new bin that holds their bin's centre."""
        grew = (low < self.min) | (high > self.max)
        self.min, self.max = np.minimum(self.min, low), np.maximum(self.max, high)
        for d in np.flatnonzero(grew):
            padding = (self.max[d] - self.min[d]) * EDGE
            edges = np.linspace(self.min[d] - padding, self.max[d] + padding, self.num_bins + 1)
            centres = (self.edges[d][:-1] + self.edges[d][1:]) / 2
            self.histogram[d] = np.histogram(centres, bins=edges, weights=self.histogram[d])[0]
            self.edges[d] = edges

    def _quantile(self, quantile: float) -> np.ndarray:
        """The value (D,) below which this share of the rows lies, straight lines inside a bin."""
        target = quantile * self.count
        values = np.empty(len(self.min))
        for d, (counts, edges) in enumerate(zip(self.histogram, self.edges, strict=True)):
            reached = np.cumsum(counts)
            at = min(int(np.searchsorted(reached, target)), self.num_bins - 1)
            if at == 0:
                values[d] = edges[0]
                continue
            inside = (target - reached[at - 1]) / counts[at] if counts[at] else 0.0
            values[d] = edges[at] + inside * (edges[at + 1] - edges[at])
        return values
