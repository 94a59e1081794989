"""The files of an evaluation: keys that programs read, and a page that is whole and needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lerobot.evaluation import rollout_page
from lerobot.evaluation.charts import MAX_POINTS, Line, interval_bar, line_chart
from lerobot.evaluation.curves import read_rows
from lerobot.evaluation.interval import mean_interval, wilson_interval
from lerobot.evaluation.replay_result import Curve, ReplayResult
from lerobot.evaluation.report import write_report
from lerobot.evaluation.result import EpisodeResult, EvalResult
from lerobot.evaluation.video import EpisodeVideo

VOID = {"meta", "br", "img", "input", "link"}


class Page(HTMLParser):
    """A page's text and tags; fails on tags that are not closed, and collects what it loads."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data


def simulated(video: Path | None = None) -> EvalResult:
    episodes = [
        EpisodeResult(
            index=i,
            seed=1000 + i,
            steps=10 + i,
            sum_reward=i / 2,
            max_reward=0.5,
            success=i != 1,
            group="so101",
            task="put <it> in",
        )
        for i in range(3)
    ]
    if video is not None:
        film = EpisodeVideo(video, fps=10)
        for shade in range(5):
            film.add(np.full((48, 64, 3), 40 * shade, np.uint8), f"step {shade}")
        film.finish()
        episodes[0] = EpisodeResult(**{**vars(episodes[0]), "video": video})
    return EvalResult(episodes=episodes, eval_s=6.0, facts={"checkpoint": "run/x"})


def replayed() -> ReplayResult:
    noise = np.random.default_rng(0)
    squared, counts = noise.uniform(size=(2, 3, 2)), np.array([[4.0, 3, 2], [3, 2, 1]])
    curve = Curve(episode=7, recorded=noise.normal(size=(4, 2)), predicted=noise.normal(size=(4, 2)))
    return ReplayResult(
        repo_id="me/data",
        num_episodes_there=9,
        joint_names=["pan.pos", "lift.pos"],
        episodes=[7, 8],
        squared=squared,
        absolute=np.sqrt(squared),
        counts=counts,
        curves=[curve],
        eval_s=2.0,
    )


def test_eval_info_has_the_keys_of_old_and_new_releases(tmp_path):
    video = tmp_path / "videos/so101_0/eval_episode_0.mp4"
    write_report(tmp_path, evaluation=simulated(video))
    info = json.loads((tmp_path / "eval_info.json").read_text())
    overall = {
        "avg_sum_reward": 0.5,
        "avg_sum_reward_interval": list(mean_interval([0.0, 0.5, 1.0])),
        "avg_max_reward": 0.5,
        "avg_max_reward_interval": None,  # all alike
        "avg_steps": 11.0,
        "avg_steps_interval": list(mean_interval([10, 11, 12])),
        "pc_success": pytest.approx(200 / 3),
        "n_episodes": 3,
        "n_successes": 2,
        "success_rate": pytest.approx(2 / 3),
        "success_rate_interval": list(wilson_interval(2, 3)),
        "video_paths": [str(video)],
        "predicted_video_paths": [],
    }
    assert info["overall"] == overall | {"eval_s": 6.0, "eval_ep_s": 2.0}
    assert info["per_group"] == {"so101": overall}
    metrics = {
        "sum_rewards": [0.0, 0.5, 1.0],
        "max_rewards": [0.5] * 3,
        "successes": [True, False, True],
        "video_paths": [str(video)],
        "predicted_video_paths": [],
    }
    (task,) = info["per_task"]
    means = {name: value for name, value in overall.items() if not name.endswith("_paths")}
    assert task == means | {
        "task_group": "so101", "task_id": 0, "task": "put <it> in", "metrics": metrics
    }  # fmt: skip
    old = {"episode_ix": 2, "sum_reward": 1.0, "max_reward": 0.5, "success": True, "seed": 1002, "steps": 12}
    own = {"task_group": "so101", "task_id": 0, "video_path": None}
    assert info["per_episode"][2] == old | own
    assert info["per_episode"][0]["video_path"] == str(video)
    assert (
        info["checkpoint"] == "run/x" and {"lerobot", "torch", "python", "numpy"} <= info["versions"].keys()
    )


def test_the_page_stands_alone(tmp_path):
    video = tmp_path / "videos/so101_0/eval_episode_0.mp4"
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "lr": 0.1}\n{"st'
    )
    path = write_report(
        tmp_path,
        evaluation=simulated(video),
        metrics_file=tmp_path / "metrics.jsonl",
        config={"seed": 1, "task": "</pre><script>"},
    )
    assert path == tmp_path / "report.html"
    page = Page(path)
    assert "script" not in page.tags and "link" not in page.tags
    assert len(page.sources) == 1 and page.sources[0].startswith("data:video/mp4;base64,")
    assert not re.findall(r"https?://", path.read_text())
    for words in (
        "67%",
        "2 of 3 episodes",
        "put <it> in",
        "Episode 0: success, 10 steps",
        "1002",
        "run/x",
        "loss",
    ):
        assert words in page.text, words
    assert '"task": "</pre><script>"' in page.text


def test_many_videos_are_played_from_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(rollout_page, "EMBEDDED_BYTES", 100)
    write_report(tmp_path, evaluation=simulated(tmp_path / "videos/eval_episode_0.mp4"))
    assert Page(tmp_path / "report.html").sources == ["videos/eval_episode_0.mp4"]


def test_a_page_about_a_dataset(tmp_path):
    path = write_report(tmp_path, replay=replayed())
    page = Page(path)
    for words in (
        "Comparison with me/data",
        "pan.pos",
        "lift.pos",
        "Episode 7, predicted and recorded",
        "2 of the 9",
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 1 + 2  # along the chunk, and one per joint
    info = json.loads((tmp_path / "eval_info.json").read_text())
    result = replayed()
    assert info["overall"]["action_mse"] == pytest.approx(result.squared.sum() / (15 * 2))
    assert info["overall"]["n_frames"] == 7 and list(info["per_joint"]) == ["pan.pos", "lift.pos"]


def test_a_page_about_training_alone(tmp_path):
    rows = [{"step": 10 * i, "loss": 1 / i, "eval/success_rate": 0.5} for i in range(1, 2000)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(write_report(tmp_path, metrics_file=tmp_path / "metrics.jsonl", config={"steps": 5}))
    assert "success in simulation" in page.text and not (tmp_path / "eval_info.json").exists()
    assert (tmp_path / "report.html").stat().st_size < 60_000


def test_without_metrics_there_is_no_chart(tmp_path):
    page = Page(write_report(tmp_path, metrics_file=tmp_path / "none.jsonl"))
    assert "svg" not in page.tags


def test_a_damaged_metrics_file_is_not_passed_over(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(json.JSONDecodeError):
        read_rows(tmp_path / "metrics.jsonl")


# ---------------------------------------------------------------------------------------------------- charts
def places(svg: str) -> list[tuple[float, float]]:
    (points,) = re.findall(r'points="([^"]*)"', svg)
    return [tuple(map(float, pair.split(","))) for pair in points.split()]


def test_a_line_keeps_its_form():
    drawn = places(line_chart("t", [Line("a", [0, 1, 2], [0.0, 4.0, 2.0])]))
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y1 < y2 < y0  # down is larger
    assert y0 - y2 == pytest.approx((y0 - y1) / 2, abs=0.2)


def test_long_lines_are_averaged_and_odd_numbers_left_out():
    drawn = places(line_chart("t", [Line("a", range(10_000), np.sin(np.arange(10_000) / 500))]))
    assert len(drawn) == MAX_POINTS
    assert (
        len(places(line_chart("t", [Line("a", [0, 1, 2, 3], [1.0, float("nan"), float("inf"), 2.0])]))) == 2
    )
    assert line_chart("t", [Line("a", [0], [float("nan")])]) == ""


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 3e-9], [1e6, 1e6], [-3.0, 5.0], [7.0]])
def test_axes_of_any_range(values):
    svg = line_chart("t", [Line("a", range(len(values)), values)])
    assert svg.count('class="grid"') >= 2 and "nan" not in svg


def test_the_interval_bar():
    svg = interval_bar(0.5, 0.25, 0.75)
    assert 'width="200.0"' in svg and 'x1="100.0" x2="300.0"' in svg
