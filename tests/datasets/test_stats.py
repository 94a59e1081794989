"""Sketches and summaries against sorting, for distributions made to be hard, and in any order of merging."""

import itertools
import json

import numpy as np
import pytest

from lerobot.core.errors import DatasetError
from lerobot.datasets.sketch import LIMIT, MAX_SHIFT, Sketch, from_ordered_bits, ordered_bits
from lerobot.datasets.stats import get_feature_stats, lack_quantiles, sample_indices, thin_picture
from lerobot.datasets.summary import Summary
from lerobot.datasets.tally import MAX_KEPT, PictureTally

SHARES = (0.0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0)
BOUND = 2.0**-9


def distributions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        "normal": rng.normal(size=50_000),
        "heavy tails": rng.standard_cauchy(50_000),
        "heavier tails": rng.pareto(0.2, 50_000),
        "sixty decades": 10 ** rng.uniform(-30, 30, 50_000) * rng.choice([-1, 1], 50_000),
        "all of float64": rng.integers(-(2**63), 2**63 - 2**53, 50_000).view(np.float64),
        "one constant": np.full(20_000, -3.7),
        "two far clusters": np.concatenate([rng.normal(-1e6, 1, 30_000), rng.normal(1e-6, 1e-9, 10_001)]),
        "small spread far out": rng.normal(1000, 0.01, 50_000),
        "whole numbers": rng.integers(-500, 500, 50_000),
        "large whole numbers": np.arange(3_000_000_000, 3_000_050_000),
        "flags": rng.random(50_000) < 0.011,
        "mostly zero": np.where(rng.random(50_000) < 0.95, 0, rng.normal(size=50_000)),
        "float32": rng.normal(size=50_000).astype(np.float32),
        "negative": -rng.exponential(size=50_000),
        "one number": np.array([0.1]),
        "two numbers": np.array([-1.0, 1e300]),
        "subnormal": rng.integers(1, 2**50, 20_000).view(np.float64),
    }


CASES = {name: values[np.isfinite(values.astype(np.float64))] for name, values in distributions().items()}


def of_rank(values: np.ndarray, share: float) -> float:
    """The number of rank ceil(share * N)."""
    values = np.sort(values.astype(np.float64))
    return values[max(-(-len(values) * round(share * 1000) // 1000), 1) - 1]


@pytest.mark.parametrize("case", CASES)
def test_quantiles_are_within_the_stated_error(case):
    values = CASES[case]
    sketch = Sketch.of(values)
    assert sketch.total == len(values)
    for share in SHARES:
        wanted = of_rank(values, share)
        assert abs(sketch.quantile(share) - wanted) <= BOUND * abs(wanted) + 2.0**-1030, share


@pytest.mark.parametrize("case", ["one constant", "whole numbers", "flags", "one number", "two numbers"])
def test_quantiles_of_few_different_numbers_are_exact(case):
    sketch = Sketch.of(CASES[case])
    assert sketch.shift == 0
    assert [sketch.quantile(share) for share in SHARES] == [of_rank(CASES[case], share) for share in SHARES]


@pytest.mark.parametrize("case", ["small spread far out", "large whole numbers"])
def test_a_small_spread_far_from_zero_is_resolved(case):
    values = CASES[case].astype(np.float64)
    errors = [abs(Sketch.of(values).quantile(share) - of_rank(values, share)) for share in SHARES]
    assert 0 < max(errors) <= (values.max() - values.min()) / 2000


def test_the_bound_is_not_idle():
    """With one bit less the error would be passed: the test above can fail."""
    values = CASES["sixty decades"]
    sketch = Sketch.of(values)
    coarser = Sketch(sketch.bins >> 1, sketch.counts, sketch.shift + 1)
    assert sketch.shift == MAX_SHIFT and len(sketch.bins) > LIMIT
    errors = [
        abs(coarser.quantile(share) / of_rank(values, share) - 1) for share in np.linspace(0.01, 0.99, 99)
    ]
    assert max(errors) > BOUND


@pytest.mark.parametrize("case", CASES)
def test_a_merger_is_the_sketch_of_everything_in_any_order(case):
    rng, values = np.random.default_rng(1), CASES[case]
    whole = Sketch.of(values)
    for _ in range(4):
        cuts = np.sort(rng.integers(0, len(values) + 1, rng.integers(1, 9)))
        parts = [Sketch.of(part) for part in np.split(rng.permutation(values), cuts)]
        assert Sketch.merged(parts) == whole
        while len(parts) > 1:  # pair by pair, in an order of its own
            i, j = sorted(rng.choice(len(parts), 2, replace=False))
            parts.append(Sketch.merged([parts.pop(j), parts.pop(i)]))
        assert parts[0] == whole
    assert Sketch.merged([]) == Sketch.of(np.empty(0))


def test_counts_stand_for_repetitions():
    values, counts = np.array([3.0, 1.0, 2.0, 3.0]), np.array([2, 0, 1, 1])
    assert Sketch.of(values, counts) == Sketch.of(np.array([3.0, 3.0, 2.0, 3.0]))


def test_bits_are_in_the_order_of_the_numbers():
    values = np.sort(CASES["all of float64"])
    places = ordered_bits(values)
    assert (np.diff(places) >= 0).all() and np.array_equal(from_ordered_bits(places), values)
    assert ordered_bits(np.array([-0.0, 0.0])).tolist() == [0, 0]


def test_nothing_has_no_quantile():
    with pytest.raises(ValueError, match="at least one number"):
        Sketch.of(np.empty(0)).quantile(0.5)


def close(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for stat in one:
        np.testing.assert_allclose(one[stat], other[stat], rtol=1e-9, atol=1e-300, err_msg=stat)


@pytest.mark.parametrize("seed", range(5))
def test_statistics_of_any_partition_are_those_of_the_union(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(6000, 5)) * [1, 1e-6, 1e6, 1e-3, 0] + [0, 1, -5e5, 1000, 7]
    cuts = np.sort(rng.choice(np.arange(1, 6000), rng.integers(1, 40), replace=False))
    parts = [Summary.of_rows(part) for part in np.split(rows, cuts)]
    whole = Summary.of_rows(rows).stats()
    close(Summary.merged(parts).stats(), whole)
    close(Summary.merged(parts[::-1]).stats(), whole)
    close(Summary.merged([Summary.merged(parts[:1]), Summary.merged(parts[1:])]).stats(), whole)
    one_by_one = parts[0]
    for part in parts[1:]:
        one_by_one = Summary.merged([one_by_one, part])
    close(one_by_one.stats(), whole)
    np.testing.assert_allclose(whole["std"][:4], rows[:, :4].std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(whole["mean"], rows.mean(axis=0), rtol=1e-9)


def test_quantiles_are_near_those_of_the_histogram_of_other_releases():
    rows = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    ours, theirs = Summary.of_rows(rows).stats(), get_feature_stats(rows, 0, False)
    for stat, value in theirs.items():
        np.testing.assert_allclose(ours[stat], value, atol=2 * np.ptp(rows) / 5000, err_msg=stat)


@pytest.mark.parametrize(
    ("array", "dimensions", "rows"),
    [
        (np.arange(5, dtype=np.int64), 1, 5),
        (np.array([True, False]), 1, 2),
        (np.zeros((4, 3), np.float32), 3, 4),
        (np.arange(24.0).reshape(4, 2, 3), 3, 4),
    ],
)
def test_shapes_and_counts(array, dimensions, rows):
    stats = Summary.of_rows(array).stats()
    assert {stat: value.shape for stat, value in stats.items() if stat != "count"} == dict.fromkeys(
        (name for name in stats if name != "count"), (dimensions,)
    )
    assert stats["count"].tolist() == [rows]


def test_one_row_has_no_spread():
    stats = Summary.of_rows(np.array([[0.1, -2.0]])).stats()
    assert stats.pop("std").tolist() == [0, 0] and stats.pop("count").tolist() == [1]
    assert all(value.tolist() == [0.1, -2.0] for value in stats.values())


def test_numbers_without_statistics_are_refused():
    rows = np.zeros((4, 2, 3))
    rows[2, 1, 0] = np.nan
    with pytest.raises(DatasetError, match="row 2 holds NaN"):
        Summary.of_rows(rows)
    with pytest.raises(DatasetError, match="no rows"):
        Summary.of_rows(np.empty((0, 3)))


def test_summaries_come_back_from_text_bit_for_bit():
    rng = np.random.default_rng(0)
    for summary in (
        Summary.of_rows(rng.normal(size=(9000, 3))),
        Summary.of_levels(np.full((3, 256), 5), num_pictures=2),
    ):
        again = Summary.from_json(json.loads(json.dumps(summary.to_json())))
        assert again.sketches == summary.sketches
        assert (again.rows, again.weight) == (summary.rows, summary.weight)
        assert all(np.array_equal(again.stats()[stat], value) for stat, value in summary.stats().items())


@pytest.mark.parametrize("change", [{"counts": "AAAA"}, {"sizes": [3]}, {"weight": 5}, {"mean": [1, 2]}])
def test_damaged_summaries_are_noticed(change):
    plain = Summary.of_rows(np.arange(4.0)).to_json() | change
    with pytest.raises((ValueError, KeyError, TypeError)):
        Summary.from_json(plain)


def pictures(count: int, shape: tuple[int, int, int], dtype: type) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    high = {np.uint8: 200, np.uint16: 4000, np.float32: 4}[dtype]
    return [(rng.random(shape) * high * (k + 1) / count).astype(dtype) for k in range(count)]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(np.uint8, (3, 12, 16)), (np.uint8, (3, 300, 310)), (np.uint16, (1, 12, 16)), (np.float32, (1, 12, 16))],
)
def test_pictures_are_counted_as_if_all_were_kept(dtype, shape):
    is_depth, given = dtype is not np.uint8, pictures(130, shape, dtype)
    tally = PictureTally(is_depth=is_depth)
    for picture in given:
        reused = picture.copy()
        tally.add(reused)
        reused[:] = 0
    chosen = sample_indices(130)
    pixels = np.stack([thin_picture(given[i]) for i in chosen]).transpose(0, 2, 3, 1).reshape(-1, shape[0])
    pixels = np.sort(pixels.astype(np.float64), axis=0) / (1 if is_depth else 255)
    stats = tally.stats()
    assert len(chosen) < 130 and stats["count"].tolist() == [len(chosen)]
    wanted = {"min": pixels[0], "max": pixels[-1], "mean": pixels.mean(0), "std": pixels.std(0)}
    wanted |= {f"q{p:02d}": pixels[-(-len(pixels) * p // 100) - 1] for p in (1, 10, 50, 90, 99)}
    for stat, value in wanted.items():
        assert stats[stat].shape == (shape[0], 1, 1)
        np.testing.assert_allclose(stats[stat].ravel(), value, rtol=BOUND if stat[0] == "q" else 1e-9)


def test_long_episodes_keep_few_pictures():
    tally = PictureTally(is_depth=False)
    for k in range(2 * MAX_KEPT + 9):
        tally.add(np.full((3, 1, 1), k * 255 // (2 * MAX_KEPT + 8), np.uint8))
    stats = tally.stats()
    assert len(tally._kept) <= MAX_KEPT and stats["count"].tolist() == [len(sample_indices(2 * MAX_KEPT + 9))]
    assert stats["min"].ravel().tolist() == [0] * 3 and (stats["max"] > 0.99).all()
    np.testing.assert_allclose(stats["q50"].ravel(), 0.5, atol=0.01)


def test_features_without_quantiles_are_listed():
    features = {name: {"dtype": kind} for name, kind in (("a", "float32"), ("b", "string"), ("c", "video"))}
    full = Summary.of_rows(np.zeros(3)).stats()
    assert lack_quantiles({"a": full}, features) == ["c"]
    moments = dict(itertools.islice(full.items(), 5))
    assert lack_quantiles({"a": full, "c": moments}, features) == ["c"]
    assert lack_quantiles({"a": full, "c": full}, features) == []
