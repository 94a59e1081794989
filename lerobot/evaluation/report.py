"""Writes what was found: `eval_info.json` for programs and `report.html`, which needs no network, for people.

EvalResult, ReplayResult, metrics.jsonl, config -> write_report -> eval_info.json, report.html
"""

import json
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lerobot
from lerobot.core.files import write_text
from lerobot.evaluation import page
from lerobot.evaluation.charts import Line, interval_bar, line_chart
from lerobot.evaluation.result import Curve, EvalResult, ReplayResult

INFO_FILE = "eval_info.json"
REPORT_FILE = "report.html"
EMBEDDED_MB = 12.0  # of videos inside the page; more are played from the files beside it
METRIC_CHARTS = {  # title -> columns of metrics.jsonl
    "loss": ("loss", "l1_loss", "eval/loss"),
    "KL divergence": ("kld_loss",),
    "success rate in simulation": ("eval/success_rate",),
    "learning rate": ("lr",),
    "gradient norm": ("grad_norm",),
}
LOG_CHARTS = ("loss", "KL divergence", "gradient norm")  # they fall by orders of magnitude


def write_report(
    folder: Path,
    *,
    evaluation: EvalResult | None = None,
    replay: ReplayResult | None = None,
    metrics_file: Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """The path of `report.html`, written into the folder; results are also written as `eval_info.json`.

    Args:
        evaluation: episodes in simulation.
        replay: comparison with a dataset.
        metrics_file: `metrics.jsonl` of the training run; left out where it does not exist.
        config: settings to show at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result = evaluation or replay
    if result is not None:
        tree = {**result.to_tree(), "versions": versions()}
        write_text(folder / INFO_FILE, json.dumps(tree, indent=2, ensure_ascii=False))
    parts = [
        *(simulation_parts(evaluation, folder) if evaluation is not None else ()),
        *(replay_parts(replay) if replay is not None else ()),
        *(training_parts(read_rows(metrics_file)) if metrics_file is not None else ()),
        page.folded("All settings", json.dumps(config, indent=2, ensure_ascii=False)) if config else "",
    ]
    now = datetime.now().astimezone()
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    path = folder / REPORT_FILE
    write_text(path, page.document(title_of(evaluation, replay), f"{now:%Y-%m-%d %H:%M}   {used}", parts))
    return path


def title_of(evaluation: EvalResult | None, replay: ReplayResult | None) -> str:
    """What the page is about."""
    if evaluation is not None:
        return f"Evaluation in {evaluation.group}"
    return f"Comparison with {replay.repo_id}" if replay is not None else "Training"


def simulation_parts(result: EvalResult, folder: Path) -> list[str]:
    """Headline, facts, videos and the table of episodes."""
    found = result.overall
    low, high = found["success_rate_interval"]
    count = sum(episode.success for episode in result.episodes)
    text = f"{count} of {len(result.episodes)} episodes succeeded. The true rate lies between "
    text += f"{low:.0%} and {high:.0%} (95 % Wilson interval for so many episodes)."
    rows = {"task": result.task, **{k: v for k, v in result.rows.items() if k != "success rate"}}
    filmed = [episode for episode in result.episodes if episode.video is not None and episode.video.is_file()]
    size_mb = sum(episode.video.stat().st_size for episode in filmed if episode.video) / 1e6
    videos = [
        page.video(
            episode.video,
            f"Episode {episode.index}: {'' if episode.success else 'no '}success, {episode.steps} steps",
            relative_to=folder,
            is_embedded=size_mb <= EMBEDDED_MB,
        )
        for episode in filmed
        if episode.video is not None
    ]
    cells = [
        [str(e.index), str(e.seed), "yes" if e.success else "no", str(e.steps), f"{e.sum_reward:.3f}"]
        + [f"{e.max_reward:.3f}"]
        for e in result.episodes
    ]
    header = ["episode", "seed", "success", "steps", "sum of rewards", "highest reward"]
    return [
        page.headline(
            f"{found['success_rate']:.0%}", text, body=interval_bar(found["success_rate"], low, high)
        ),
        page.facts({**rows, **fact_rows(result.facts)}),
        page.section("Videos", page.grid(videos)),
        page.section("Episodes", page.table(header, cells, marks={"yes": "good", "no": "bad"})),
    ]


def replay_parts(result: ReplayResult) -> list[str]:
    """Headline, facts, error along the chunk, predicted against recorded actions, tables."""
    found, steps = result.overall, result.means("step")
    along = line_chart(
        "mean absolute error along the chunk",
        [Line("mae", range(len(steps)), [step["action_mae"] for step in steps])],
        x_label="steps ahead",
    )
    joints = [
        [name, f"{mean['action_mae']:.4g}", f"{mean['action_mse']:.4g}"]
        for name, mean in zip(result.joint_names, result.means("joint"), strict=True)
    ]
    episodes = [
        [str(number), str(int(count)), f"{mean['action_mae']:.4g}", f"{mean['action_mse']:.4g}"]
        for number, count, mean in zip(
            result.episodes, result.counts[:, 0], result.means("episode"), strict=True
        )
    ]
    text = "is how far a planned action is from the recorded one, on average over joints, steps of the chunk "
    text += (
        "and frames, in the action's own units. The mean squared error is " + f"{found['action_mse']:.4g}."
    )
    return [
        page.headline(f"{found['action_mae']:.3g}", text),
        page.facts(
            {**{k: v for k, v in result.rows.items() if k != "action error"}, **fact_rows(result.facts)}
        ),
        page.section("Error by joint", page.table(["joint", "mae", "mse"], joints)),
        page.section("Error by step", page.grid([along], is_wide=True) if len(steps) > 1 else ""),
        *(curve_part(curve, result.joint_names) for curve in result.curves),
        page.section("Episodes", page.table(["episode", "frames", "mae", "mse"], episodes)),
    ]


def curve_part(curve: Curve, joint_names: list[str]) -> str:
    """Recorded and predicted actions of one episode, a chart per joint."""
    frames = range(len(curve.recorded))
    charts = [
        line_chart(
            name,
            [
                Line("recorded", frames, curve.recorded[:, joint].tolist()),
                Line("predicted", frames, curve.predicted[:, joint].tolist()),
            ],
            x_label="frame",
        )
        for joint, name in enumerate(joint_names)
    ]
    return page.section(
        f"Episode {curve.episode}, predicted and recorded",
        page.paragraph(
            "At each frame the policy saw the recorded observation; its first planned action is drawn."
        ),
        page.grid(charts, is_wide=True),
    )


def training_parts(rows: list[dict[str, Any]]) -> list[str]:
    """Charts over the steps of the training run."""
    charts = []
    for title, columns in METRIC_CHARTS.items():
        series = {name: [row for row in rows if isinstance(row.get(name), (int, float))] for name in columns}
        lines = [
            Line(name, [row["step"] for row in those], [row[name] for row in those])
            for name, those in series.items()
            if those
        ]
        y_range = (0.0, 1.0) if "rate in" in title else None
        is_log = title in LOG_CHARTS and all(value > 0 for line in lines for value in line.y)
        charts.append(line_chart(title, lines, x_label="step", y_range=y_range, is_log=is_log))
    return [page.section("Training", page.grid(charts, is_wide=True))]


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


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"lerobot": lerobot.__version__, "python": platform.python_version()}
    for name in ("torch", "gymnasium", "mujoco"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return found


def fact_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts that are one word each."""
    return {name: str(value) for name, value in facts.items() if isinstance(value, (str, int, float))}
