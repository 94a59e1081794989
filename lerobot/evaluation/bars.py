"""Histograms, and rows of numbers with their intervals, as inline SVG.

{name: values} -> histogram -> "<svg>...</svg>"            Measured(name, value, low, high), ... -> forest

Both are drawn like the charts of charts.py, and coloured by the same classes.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lerobot.evaluation.charts import (
    BOTTOM,
    COLOURS,
    FAINT,
    HEIGHT,
    INK,
    LEFT,
    LETTER,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    drawing,
    label,
    legend,
    tick_text,
)

MAX_BARS = 24
WIDE, ROW = 940, 24  # of a forest: its width, and the height of a row
NAMES, VALUES = 250, 190  # width left for names and, on the right, numbers


@dataclass(frozen=True)
class Measured:
    """A number with its interval; without ends where there is none."""

    name: str
    value: float
    low: float | None
    high: float | None
    text: str  # the number as it is written behind the row


def histogram(title: str, values: Mapping[str, Sequence[float]], *, x_label: str = "") -> str:
    """How often which value occurs, the named kinds on top of each other; an empty text without values."""
    kinds = {name: np.asarray(each, np.float64) for name, each in values.items() if len(each)}
    if not kinds:
        return ""
    every = np.concatenate(list(kinds.values()))
    edges = bin_edges(every)  # (bars + 1,)
    stacked = np.cumsum([np.histogram(each, edges)[0] for each in kinds.values()], axis=0)  # (kinds, bars)
    numbers = {name: list(values).index(name) for name in kinds}
    names, below = legend(list(zip(numbers.values(), kinds, strict=True)), title)
    x_axis = Axis.of(edges, LEFT, WIDTH - RIGHT)
    y_axis = Axis.of(np.array([0.0, stacked[-1].max()]), HEIGHT - BOTTOM, TOP + below)
    parts = [label(title, LEFT, 14, kind="title", anchor="start", fill=INK), *names]
    for value in (tick for tick in y_axis.ticks if tick == int(tick)):
        y = y_axis.place(value)
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="grid" stroke="{FAINT}" {ends}/>')
        parts.append(label(tick_text(value), LEFT - 6, y + 4, anchor="end"))
    bottoms = np.concatenate([np.zeros_like(stacked[:1]), stacked[:-1]])
    for (name, number), tops, feet in zip(numbers.items(), stacked, bottoms, strict=True):
        for left, right, top, foot in zip(edges[:-1], edges[1:], tops, feet, strict=True):
            if top > foot:
                x, y = x_axis.place(left), y_axis.place(float(top))
                width, height = x_axis.place(right) - x - 1, y_axis.place(float(foot)) - y
                place = f'x="{x:.1f}" y="{y:.1f}" width="{max(1.0, width):.1f}" height="{height:.1f}"'
                colour = COLOURS[number % len(COLOURS)]
                parts.append(
                    f'<rect class="fill{number % len(COLOURS)}" fill="{colour}" {place}>'
                    f"<title>{html.escape(name)}: {int(top - foot)}</title></rect>"
                )
    parts += [label(tick_text(value), x_axis.place(value), HEIGHT - 18) for value in x_axis.ticks]
    parts.append(label(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4))
    return drawing(title, parts, width=WIDTH, height=HEIGHT)


def bin_edges(values: np.ndarray) -> np.ndarray:
    """The ends of equally wide bars, at most MAX_BARS; whole numbers that fit get a bar each."""
    low, high = values.min(), values.max()
    if low == high:
        return low + np.arange(-2, 4) - 0.5  # one bar in the middle of five places
    if (values == np.round(values)).all() and high - low < MAX_BARS:
        return np.arange(low, high + 2) - 0.5
    count = int(np.clip(np.ceil(2 * np.sqrt(len(values))), 5, MAX_BARS))
    return np.linspace(low, high, count + 1)


def forest(
    title: str, rows: Sequence[Measured], *, low: float, high: float, mark: float | None = None
) -> str:
    """A row per number: its name, where it lies between `low` and `high` with its interval, the number.

    Args:
        mark: a value that is drawn as a line through all rows, such as "no difference".
    """
    axis = Axis.of(np.array([low, high]), NAMES, WIDE - VALUES)
    top, bottom = TOP, TOP + ROW * len(rows)
    parts = [label(title, 0, 14, kind="title", anchor="start", fill=INK)]
    for value in axis.ticks:
        x = axis.place(value)
        place = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"'
        parts.append(f'<line class="grid" stroke="{FAINT}" {place}/>')
        parts.append(label(tick_text(value), x, bottom + 16))
    if mark is not None:
        x = axis.place(mark)
        place = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"'
        parts.append(f'<line class="whisker" stroke="{INK}" stroke-dasharray="4 3" {place}/>')
    for number, row in enumerate(rows):
        y = top + ROW * (number + 0.5)
        parts.append(label(shortened(row.name, NAMES - 12), 0, y + 4, anchor="start"))
        if row.low is not None and row.high is not None:
            place = f'x1="{axis.place(row.low):.1f}" x2="{axis.place(row.high):.1f}" y1="{y}" y2="{y}"'
            parts.append(f'<line class="line0" stroke="{COLOURS[0]}" stroke-width="2.5" {place}/>')
        parts.append(
            f'<circle class="dot0" fill="{COLOURS[0]}" cx="{axis.place(row.value):.1f}" cy="{y}" r="5"/>'
        )
        parts.append(label(row.text, WIDE - VALUES + 14, y + 4, anchor="start"))
    return drawing(title, parts, width=WIDE, height=bottom + 24)


def shortened(text: str, width: float) -> str:
    """As much of a text as fits, its end cut off."""
    room = int(width / LETTER)
    return text if len(text) <= room else text[: room - 1] + "…"
