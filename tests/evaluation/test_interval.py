"""The intervals against published worked examples, against their own definitions, and against chance."""

import itertools
import math

import numpy as np
import pytest

from lerobot.evaluation.interval import (
    Z_95,
    mcnemar_p,
    mean_interval,
    paired_interval,
    student_95,
    wilson_interval,
)

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


# --------------------------------------------------------------------------------------------- paired rates
# Counts (both, only B, only A, neither) -> interval of B minus A and exact p value. Fagerland, Lydersen and
# Laake 2014, "Recommended tests and confidence intervals for paired binomial proportions" (airway hyper-
# responsiveness, Bentur 2009) and "Statistical analysis of contingency tables" 2017, chapter 8 (complete
# response, Cavo 2012): the Newcombe square-and-add intervals and McNemar exact conditional tests there.
PUBLISHED_PAIRS = {
    (1, 1, 7, 12): (-0.507, -0.026, 0.0703),
    (59, 6, 16, 80): (-0.1186, -0.0046, 0.0525),
}


@pytest.mark.parametrize("counts, expected", PUBLISHED_PAIRS.items())
def test_published_pairs(counts, expected):
    both, only_b, only_a, neither = counts
    low, high, p = expected
    found = paired_interval(both=both, only_b=only_b, only_a=only_a, neither=neither)
    digits = 5e-4 if abs(low) > 0.2 else 5e-5
    assert found == pytest.approx((low, high), abs=digits)
    assert mcnemar_p(only_b=only_b, only_a=only_a) == pytest.approx(p, abs=5e-5)


def every_table(trials):
    for both, only_b, only_a in itertools.product(range(trials + 1), repeat=3):
        if both + only_b + only_a <= trials:
            yield {
                "both": both, "only_b": only_b, "only_a": only_a, "neither": trials - both - only_b - only_a
            }  # fmt: skip


def test_every_paired_interval_of_eight_episodes_is_sound():
    for table in every_table(8):
        low, high = paired_interval(**table)
        difference = (table["only_b"] - table["only_a"]) / 8
        assert -1 <= low <= difference <= high <= 1
        turned = table | {"only_a": table["only_b"], "only_b": table["only_a"]}
        assert paired_interval(**turned) == pytest.approx((-high, -low)), "A and B are alike"
        mirrored = table | {"both": table["neither"], "neither": table["both"]}
        assert paired_interval(**mirrored) == pytest.approx((low, high)), "so are success and failure"


def test_agreement_narrows_the_interval():
    narrow = paired_interval(both=20, only_b=5, only_a=0, neither=25)
    wide = paired_interval(both=0, only_b=25, only_a=20, neither=5)
    assert narrow[0] > 0 > wide[0], "5 of 50 in one direction is told apart, 25 against 20 is not"
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


def test_paired_intervals_hold_the_truth_as_often_as_they_say():
    draw = np.random.default_rng(0)
    shares, trials = [0.45, 0.25, 0.1, 0.2], 40
    truth = shares[1] - shares[2]
    held = 0
    for both, only_b, only_a, neither in draw.multinomial(trials, shares, size=1000).tolist():
        low, high = paired_interval(both=both, only_b=only_b, only_a=only_a, neither=neither)
        held += low <= truth <= high
    assert 930 <= held <= 980


def test_counts_that_cannot_be():
    with pytest.raises(ValueError, match="at least 1 in all"):
        paired_interval(both=0, only_b=0, only_a=0, neither=0)


def test_mcnemar_without_disagreement_and_with_much():
    assert mcnemar_p(only_b=0, only_a=0) == 1.0 and mcnemar_p(only_b=3, only_a=3) == 1.0
    assert mcnemar_p(only_b=6, only_a=0) == 2 / 64 == mcnemar_p(only_b=0, only_a=6)
    assert 0 <= mcnemar_p(only_b=2500, only_a=0) < 1e-300


# ---------------------------------------------------------------------------------------------------- means
# Printed tables of Student's distribution, 0.975.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize("freedom, expected", STUDENT.items())
def test_students_table(freedom, expected):
    assert student_95(freedom) == pytest.approx(expected, abs=5e-4)


def test_student_becomes_normal():
    assert student_95(100_000) == pytest.approx(Z_95, abs=1e-4)


def test_the_extra_hours_of_sleep():
    # Student 1908: extra sleep with drug 2 rather than drug 1, ten patients, paired; mean 1.58, published
    # everywhere with the interval 0.70 to 2.46.
    extra = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert mean_interval(extra) == pytest.approx((0.70, 2.46), abs=5e-3)


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [0.0, 0.0, 0.0], [0.1] * 7])
def test_one_episode_and_equal_ones_say_nothing_of_others(values):
    assert mean_interval(values) is None


def test_equal_counts_are_a_mean_of_means():
    values = np.array([1.0, 2.0, 4.0])
    assert mean_interval(values * 7, [7, 7, 7]) == pytest.approx(mean_interval(values))


def test_a_ratio_holds_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        counts = draw.integers(5, 15, size=20)
        level = draw.normal(3.0, 1.0, size=20)  # of each episode: its values resemble each other
        low, high = mean_interval(level * counts, counts)
        held += low <= 3.0 <= high
    assert 925 <= held <= 975
