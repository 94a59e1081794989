"""Writes what was found: `eval_info.json` for programs and `report.html`, which needs no network, for people.

EvalResult, ReplayResult, metrics.jsonl, TrainingStory, config -> write_report -> eval_info.json, report.html
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lerobot.core.files import write_text
from lerobot.evaluation import curves, page
from lerobot.evaluation.charts import sheet
from lerobot.evaluation.provenance import versions
from lerobot.evaluation.replay_page import curve_charts, replay_parts
from lerobot.evaluation.replay_result import ReplayResult
from lerobot.evaluation.result import EvalResult
from lerobot.evaluation.rollout_page import EMBEDDED_BYTES, rollout_parts

INFO_FILE = "eval_info.json"
REPORT_FILE = "report.html"
ACTION_FOLDER = "actions"  # pictures of predicted and recorded ones


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
        replay: comparison with a dataset; its curves also become `actions/episode_<i>.svg`.
        metrics_file: `metrics.jsonl` of the training run; left out where it does not exist.
        story: makes the page one about the training run, evaluated on the way.
        config: settings to show at the end, and to write down with the results.
    """
    result = evaluation or replay
    if result is not None:
        write_info(folder, result, config=config)
    if replay is not None:
        for curve in replay.curves:
            path = folder / ACTION_FOLDER / f"episode_{curve.episode}.svg"
            write_text(path, sheet(curve_charts(curve, replay.joint_names)))
    rows = curves.read_rows(metrics_file) if metrics_file is not None else []
    parts = [
        *(rollout_parts(evaluation, folder) if evaluation is not None and story is None else ()),
        *(replay_parts(replay) if replay is not None else ()),
        *(curves.charts(rows) if story is None else story_parts(story, rows, folder, evaluation)),
    ]
    title = title_of(evaluation, replay) if story is None else story.title
    used = result.facts.get("versions") if result is not None else None
    return write_page(folder, title, parts, config=config, used=used or versions())


def write_info(
    folder: Path, result: EvalResult | ReplayResult, *, config: Mapping[str, Any] | None = None
) -> Path:
    """The path of `eval_info.json`, written as a whole or not at all."""
    path = folder / INFO_FILE
    tree = {"versions": versions(), **result.to_tree(), **({"config": config} if config else {})}
    write_text(path, json.dumps(tree, indent=2, ensure_ascii=False))
    return path


def write_page(
    folder: Path,
    title: str,
    parts: list[str],
    *,
    config: Mapping[str, Any] | None,
    used: Mapping[str, str],
) -> Path:
    """The path of `report.html`, made of these parts, under a line of the versions that were used."""
    now = datetime.now().astimezone()
    settings = page.folded("All settings", json.dumps(config, indent=2, ensure_ascii=False)) if config else ""
    line = f"{now:%Y-%m-%d %H:%M} · " + " · ".join(f"{name} {number}" for name, number in used.items())
    path = folder / REPORT_FILE
    write_text(path, page.document(title, line, [*parts, settings]))
    return path


def title_of(evaluation: EvalResult | None, replay: ReplayResult | None) -> str:
    """What the page is about."""
    if evaluation is not None:
        return f"Evaluation in {evaluation.where}"
    return f"Comparison with {replay.repo_id}" if replay is not None else "Training"


def story_parts(
    story: curves.TrainingStory, rows: curves.Rows, folder: Path, evaluation: EvalResult | None
) -> list[str]:
    """A training run: its number, facts, charts, evaluations with videos, checkpoints."""
    size = sum(path.stat().st_size for path in story.films.values())
    last = rollout_parts(evaluation, folder)[1:] if evaluation is not None else []
    return [
        curves.story_headline(story, rows),
        page.facts(story.facts),
        *curves.charts(rows),
        curves.evaluations(rows),
        curves.films(story, relative_to=folder, is_embedded=size <= EMBEDDED_BYTES),
        page.section("The last evaluation", *last),
        curves.checkpoints(story),
    ]
