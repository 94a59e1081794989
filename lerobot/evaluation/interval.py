"""How far a number measured on a few episodes can be from the true one: 95 % intervals.

    successes of n episodes                            wilson_interval
    successes of two policies in the same n episodes   paired_interval, mcnemar_p
    means over n episodes                              mean_interval

Wilson 1927, "Probable inference, the law of succession, and statistical inference": the interval stays
inside [0, 1] and is honest where the rate is 0 or 1, unlike the usual plus-minus. Newcombe 1998, "Improved
confidence intervals for the difference between binomial proportions based on paired data" (method 10): two of
Wilson's, joined by how much the policies agree. McNemar 1947, "Note on the sampling error of the difference
between correlated proportions", in its exact form. Student 1908, "The probable error of a mean".
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
ROUNDING = 1e-12  # relative spread of values that are equal but for their last digits
Interval = tuple[float, float]


def wilson_interval(successes: int, trials: int, *, z: float = Z_95) -> Interval:
    """Lower and upper end of the interval for a rate, in [0, 1]; 95 % unless `z` says otherwise.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: expected 0 to {trials} of at least 1.")
    rate = successes / trials
    centre = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    # At the ends the formula gives exactly 0 and 1, but rounding does not.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def paired_interval(*, both: int, only_b: int, only_a: int, neither: int) -> Interval:
    """The interval of rate B minus rate A, in [-1, 1], from how many episodes each of two policies solved.

    Raises:
        ValueError: no episodes, or a negative count.
    """
    trials = both + only_b + only_a + neither
    if trials < 1 or min(both, only_b, only_a, neither) < 0:
        raise ValueError(
            f"{both}, {only_b}, {only_a}, {neither} episodes: expected counts of at least 1 in all."
        )
    rate_b, rate_a = (both + only_b) / trials, (both + only_a) / trials
    low_b, high_b = wilson_interval(both + only_b, trials)
    low_a, high_a = wilson_interval(both + only_a, trials)
    agreement = _agreement(both, only_b, only_a, neither)

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * agreement * one * other + other**2))

    difference = rate_b - rate_a
    low = difference - distance(rate_b - low_b, high_a - rate_a)
    high = difference + distance(high_b - rate_b, rate_a - low_a)
    return max(-1.0, low), min(1.0, high)


def _agreement(both: int, only_b: int, only_a: int, neither: int) -> float:
    """The correlation of both successes, if positive drawn towards 0; 0 where a policy always does alike."""
    product = (both + only_b) * (only_a + neither) * (both + only_a) * (only_b + neither)
    if not product:
        return 0.0
    excess: float = both * neither - only_b * only_a
    if excess > 0:
        excess = max(0.0, excess - (both + only_b + only_a + neither) / 2)
    return excess / math.sqrt(product)


def mcnemar_p(*, only_b: int, only_a: int) -> float:
    """How probable it is that policies of equal success disagree at least so unevenly: two-sided, exact."""
    disagreements = only_b + only_a
    tail = sum(math.comb(disagreements, k) for k in range(min(only_b, only_a) + 1))
    return min(1.0, 2 * tail / 2**disagreements)


def mean_interval(
    totals: Sequence[float] | np.ndarray, counts: Sequence[float] | np.ndarray | None = None
) -> Interval | None:
    """The interval of a mean over episodes; None where they say nothing of others: one, or all quite alike.

    Args:
        totals: of each episode its value, or, with `counts`, the sum of its values.
        counts: how many values each sum is of. The mean is then over all values, and the interval that of a
            ratio (Cochran 1977, "Sampling techniques", 2.11): values of one episode resemble each other, so
            episodes are what counts, not values.
    """
    sums = np.asarray(totals, dtype=np.float64)
    weights = np.ones_like(sums) if counts is None else np.asarray(counts, dtype=np.float64)
    number = len(sums)
    if number < 2:
        return None
    mean = sums.sum() / weights.sum()
    spread = math.sqrt(number / (number - 1) * np.square(sums - mean * weights).sum())
    if spread <= ROUNDING * abs(mean) * weights.sum():
        return None
    half = student_95(number - 1) * spread / weights.sum()
    return float(mean - half), float(mean + half)


@functools.cache
def student_95(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution with so many degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _student_inside(angle, freedom) < 0.95 else (low, angle)
    return math.sqrt(freedom) * math.tan(angle)


def _student_inside(angle: float, freedom: int) -> float:
    """The share of Student's distribution within plus-minus sqrt(freedom) tan(angle).

    Abramowitz and Stegun 1964, 26.7.3 and 26.7.4: a finite sum in powers of the cosine.
    """
    cosine, is_odd = math.cos(angle), freedom % 2
    term = cosine if is_odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if is_odd else 2, freedom, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total
