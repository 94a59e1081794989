"""Plots of a search as inline SVG: trials in order, values against results, curves, shares of importance.

Results -> history_plot, importance_plot, setting_plot, curves_plot -> "<svg>...</svg>"
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lerobot.evaluation.charts import (
    BOTTOM,
    COLOURS,
    FAINT,
    HEIGHT,
    INK,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    label,
    tick_text,
)
from lerobot.search.results import Results, TrialResult
from lerobot.search.space import Choices, Domain

WIDE_RATIO = 30.0  # largest by smallest result from which a plot's axis is logarithmic
ROW = 24  # height of a bar and its name
NAMES = 190  # width of the names of bars
MOST_NAME = 28  # letters of a setting's name that fit there
MOST_CURVES = 60


@dataclass(frozen=True)
class Mark:
    """A trial in a plot."""

    trial: TrialResult
    x: float
    y: float


def history_plot(results: Results) -> str:
    """Every trial in order, and the best result up to each."""
    marks = [Mark(t, t.number, t.value) for t in results.trials if _is_drawn(t) and t.value is not None]
    if not marks:
        return ""
    sign, best, steps = (1 if results.plan.cfg.is_minimized else -1), float("inf"), []
    for mark in marks:
        if mark.trial.state == "finished" and sign * mark.y < best:
            steps.append((mark.x, best))
            best = sign * mark.y
            steps.append((mark.x, best))
    numbers = np.array([mark.x for mark in marks])
    x_axis, y_axis = Axis.of(numbers, LEFT + 8, WIDTH - RIGHT), _value_axis(marks)
    line = [(x_axis.place(x), y_axis.place(sign * y)) for x, y in steps if np.isfinite(y)]
    if line:
        line.append((x_axis.place(float(numbers.max())), line[-1][1]))
    whole = [value for value in x_axis.ticks if value == int(value)]
    ticks = [(x_axis.place(value), tick_text(value)) for value in whole]
    parts = [_polyline(line, f'class="line2" stroke="{COLOURS[2]}" stroke-width="2"')]
    parts += [_dot(mark, results, x_axis.place(mark.x), y_axis.place(mark.y)) for mark in marks]
    return _frame("results in order, and the best so far", y_axis, ticks, parts, x_label="trial")


def setting_plot(results: Results, name: str, domain: Domain) -> str:
    """The results against the values of one setting."""
    drawn = [t for t in results.trials if _is_drawn(t) and t.value is not None and name in t.params]
    if isinstance(domain, Choices):
        options = list(domain.options)
        x_axis = Axis(-0.5, len(options) - 0.5, LEFT, WIDTH - RIGHT)
        marks = [Mark(t, options.index(t.params[name]), t.value) for t in drawn if t.value is not None]
        ticks = [
            (x_axis.place(i), _short(option, 90 // len(options) + 3)) for i, option in enumerate(options)
        ]
    else:
        ends = np.array([domain.low, domain.high], dtype=np.float64)
        x_axis = Axis.of(ends, LEFT + 8, WIDTH - RIGHT, is_log=domain.is_log)
        marks = [Mark(t, t.params[name], t.value) for t in drawn if t.value is not None]
        ticks = [(x_axis.place(value), tick_text(value)) for value in _few(x_axis.ticks)]
    if not marks:
        return ""
    y_axis = _value_axis(marks)
    parts = [_dot(mark, results, x_axis.place(mark.x), y_axis.place(mark.y)) for mark in marks]
    return _frame(name, y_axis, ticks, parts)


def curves_plot(results: Results) -> str:
    """The objective of each trial over its steps, the best trial's in colour."""
    found = [t for t in results.trials if sum(np.isfinite(list(t.steps.values()))) > 1][-MOST_CURVES:]
    best = results.best
    if best is not None and best.same_as is None and len(best.steps) > 1:
        found = [trial for trial in found if trial.number != best.number] + [best]  # drawn last, on top
    if not found:
        return ""
    curves = [[(s, v) for s, v in trial.steps.items() if np.isfinite(v)] for trial in found]
    marks = [Mark(found[0], s, v) for curve in curves for s, v in curve]
    x_axis, y_axis = Axis.of(np.array([m.x for m in marks]), LEFT, WIDTH - RIGHT), _value_axis(marks)
    parts = []
    for trial, curve in zip(found, curves, strict=True):
        is_best = best is not None and trial.number == best.number
        look = f'class="line2" stroke="{COLOURS[2]}" stroke-width="2.4"' if is_best else ""
        look = look or f'class="line0" stroke="{COLOURS[0]}" stroke-width="1" opacity="0.45"'
        parts.append(_polyline([(x_axis.place(x), y_axis.place(y)) for x, y in curve], look))
    ticks = [(x_axis.place(value), tick_text(value)) for value in x_axis.ticks]
    return _frame("each trial over its steps", y_axis, ticks, parts, x_label="step")


def importance_plot(results: Results) -> str:
    """Shares of the settings as bars."""
    if not results.importance:
        return ""
    space, parts = WIDTH - NAMES - 60, [label("importance", 4, 14, kind="title", anchor="start", fill=INK)]
    for i, (name, share) in enumerate(results.importance.items()):
        y = TOP + i * ROW
        parts.append(label(_short(name, MOST_NAME), NAMES - 8, y + 13, anchor="end"))
        place = f'x="{NAMES}" y="{y + 2}" height="{ROW - 9}" rx="3"'
        parts.append(f'<rect class="track" fill="{FAINT}" width="{space}" {place}/>')
        parts.append(
            f'<rect class="done" fill="{COLOURS[0]}" width="{max(1.0, space * share):.1f}" {place}/>'
        )
        parts.append(label(f"{share:.0%}", NAMES + space + 8, y + 13, anchor="start"))
    height = TOP + ROW * len(results.importance)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _is_drawn(trial: TrialResult) -> bool:
    return trial.state in ("finished", "pruned")


def _value_axis(marks: Sequence[Mark]) -> Axis:
    """The vertical axis of results: logarithmic where they lie orders of magnitude apart."""
    values = np.array([mark.y for mark in marks], dtype=np.float64)
    is_log = bool(values.min() > 0 and values.max() / values.min() > WIDE_RATIO)
    return Axis.of(values, HEIGHT - BOTTOM - 6, TOP + 6, is_log=is_log)


def _dot(mark: Mark, results: Results, x: float, y: float) -> str:
    """A trial: filled when it finished, a ring when it was pruned, large when it is the best."""
    best, trial = results.best, mark.trial
    said = f"<title>{html.escape(f'trial {trial.number}, {trial.state}: {mark.y:.4g}')}</title>"
    place = f'cx="{x:.1f}" cy="{y:.1f}"'
    if best is not None and trial.number == best.number:
        return f'<circle class="dot2" fill="{COLOURS[2]}" {place} r="5.5">{said}</circle>'
    if trial.state == "pruned":
        return f'<circle class="line1" fill="none" stroke="{COLOURS[1]}" {place} r="3.2">{said}</circle>'
    return f'<circle class="dot0" fill="{COLOURS[0]}" opacity="0.75" {place} r="3.6">{said}</circle>'


def _polyline(places: Sequence[tuple[float, float]], look: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline {look} fill="none" stroke-linejoin="round" points="{points}"/>'


def _frame(
    title: str,
    y_axis: Axis,
    x_ticks: Sequence[tuple[float, str]],
    parts: Sequence[str],
    *,
    x_label: str = "",
) -> str:
    """A plot: title, grid and tick labels around what is drawn."""
    around = [label(title, LEFT, 14, kind="title", anchor="start", fill=INK)]
    for value in y_axis.ticks:
        y = y_axis.place(value)
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        around.append(f'<line class="grid" stroke="{FAINT}" {ends}/>')
        around.append(label(tick_text(value), LEFT - 6, y + 3.5, anchor="end"))
    around += [label(text, x, HEIGHT - 17) for x, text in x_ticks]
    around.append(label(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4))
    inside = "".join([*around, *parts])
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{inside}</svg>'


def _short(text: str, most: int) -> str:
    """The end of a long name, which says more than its beginning."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _few(ticks: Sequence[float]) -> list[float]:
    """Ticks that have room for long numbers such as 0.00005 beside each other."""
    return list(ticks[:: 2 if len(ticks) > 5 else 1])
