"""Charts: what is drawn where, on both kinds of axis."""

import re

import pytest

from lerobot.evaluation.charts import Line, line_chart


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
