"""Line charts and interval bars as inline SVG: no library, no script, colours from the page's style sheet.

Line(name, x, y), ... -> line_chart -> "<svg>...</svg>"
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 460, 220  # of a chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 32  # margins
MAX_POINTS = 400  # of a line; more are averaged in groups
NUM_TICKS = 4
NUM_COLOURS = 4  # .line0 to .line3 of the style sheet


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


def line_chart(title: str, lines: Sequence[Line], *, x_label: str = "") -> str:
    """A chart of the lines, or an empty text when none has a point."""
    drawn = [(i, line, line.points()) for i, line in enumerate(lines)]
    drawn = [item for item in drawn if len(item[2])]
    if not drawn:
        return ""
    every = np.concatenate([points for _, _, points in drawn])
    x_axis, y_axis = _Axis.of(every[:, 0], LEFT, WIDTH - RIGHT), _Axis.of(every[:, 1], HEIGHT - BOTTOM, TOP)
    parts = [f'<text class="title" x="{LEFT}" y="14">{html.escape(title)}</text>']
    for value in y_axis.ticks:
        y = y_axis.place(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in x_axis.ticks:
        x = x_axis.place(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{value:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    for i, _, points in drawn:
        places = " ".join(f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in points)
        if len(points) == 1:
            middle_x, middle_y = places.split(",")
            parts.append(f'<circle class="dot{i % NUM_COLOURS}" cx="{middle_x}" cy="{middle_y}" r="3"/>')
        else:
            parts.append(f'<polyline class="line{i % NUM_COLOURS}" points="{places}"/>')
    parts += _legend([(i, line.name) for i, line, _ in drawn]) if len(lines) > 1 else []
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def interval_bar(rate: float, low: float, high: float) -> str:
    """A bar from 0 to 1 that shows a rate, and its interval as a band."""
    shapes = [
        '<rect class="track" x="0" y="6" width="400" height="12" rx="6"/>',
        f'<rect class="done" x="0" y="6" width="{400 * rate:.1f}" height="12" rx="6"/>',
        f'<line class="whisker" x1="{400 * low:.1f}" x2="{400 * high:.1f}" y1="12" y2="12"/>',
        *(
            f'<line class="whisker" x1="{400 * end:.1f}" x2="{400 * end:.1f}" y1="4" y2="20"/>'
            for end in (low, high)
        ),
    ]
    return f'<svg class="interval" viewBox="-2 0 404 24" role="img">{"".join(shapes)}</svg>'


def _legend(names: Sequence[tuple[int, str]]) -> list[str]:
    """Names at the right of the title's line, coloured as their lines."""
    parts, x = [], float(WIDTH - RIGHT)
    for i, name in reversed(names):
        place = f'x="{x:.0f}" y="14" text-anchor="end"'
        parts.append(f'<text class="tick fill{i % NUM_COLOURS}" {place}>{html.escape(name)}</text>')
        x -= 6.2 * len(name) + 14
    return parts


@dataclass(frozen=True)
class _Axis:
    """Where values lie between two places of the drawing."""

    low: float
    high: float
    first: float
    last: float

    @classmethod
    def of(cls, values: np.ndarray, first: float, last: float) -> "_Axis":
        low, high = float(values.min()), float(values.max())
        spread = (high - low) or abs(high) or 1.0
        pad = 0.0 if high > low else spread / 2
        return cls(low - pad, high + pad, first, last)

    def place(self, value: float) -> float:
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    @property
    def ticks(self) -> list[float]:
        """Round values inside the axis, about NUM_TICKS of them."""
        rough = (self.high - self.low) / NUM_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [round((first + i) * step, 12) for i in range(count)]
