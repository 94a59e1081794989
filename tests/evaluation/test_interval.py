"""The interval against published values and against its own definition."""

import math

import pytest

from lerobot.evaluation.interval import Z_95, wilson_interval

# Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
PUBLISHED = {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
}


@pytest.mark.parametrize("counts, expected", PUBLISHED.items())
def test_published_values(counts, expected):
    assert wilson_interval(*counts) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("successes", range(1, 50, 7))
def test_its_ends_are_the_rates_that_the_test_just_accepts(successes):
    for end in wilson_interval(successes, 50):
        assert abs(successes / 50 - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / 50))


def test_all_or_nothing_stays_inside():
    assert wilson_interval(50, 50)[1] == 1.0 and 0.92 < wilson_interval(50, 50)[0] < 0.94
    assert wilson_interval(0, 1)[0] == 0.0


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts(counts):
    with pytest.raises(ValueError, match="expected 0 to"):
        wilson_interval(*counts)
