"""How far a success rate measured on a few episodes can be from the true one.

Wilson 1927, "Probable inference, the law of succession, and statistical inference": the interval stays inside
[0, 1] and is honest where the rate is 0 or 1, unlike the usual plus-minus.
"""

import math

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson_interval(successes: int, trials: int, *, z: float = Z_95) -> tuple[float, float]:
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
