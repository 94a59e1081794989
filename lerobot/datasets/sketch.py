"""Quantiles of any number of numbers in a few kilobytes: counts per bin, and two sketches add up exactly.

A bin holds the float64 numbers that agree in sign, exponent and the first bits of the mantissa, so bins are
narrow around zero and wide far from it, as in DDSketch (Masson, Rim and Lee, "DDSketch: a fast and
fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019). When there are too many bins,
neighbours are joined in pairs everywhere, as in UDDSketch (Epicoco, Melle, Cafaro, Pulimeno and Morleo,
"UDDSketch: accurate tracking of quantiles in data streams", IEEE Access 2020); here that is one bit less.

    number -> its 64 bits, as an integer in the same order -> without the last `shift` bits -> counted

How far a quantile is from the number of that rank:
  - nothing, when there are at most `LIMIT` different numbers (flags, levels of a picture, short episodes);
  - never more than 2^-9 (0.2 %) of the number itself, and 2^-1030 around zero;
  - less where the numbers lie close together far from zero: when the largest is less than twice the smallest
    (or the other way round below zero), 1 / 2000 of the distance between those two.

A sketch depends on nothing but the numbers it has seen: `shift` is the smallest that keeps the bins below
the limit, and joining bins early or late gives the same bins. So the order of additions and mergers does not
matter, and a merger is the sketch of all numbers together, bit for bit.
Shapes: N numbers, K bins.
"""

from collections.abc import Sequence

import numpy as np

LIMIT = 4096  # bins past which neighbours are joined
MAX_SHIFT = 44  # at least 8 bits of the mantissa are kept, whatever the number of bins
COARSE_SHIFT = 39  # 13 bits of the mantissa: few enough to count large data without sorting it
_MAGNITUDE = np.int64(2**63 - 1)


class Sketch:
    """How often numbers fell into each bin."""

    __slots__ = ("bins", "counts", "shift")

    def __init__(self, bins: np.ndarray, counts: np.ndarray, shift: int) -> None:
        self.bins = bins  # (K,) int64, ascending: ordered bits without the last `shift`
        self.counts = counts  # (K,) int64, none of them 0
        self.shift = shift

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray | None = None) -> "Sketch":
        """The sketch of finite numbers (N,), each occurring `counts` (N,) times, once by default."""
        if counts is not None:
            seen = np.asarray(counts) > 0
            places = ordered_bits(np.asarray(values, dtype=np.float64)[seen])
            return _joined(*_added_up(places, np.asarray(counts, dtype=np.int64)[seen]), 0)
        places = ordered_bits(np.asarray(values, dtype=np.float64))
        counted = _counted_coarsely(places) if len(places) > 4 * LIMIT else None
        if counted is not None:
            return _joined(*counted, COARSE_SHIFT)
        return _joined(*np.unique(places, return_counts=True), 0)

    @classmethod
    def merged(cls, sketches: Sequence["Sketch"]) -> "Sketch":
        """The sketch of everything that these have seen."""
        shift = max((one.shift for one in sketches), default=0)
        if not sketches:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), 0)
        bins = np.concatenate([one.bins >> (shift - one.shift) for one in sketches])
        return _joined(*_added_up(bins, np.concatenate([one.counts for one in sketches])), shift)

    @property
    def total(self) -> int:
        """How many numbers it has seen."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The middle of the bin of the number x for which `share` of the numbers are x or less.

        Of the sorted numbers it is the one of rank ceil(share * N), counted from 1.

        Raises:
            ValueError: nothing was seen yet.
        """
        if not len(self.counts):
            raise ValueError("There is no quantile of nothing: give at least one number first.")
        # Whole numbers: 0.1 * 30 is a little more than 3 in floating point, and would be rank 4.
        rank = -(-self.total * round(share * 1_000_000) // 1_000_000)
        at = int(np.searchsorted(np.cumsum(self.counts), max(rank, 1)))
        first = self.bins[at] << self.shift
        low, high = from_ordered_bits(np.array([first, first + ((1 << self.shift) - 1)]))
        return float(low / 2 + high / 2)  # halves first: the sum may be too large for a float

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sketch)
            and self.shift == other.shift
            and np.array_equal(self.bins, other.bins)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """The bits of float64 numbers as integers in the same order; both zeros are 0."""
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, bits ^ _MAGNITUDE, bits)


def from_ordered_bits(places: np.ndarray) -> np.ndarray:
    """The reverse of `ordered_bits`."""
    return np.where(places < 0, places ^ _MAGNITUDE, places).astype(np.int64).view(np.float64)


def _counted_coarsely(places: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Bins of the coarse shift and their counts, by one pass; None when finer bins may be called for."""
    coarse = places >> COARSE_SHIFT
    low = int(coarse.min())
    span = int(coarse.max()) - low + 1
    if span > max(len(places), 1 << 18):
        return None
    counts = np.bincount(coarse - low, minlength=span)
    filled = np.flatnonzero(counts)
    return (filled + low, counts[filled]) if len(filled) > LIMIT else None


def _added_up(bins: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bins without repetitions, ascending, and the sums of their counts."""
    order = np.argsort(bins, kind="stable")
    bins, counts = bins[order], counts[order]
    if not len(bins):
        return bins, counts
    starts = np.flatnonzero(np.concatenate([[True], bins[1:] != bins[:-1]]))
    return bins[starts], np.add.reduceat(counts, starts)


def _joined(bins: np.ndarray, counts: np.ndarray, shift: int) -> Sketch:
    """The sketch with the fewest joined bins that keeps the limit."""
    low, high = 0, MAX_SHIFT - shift  # one of these is the number of bits to give up
    while low < high:
        middle = (low + high) // 2
        if _num_bins(bins >> middle) <= LIMIT:
            high = middle
        else:
            low = middle + 1
    if low:
        bins, counts = _added_up(bins >> low, counts)
    return Sketch(bins, counts.astype(np.int64, copy=False), shift + low)


def _num_bins(bins: np.ndarray) -> int:
    return int(np.count_nonzero(bins[1:] != bins[:-1])) + bool(len(bins))
