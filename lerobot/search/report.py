"""Writes what a search found: `study.json` for programs, `report.html` (one file, no network) for people.

Results -> study.json, report.html: the best trial and its command, plots, a table of all trials
"""

import html
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lerobot.core.clock import readable_duration
from lerobot.core.config import encode
from lerobot.core.files import write_text
from lerobot.evaluation import page
from lerobot.search.plots import curves_plot, history_plot, importance_plot, setting_plot
from lerobot.search.results import MIN_TRIALS, Results, TrialResult

STUDY_FILE, REPORT_FILE = "study.json", "report.html"
MARKS = {"finished": "good", "failed": "bad", "refused": "bad"}  # state: how its cell looks
STYLE = """<style>
.trials { overflow-x: auto; }
.trials th:last-child, .trials td:last-child { text-align: left; min-width: 180px; }
.trials td:nth-last-child(2) { white-space: nowrap; }
</style>
"""
RANKS = ("finished", "running", "pruned", "failed", "refused", "interrupted")


def write_report(results: Results) -> Path:
    """The path of `report.html`; both files are replaced whole."""
    folder = results.plan.folder
    write_text(folder / STUDY_FILE, json.dumps(results.tree(), indent=2, ensure_ascii=False))
    path, now = folder / REPORT_FILE, datetime.now().astimezone()
    counts = ", ".join(f"{count} {state}" for state, count in results.counts().items())
    subtitle = f"{now:%Y-%m-%d %H:%M}   {len(results.trials)} trials: {counts or 'none yet'}"
    write_text(
        path, page.document(f"Search for the best {results.plan.cfg.objective}", subtitle, parts(results))
    )
    return path


def parts(results: Results) -> list[str]:
    """The page from its headline to its settings."""
    space = results.plan.space
    plots = [setting_plot(results, name, domain) for name, domain in space.items()]
    return [
        _headline(results),
        page.facts(_facts(results)),
        _command(results),
        page.section(
            "Progress", page.grid([history_plot(results), curves_plot(results)], is_wide=True), _legend()
        ),
        page.section("Which settings mattered", *_importance(results)),
        page.section("Values tried", page.grid(plots, is_wide=True)),
        page.section("Trials", _table(results)),
        page.folded("All settings", json.dumps(encode(results.plan.cfg), indent=2, ensure_ascii=False)),
    ]


def _headline(results: Results) -> str:
    best, cfg = results.best, results.plan.cfg
    if best is None:
        return page.headline("—", f"No trial has ended with a value of {cfg.objective} yet.")
    values = ", ".join(f"{name} = {shown(value)}" for name, value in best.params.items())
    which = "the last" if cfg.objective_value == "last" else "the best"
    text = f"is {which} {cfg.objective} of trial {best.number}, the {_superlative(results)} of "
    return page.headline(shown(best.value), f"{text}{len(results.finished)} finished trials: {values}.")


def _superlative(results: Results) -> str:
    return "lowest" if results.plan.cfg.is_minimized else "highest"


def _facts(results: Results) -> dict[str, str]:
    plan, cfg = results.plan, results.plan.cfg
    assert plan.train.policy is not None
    spent_s = sum(trial.duration_s or 0.0 for trial in results.trials)
    length = (
        f"{plan.train.steps} steps" if plan.train.num_epochs is None else f"{plan.train.num_epochs} epochs"
    )
    return {
        "dataset": plan.train.dataset.label,
        "policy": plan.train.policy.type,
        "a trial": length,
        "searched": ", ".join(f"{name} {domain}" for name, domain in plan.space.items()),
        "sampler, pruner": f"{cfg.sampler}, {cfg.pruner}",
        "training time": f"{readable_duration(spent_s)} in all trials together",
        "best run": results.best.place if results.best is not None else "none yet",
    }


def _command(results: Results) -> str:
    if results.best_command is None:
        return ""
    words = html.escape(results.best_command).replace(" --", " \\\n    --")
    return page.section("Train with the best values", f"<pre>{words}</pre>")


def _legend() -> str:
    return page.paragraph(
        "Blue: finished. Orange ring: pruned, with its last value. Green: the best. Results that lie far "
        "apart have a logarithmic axis."
    )


def _importance(results: Results) -> Sequence[str]:
    if not results.importance:
        return [page.paragraph(f"Known after {MIN_TRIALS} finished trials with different results.")]
    said = page.paragraph(
        "How much each setting decides whether a trial is among the better ones (PED-ANOVA); the shares add "
        "up to 100 %. With few trials they are rough."
    )
    return [page.grid([importance_plot(results)], is_wide=True), said]


def _table(results: Results) -> str:
    order = {trial.number: i for i, trial in enumerate(results.finished)}
    trials = sorted(
        results.trials,
        key=lambda trial: (RANKS.index(trial.state), order.get(trial.number, 0), trial.number),
    )
    names = list(results.plan.space)
    short = [name.removeprefix("policy.") for name in names]
    header = ["trial", "state", results.plan.cfg.objective, *short, "time", "note"]
    rows = [
        [
            str(trial.number),
            trial.state,
            shown(trial.value),
            *(shown(trial.params.get(name)) for name in names),
            readable_duration(trial.duration_s) if trial.duration_s is not None else "",
            _note(trial),
        ]
        for trial in trials
    ]
    return f'{STYLE}<div class="trials">{page.table(header, rows, marks=MARKS)}</div>' if rows else ""


def _note(trial: TrialResult) -> str:
    if trial.same_as is not None:
        return f"same values as trial {trial.same_as}"
    return trial.reason


def shown(value: object) -> str:
    """A value as a person reads it: numbers with four digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
