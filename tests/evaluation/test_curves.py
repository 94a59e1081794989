"""The page of a training run: every number is drawn, what it says is true, and nothing is fetched."""

import json
import re

import pytest

from lerobot.evaluation import curves
from lerobot.evaluation.charts import WIDTH, Line, line_chart
from lerobot.evaluation.curves import TrainingStory
from lerobot.evaluation.report import write_report
from tests.evaluation.test_report import Page, simulated

ROWS = [
    {"step": 10, "epoch": 0.1, "loss": 2.0, "l1_loss": 1.5, "kld_loss": 0.1, "lr": 1e-5, "grad_norm": 9.0},
    {"step": 20, "epoch": 0.2, "loss": 1.0, "l1_loss": 0.5, "data_share": 0.2, "compute_share": 0.8},
    {"step": 20, "eval/loss": 1.5},
    {"step": 30, "loss": 1.2, "samples_per_s": 50.0, "peak_memory_gb": 3.0, "skipped_steps": 1.0},
    {"step": 30, "eval/loss": 1.25},
]
SUCCESS = [{"step": 20, "eval/success_rate": 0.9}, {"step": 30, "eval/success_rate": 0.5}]


def story(**more) -> TrainingStory:
    facts = {"data": "me/pick: 50 episodes", "device": "cpu"}
    return TrainingStory(
        title="act on me/pick", state="The run was stopped after 30 of 99 steps.", facts=facts, **more
    )


def titles(parts) -> list[str]:
    return re.findall(r'aria-label="([^"]*)"', "".join(parts))


def test_every_number_has_a_chart_and_known_ones_come_first():
    drawn = titles(curves.charts(ROWS))
    assert drawn[0] == "loss" and drawn[-1] == "skipped_steps"
    shown = {"loss", "parts of the loss", "learning rate", "gradient norm", "samples per second", "memory"}
    assert set(drawn) == shown | {"where the time goes (share of a step)", "skipped_steps"}
    assert curves.charts([]) == ["", ""]


@pytest.mark.parametrize(
    ("rows", "number", "words"),
    [
        (ROWS + SUCCESS, "50%", "success in simulation at step 30; 90% at step 20, best 90% at step 20."),
        (ROWS, "1.25", "loss on held-out frames at step 30; 1.5 at step 20, best 1.25 at step 30."),
        (ROWS[:2], "1", "training loss at step 20; 2 at step 10, best 1 at step 20."),
        (ROWS[:1], "2", "training loss at step 10."),
        ([], "–", "No numbers were logged."),
    ],
)
def test_the_headline_is_the_best_measure_there_is(rows, number, words):
    text = curves.story_headline(story(), rows)
    assert f'<div class="number">{number}</div>' in text and words in text
    assert "stopped after 30 of 99 steps" in text


def test_evaluations_of_a_step_share_a_line():
    text = curves.evaluations(ROWS + SUCCESS)
    assert re.findall(r"<td>(.*?)</td>", text) == ["20", "1.5", "90%", "30", "1.25", "50%"]
    assert curves.evaluations(ROWS[:1]) == ""


def test_a_page_of_a_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS + SUCCESS))
    result = simulated(tmp_path / "eval/videos_step_000030/so101_0/eval_episode_0.mp4")
    films = {"step 30": result.episodes[0].video}
    path = write_report(
        tmp_path,
        evaluation=result,
        metrics_file=tmp_path / "metrics.jsonl",
        story=story(films=films, checkpoints=[["30", "checkpoints/000030 (last)", "9.1 MB"]]),
        config={"steps": 99},
    )
    page = Page(path)
    assert "script" not in page.tags and not re.findall(r"https?://", path.read_text(encoding="utf-8"))
    assert [source.split(",")[0] for source in page.sources] == ["data:video/mp4;base64"] * 2
    for words in (
        "act on me/pick",
        "me/pick: 50 episodes",
        "Learning, on video",
        "checkpoints/000030 (last)",
    ):
        assert words in page.text, words
    assert "2 of 3 episodes" not in page.text  # the headline of an evaluation is not this page's


def test_many_films_are_thinned_to_an_even_choice(tmp_path):
    files = {f"step {i}": tmp_path / f"{i}.mp4" for i in range(30)}
    text = curves.films(story(films=files), relative_to=tmp_path, is_embedded=False)
    assert text.count("<video") == curves.MAX_FILMS and "step 0<" in text and "step 29<" in text


def test_long_legends_go_below_the_title():
    def place(names):
        chart = line_chart("a title", [Line(name, [0, 1], [0, 1]) for name in names])
        return {
            (float(x), float(y))
            for x, y in re.findall(r'"tick fill\d"[^>]* x="([\d.]+)" y="([\d.]+)"', chart)
        }

    assert {y for _, y in place(["a", "b"])} == {14.0}
    long = place([f"a rather long name {i}" for i in range(3)])
    assert {y for _, y in long} == {32.0} and all(x < WIDTH for x, _ in long)
