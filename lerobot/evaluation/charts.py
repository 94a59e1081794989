"""Line charts and interval bars as inline SVG: no library, no script.

Line(name, x, y), ... -> line_chart -> "<svg>...</svg>"

Each shape carries the colours of a light page; a style sheet may override them by class (.line0, .tick, ...).
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 460, 220  # of a chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 56, 18, 28, 34  # margins
LEGEND = 18  # height of a line of names below the title, where they do not fit beside it
LETTER = 6.6  # average width of a letter of a name
MAX_POINTS = 400  # of a line; more are averaged in groups
NUM_TICKS = 4
COLOURS = ("#2563eb", "#e07b00", "#15803d", "#9333ea", "#0e7490", "#be185d")  # of the lines, in turn
INK, SOFT, FAINT = "#1b2430", "#5d6b7c", "#dfe4ea"


@dataclass(frozen=True)
class Line:
    """One line of a chart; points that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def points(self) -> np.ndarray:
        """(N, 2) finite points, at most MAX_POINTS."""
        points = np.array([self.x, self.y], dtype=np.float64).T.reshape(-1, 2)
        points = points[np.isfinite(points).all(1)]
        if len(points) > MAX_POINTS:
            points = np.stack([group.mean(0) for group in np.array_split(points, MAX_POINTS)])
        return points


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str = "",
    y_range: tuple[float, float] | None = None,
    is_log: bool = False,
) -> str:
    """A chart of the lines, or an empty text when none has a point.

    Args:
        y_range: widens the vertical axis.
        is_log: logarithmic vertical axis; points that are not positive are left out.
    """
    drawn = [(i, line.name, line.points()) for i, line in enumerate(lines)]
    drawn = [(i, name, points[points[:, 1] > 0] if is_log else points) for i, name, points in drawn]
    drawn = [item for item in drawn if len(item[2])]
    if not drawn:
        return ""
    every = np.concatenate([points for _, _, points in drawn])
    names, below = legend([(i, name) for i, name, _ in drawn], title) if len(lines) > 1 else ([], 0)
    x_axis = Axis.of(every[:, 0], LEFT, WIDTH - RIGHT)
    y_axis = Axis.of(np.append(every[:, 1], y_range or ()), HEIGHT - BOTTOM, TOP + below, is_log=is_log)
    parts = [label(title, LEFT, 14, kind="title", anchor="start", fill=INK), *names]
    for value in y_axis.ticks:
        y = y_axis.place(value)
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="grid" stroke="{FAINT}" {ends}/>')
        parts.append(label(tick_text(value), LEFT - 6, y + 4, anchor="end"))
    parts += [label(tick_text(value), x_axis.place(value), HEIGHT - 18) for value in x_axis.ticks]
    parts.append(label(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4))
    for i, _, points in drawn:
        parts.append(_curve(i, [(x_axis.place(x), y_axis.place(y)) for x, y in points]))
    return drawing(title, parts, width=WIDTH, height=HEIGHT)


def drawing(title: str, parts: Sequence[str], *, width: float, height: float) -> str:
    """The parts as one picture of that size, in SVG units."""
    size = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(title)}"'
    return f'<svg class="chart" {size}>{"".join(parts)}</svg>'


def sheet(charts: Sequence[str]) -> str:
    """The text of an SVG file in which the charts, each of the usual size, stand below each other."""
    placed = "".join(
        chart.replace('<svg class="chart"', f'<svg y="{HEIGHT * i}" width="{WIDTH}" height="{HEIGHT}"', 1)
        for i, chart in enumerate(charts)
    )
    height = HEIGHT * len(charts)
    size = f'width="{2 * WIDTH}" height="{2 * height}" viewBox="0 0 {WIDTH} {height}"'
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{background}{placed}</svg>'


def interval_bar(rate: float, low: float, high: float) -> str:
    """A bar from 0 to 1 that shows a rate, and its interval as a whisker."""
    left, middle, right = 400 * low, 400 * rate, 400 * high
    ends = "".join(
        f'<line class="whisker" stroke="{INK}" stroke-width="2" x1="{a:.1f}" x2="{b:.1f}" y1="{c}" y2="{d}"/>'
        for a, b, c, d in ((left, right, 12, 12), (left, left, 4, 20), (right, right, 4, 20))
    )
    return (
        '<svg class="interval" viewBox="-2 0 404 24" role="img">'
        f'<rect class="track" fill="{FAINT}" x="0" y="6" width="400" height="12" rx="6"/>'
        f'<rect class="done" fill="{COLOURS[0]}" x="0" y="6" width="{middle:.1f}" height="12" rx="6"/>'
        f"{ends}</svg>"
    )


def label(
    text: str, x: float, y: float, *, kind: str = "tick", anchor: str = "middle", fill: str = SOFT
) -> str:
    """A text of the drawing; `anchor` says which part of it lies at x: start, middle or end."""
    font = f'font-family="sans-serif" font-size="{14 if kind == "title" else 12}"'
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" fill="{fill}" {font} {place}>{html.escape(text)}</text>'


def _curve(i: int, places: Sequence[tuple[float, float]]) -> str:
    """A line through the places; a dot where there is only one."""
    number, colour = i % len(COLOURS), COLOURS[i % len(COLOURS)]
    if len(places) == 1:
        x, y = places[0]
        return f'<circle class="dot{number}" fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    look = f'fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"'
    return f'<polyline class="line{number}" {look} points="{points}"/>'


def tick_text(value: float) -> str:
    """A tick's label: '0.25', '20k', '1.5M', '1e-05'."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:g}"


def legend(names: Sequence[tuple[int, str]], title: str) -> tuple[list[str], int]:
    """Names in the colours of their lines, beside the title or below it; and the height that takes."""
    width = sum(LETTER * len(name) + 14 for _, name in names)
    fits = LEFT + 8.2 * len(title) + 14 + width <= WIDTH - RIGHT
    x = WIDTH - RIGHT - width + 14 if fits else float(LEFT)
    parts = []
    for i, name in names:
        number, y = i % len(COLOURS), 14 if fits else 14 + LEGEND
        parts.append(label(name, x, y, kind=f"tick fill{number}", anchor="start", fill=COLOURS[number]))
        x += LETTER * len(name) + 14
    return parts, 0 if fits else LEGEND


@dataclass(frozen=True)
class Axis:
    """Where values lie between two places of the drawing; made by `of`."""

    low: float
    high: float
    first: float
    last: float
    is_log: bool = False  # low and high are then powers of ten

    @classmethod
    def of(cls, values: np.ndarray, first: float, last: float, *, is_log: bool = False) -> "Axis":
        """The axis on which all values lie between the places `first` and `last`."""
        values = np.log10(values) if is_log else values
        low, high = float(values.min()), float(values.max())
        spread = (high - low) or abs(high) or 1.0
        pad = 0.0 if high > low else spread / 2
        return cls(low - pad, high + pad, first, last, is_log)

    def place(self, value: float) -> float:
        """Where a value lies, in SVG units."""
        value = math.log10(value) if self.is_log else value
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    @property
    def ticks(self) -> list[float]:
        """Round values inside the axis, about NUM_TICKS of them."""
        if self.is_log:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            within = [m * 10.0**k for k in powers for m in (1, 2, 5)]
            within = [value for value in within if self.low <= math.log10(value) <= self.high]
            return within[:: max(1, round(len(within) / NUM_TICKS))]
        rough = (self.high - self.low) / NUM_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [round((first + i) * step, 12) for i in range(count)]
