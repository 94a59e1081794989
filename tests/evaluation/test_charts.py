"""Charts: what is drawn where, on both kinds of axis; bars that add up; intervals where they belong."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from lerobot.evaluation.bars import MAX_BARS, Measured, bin_edges, forest, histogram
from lerobot.evaluation.charts import Line, line_chart, sheet


def heights(svg: str) -> list[float]:
    points = re.search(r'points="([^"]+)"', svg).group(1)
    return [float(point.split(",")[1]) for point in points.split()]


def tick_texts(svg: str) -> list[str]:
    return re.findall(r'class="tick"[^>]*text-anchor="end">([^<]+)<', svg)


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis():
    svg = line_chart("loss", [Line("loss", [0, 1, 2], [100.0, 1.0, 0.01])], is_log=True)
    high, middle, low = heights(svg)
    assert high < middle < low and middle - high == pytest.approx(low - middle, abs=0.2)
    assert {"0.01", "1"} & set(tick_texts(svg))


def test_points_that_have_no_logarithm_are_left_out():
    svg = line_chart("loss", [Line("loss", [0, 1, 2], [10.0, 0.0, 1.0])], is_log=True)
    assert len(heights(svg)) == 2
    assert line_chart("loss", [Line("loss", [0], [-1.0])], is_log=True) == ""


def test_one_value_on_a_logarithmic_axis():
    assert "circle" in line_chart("loss", [Line("loss", [3], [0.5])], is_log=True)


def test_a_plain_axis_is_linear():
    first, second, third = heights(line_chart("rate", [Line("rate", [0, 1, 2], [0.0, 1.0, 2.0])]))
    assert first - second == pytest.approx(second - third, abs=0.2)


def bars(svg: str) -> list[dict[str, float]]:
    """Every bar's place, and how many it says it is of."""
    place = ' x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"'
    found = re.findall(rf'<rect class="fill(\d)"[^>]*{place}><title>[^:]+: (\d+)', svg)
    return [
        dict(zip(("kind", "x", "y", "width", "height", "count"), map(float, one), strict=True))
        for one in found
    ]


def test_a_histogram_counts_every_value_once():
    values = np.random.default_rng(0).normal(size=300)
    found = bars(histogram("t", {"a": values[:200], "b": values[200:]}))
    assert sum(bar["count"] for bar in found if bar["kind"] == 0) == 200
    assert sum(bar["count"] for bar in found if bar["kind"] == 1) == 100
    heights_per_count = {round(bar["height"] / bar["count"], 1) for bar in found if bar["count"] > 3}
    assert max(heights_per_count) - min(heights_per_count) <= 0.2, "heights are proportional"


def test_kinds_stand_on_top_of_each_other():
    lower, upper = bars(histogram("t", {"a": [5.0] * 3, "b": [5.0] * 2}))
    assert lower["x"] == upper["x"] and upper["y"] + upper["height"] == pytest.approx(lower["y"], abs=0.1)


def test_a_kind_keeps_its_colour_where_another_is_absent():
    (bar,) = bars(histogram("t", {"success": [], "no success": [1.0, 1.0]}))
    assert (bar["kind"], bar["count"]) == (1, 2)
    assert histogram("t", {"a": []}) == ""


@pytest.mark.parametrize(
    "values, count", [([1, 2, 3], 3), ([0.0] * 9, 5), (np.arange(5000) / 7, MAX_BARS), ([1.5, 2.5], 5)]
)
def test_bars_are_few_and_hold_everything(values, count):
    values = np.asarray(values, np.float64)
    edges = bin_edges(values)
    assert len(edges) == count + 1 and np.histogram(values, edges)[0].sum() == len(values)


def test_a_forest_places_numbers_and_intervals():
    svg = forest(
        "t", [Measured("a", 0.0, -0.5, 0.5, "x"), Measured("<b>", 1.0, None, None, "y")], low=-1, high=1
    )
    dots = [float(x) for x in re.findall(r'<circle[^>]* cx="([^"]+)"', svg)]
    ((left, right),) = re.findall(r'<line class="line0"[^>]* x1="([^"]+)" x2="([^"]+)"', svg)
    assert float(right) - dots[0] == pytest.approx(dots[0] - float(left))
    assert dots[1] - dots[0] == pytest.approx(2 * (float(right) - dots[0]), abs=0.3)
    assert "&lt;b&gt;" in svg and "<b>" not in svg


def test_a_sheet_is_one_file_with_all_charts():
    charts = [line_chart(name, [Line(name, [0, 1], [0.0, 1.0])]) for name in ("pan", "lift")]
    root = ElementTree.fromstring(sheet(charts))
    assert [part.get("y") for part in root if part.tag.endswith("svg")] == ["0", "220"]
    assert "pan" in sheet(charts) and "lift" in sheet(charts)
