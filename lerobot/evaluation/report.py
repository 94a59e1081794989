"""Writes what was found: `eval_info.json` for programs and `report.html`, which needs no network, for people.

EvalResult, ReplayResult, metrics.jsonl, TrainingStory, config -> write_report -> eval_info.json, report.html
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
from lerobot.evaluation import curves, page
from lerobot.evaluation.charts import Line, interval_bar, line_chart
from lerobot.evaluation.result import Curve, EvalResult, ReplayResult

INFO_FILE = "eval_info.json"
REPORT_FILE = "report.html"
EMBEDDED_MB = 12.0  # of videos inside the page; more are played from the files beside it


def write_report(
    folder: Path,
    *,
    evaluation: EvalResult | None = None,
    replay: ReplayResult | None = None,
    metrics_file: Path | None = None,
    story: curves.TrainingStory | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """The path of `report.html`, written into the folder; results are also written as `eval_info.json`.

    Args:
        evaluation: episodes in simulation.
        replay: comparison with a dataset.
        metrics_file: `metrics.jsonl` of the training run; left out where it does not exist.
        story: makes the page one about the training run, evaluated on the way.
        config: settings to show at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result = evaluation or replay
    if result is not None:
        tree = {**result.to_tree(), "versions": versions()}
        write_text(folder / INFO_FILE, json.dumps(tree, indent=2, ensure_ascii=False))
    rows = curves.read_rows(metrics_file) if metrics_file is not None else []
    parts = [
        *(simulation_parts(evaluation, folder) if evaluation is not None and story is None else ()),
        *(replay_parts(replay) if replay is not None else ()),
        *(curves.charts(rows) if story is None else story_parts(story, rows, folder, evaluation)),
        page.folded("All settings", json.dumps(config, indent=2, ensure_ascii=False)) if config else "",
    ]
    now = datetime.now().astimezone()
    used = " · ".join(f"{name} {number}" for name, number in versions().items())
    title = title_of(evaluation, replay) if story is None else story.title
    path = folder / REPORT_FILE
    write_text(path, page.document(title, f"{now:%Y-%m-%d %H:%M} · {used}", parts))
    return path


def title_of(evaluation: EvalResult | None, replay: ReplayResult | None) -> str:
    """What the page is about."""
    if evaluation is not None:
        return f"Evaluation in {', '.join(evaluation.groups)}"
    return f"Comparison with {replay.repo_id}" if replay is not None else "Training"


def story_parts(
    story: curves.TrainingStory, rows: curves.Rows, folder: Path, evaluation: EvalResult | None
) -> list[str]:
    """A training run: its number, facts, charts, evaluations with videos, checkpoints."""
    size_mb = sum(path.stat().st_size for path in story.films.values()) / 1e6
    last = simulation_parts(evaluation, folder)[1:] if evaluation is not None else []
    return [
        curves.story_headline(story, rows),
        page.facts(story.facts),
        *curves.charts(rows),
        curves.evaluations(rows),
        curves.films(story, relative_to=folder, is_embedded=size_mb <= EMBEDDED_MB),
        page.section("The last evaluation", *last),
        curves.checkpoints(story),
    ]


def simulation_parts(result: EvalResult, folder: Path) -> list[str]:
    """Headline, facts, videos and the table of episodes."""
    found = result.overall
    low, high = found["success_rate_interval"]
    count = sum(episode.success for episode in result.episodes)
    text = f"{count} of {len(result.episodes)} episodes succeeded. The true rate lies between "
    text += f"{low:.0%} and {high:.0%} (95 % Wilson interval for so many episodes)."
    rows = {
        "task": "; ".join(part[0].task for part in result.tasks.values()),
        **{k: v for k, v in result.rows.items() if k != "success rate"},
    }
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
