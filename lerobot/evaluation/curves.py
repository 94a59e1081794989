"""The story of a training run as parts of a page: one number, charts of `metrics.jsonl`, tables, videos.

metrics.jsonl -> read_rows -> charts, evaluations;   TrainingStory (facts, checkpoints) -> story_parts -> page
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lerobot.evaluation import page
from lerobot.evaluation.charts import Line, line_chart

Rows = Sequence[Mapping[str, Any]]
MAX_FILMS = 8  # evaluations whose first video is shown
NO_CURVE = ("step", "epoch", "eta_s")  # numbers that say nothing over the steps


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart: the columns of a metrics file that belong together; a pattern may end in a star."""

    title: str
    columns: tuple[str, ...]
    y_range: tuple[float, float] | None = None
    is_log: bool = False  # what falls by orders of magnitude

    def draw(self, rows: Rows, names: Sequence[str]) -> str:
        """The chart of these columns, or nothing."""
        lines = []
        for name in names:
            those = [row for row in rows if isinstance(row.get(name), (int, float))]
            label = "validation" if name == "eval/loss" else name.removeprefix("eval/").removesuffix("_share")
            lines.append(
                Line(label.replace("_", " "), [row["step"] for row in those], [row[name] for row in those])
            )
        is_log = self.is_log and all(value > 0 for line in lines for value in line.y)
        return line_chart(self.title, lines, x_label="step", y_range=self.y_range, is_log=is_log)


CHARTS = (
    Chart(title="loss", columns=("loss", "eval/loss"), is_log=True),
    Chart(title="success in simulation", columns=("eval/success_rate",), y_range=(0.0, 1.0)),
    Chart(title="parts of the loss", columns=("*_loss",), is_log=True),
    Chart(title="learning rate", columns=("lr", "lr/*", "lr_*")),
    Chart(title="gradient norm", columns=("grad_norm",), is_log=True),
    Chart(title="samples per second", columns=("samples_per_s",), y_range=(0.0, 0.0)),
    Chart(title="tokens per second", columns=("tokens_per_s",), y_range=(0.0, 0.0)),
    Chart(title="where the time goes (share of a step)", columns=("*_share",), y_range=(0.0, 1.0)),
    Chart(title="memory", columns=("memory*", "peak_*", "*_gb", "*_mb"), y_range=(0.0, 0.0)),
    Chart(title="reward in simulation", columns=("eval/avg_sum_reward", "eval/avg_max_reward")),
)


@dataclass(frozen=True, kw_only=True)
class TrainingStory:
    """What a page about a training run says besides its numbers."""

    title: str  # such as "act on me/so101_pick"
    state: str  # whether it ended, and where
    facts: Mapping[str, str]  # names and values, in order
    checkpoints: Sequence[Sequence[str]] = ()  # step, folder, size of each
    films: Mapping[str, Path] = field(default_factory=dict)  # caption: a video of each evaluation


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file that have a step; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise
    return [row for row in rows if "step" in row]


def charts(rows: Rows) -> list[str]:
    """Charts over the steps: those that everybody looks for, then one for every other number."""
    named = dict.fromkeys(name for row in rows for name in row)
    hidden = {name for name in named if name.endswith("_ms") and name != "step_ms"}  # the shares say it
    names = [name for name in named if name not in NO_CURVE and name not in hidden]
    drawn = []
    for chart in CHARTS:
        own = [name for pattern in chart.columns for name in names if fnmatchcase(name, pattern)]
        drawn.append(chart.draw(rows, list(dict.fromkeys(own))))
        names = [name for name in names if name not in own]
    others = [Chart(title=name, columns=(name,)).draw(rows, [name]) for name in names]
    return [
        page.section("Training", page.grid(drawn, is_wide=True)),
        page.section("Other numbers", page.grid(others, is_wide=True)),
    ]


def story_headline(story: TrainingStory, rows: Rows) -> str:
    """The number that the run is about: success where it was measured, else a loss."""
    for name, what, form in HEADLINES:
        found = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))]
        if not found:
            continue
        (first, began), (last, value) = found[0], found[-1]
        best_step, best = (max if name == "eval/success_rate" else min)(found, key=lambda pair: pair[1])
        text = f"{what} at step {last:,}"
        if len(found) > 1:
            text += f"; {began:{form}} at step {first:,}, best {best:{form}} at step {best_step:,}"
        return page.headline(f"{value:{form}}", f"{text}. {story.state}")
    return page.headline("–", f"No numbers were logged. {story.state}")


HEADLINES = (  # column, what it is, format
    ("eval/success_rate", "success in simulation", ".0%"),
    ("eval/loss", "loss on held-out frames", ".4g"),
    ("loss", "training loss", ".4g"),
)


def evaluations(rows: Rows) -> str:
    """A table of what was measured on the way, a line per step."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        values = {name: value for name, value in row.items() if name.startswith("eval/")}
        if values:
            found.setdefault(row["step"], {}).update(values)
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    cells = [
        [f"{step:,}", *(_cell(name, values.get(name)) for name in names)] for step, values in found.items()
    ]
    header = ["step", *(name.removeprefix("eval/").replace("_", " ") for name in names)]
    return page.section("Evaluations", page.table(header, cells)) if cells else ""


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return f"{value:.0%}" if name.endswith("_rate") else f"{value:.4g}"


def films(story: TrainingStory, *, relative_to: Path, is_embedded: bool) -> str:
    """A video of each evaluation, so that one sees the policy learn."""
    those = list(story.films.items())
    if len(those) > MAX_FILMS:
        those = [those[round(i * (len(those) - 1) / (MAX_FILMS - 1))] for i in range(MAX_FILMS)]
    shown = [
        page.video(path, caption, relative_to=relative_to, is_embedded=is_embedded) for caption, path in those
    ]
    return page.section("Learning, on video", page.grid(shown))


def checkpoints(story: TrainingStory) -> str:
    """The table of checkpoints."""
    if not story.checkpoints:
        return ""
    return page.section("Checkpoints", page.table(["step", "folder", "size"], story.checkpoints))
