"""Several tasks: their numbers, in eval_info.json and back, on the terminal, on a page of any size."""

import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from lerobot.core.errors import ConfigError
from lerobot.envs.pusht import PushTEnvConfig
from lerobot.envs.so101 import SO101EnvConfig
from lerobot.evaluation.console import table
from lerobot.evaluation.interval import wilson_interval
from lerobot.evaluation.provenance import fingerprints, versions
from lerobot.evaluation.report import write_report
from lerobot.evaluation.result import EpisodeResult, EvalResult
from tests.evaluation.test_report import Page


def episode(index=0, *, group="kitchen", task_id=0, success=True, **more):
    fields = {"seed": 1000 + index, "steps": 20, "sum_reward": float(success), "max_reward": float(success)}
    return EpisodeResult(
        index=index,
        group=group,
        task_id=task_id,
        success=success,
        task=f"open drawer {task_id}",
        **(fields | more),
    )


def many(num_tasks, num_episodes):
    """Task k succeeds in its first k % (num_episodes + 1) episodes; the tasks are of two groups."""
    found = []
    for task in range(num_tasks):
        for number in range(num_episodes):
            seed, group = 1000 + number, "kitchen" if task < num_tasks / 2 else "office"
            success = number < task % (num_episodes + 1)
            found.append(episode(number, group=group, task_id=task, success=success, seed=seed))
    return EvalResult(episodes=found, eval_s=10.0, facts={"checkpoint": "run/x"})


def test_numbers_of_tasks_groups_and_all():
    tree = many(4, 5).to_tree()
    assert [task["success_rate"] for task in tree["per_task"]] == [0.0, 0.2, 0.4, 0.6]
    assert [(task["task_group"], task["task_id"]) for task in tree["per_task"]] == [
        ("kitchen", 0), ("kitchen", 1), ("office", 2), ("office", 3)
    ]  # fmt: skip
    assert tree["per_task"][3]["success_rate_interval"] == list(wilson_interval(3, 5))
    assert tree["per_task"][2]["metrics"]["successes"] == [True, True, False, False, False]
    assert tree["per_group"]["office"]["success_rate"] == 0.5
    assert tree["per_group"]["office"]["success_rate_interval"] == list(wilson_interval(5, 10))
    assert tree["overall"]["success_rate"] == 0.3 and tree["overall"]["n_episodes"] == 20
    assert tree["task"] is None
    assert {(row["task_id"], row["episode_ix"], row["seed"]) for row in tree["per_episode"]} == {
        (task, number, 1000 + number) for task in range(4) for number in range(5)
    }


def test_a_result_survives_its_file(tmp_path):
    before = many(3, 2)
    write_report(tmp_path, evaluation=before, config={"seed": 1000})
    tree = json.loads((tmp_path / "eval_info.json").read_text())
    after = EvalResult.from_tree(tree, source="x")
    assert after.episodes == before.episodes and after.eval_s == before.eval_s
    assert after.facts["config"] == {"seed": 1000} and after.facts["checkpoint"] == "run/x"
    assert after.facts["versions"] == versions()


@pytest.mark.parametrize("lacking", ["per_episode", "per_task", "overall"])
def test_a_file_of_something_else(lacking):
    tree = {name: value for name, value in many(1, 1).to_tree().items() if name != lacking}
    with pytest.raises(ConfigError, match=rf"there/x.json does not list its episodes.*'{lacking}'"):
        EvalResult.from_tree(tree, source="there/x.json")


def test_a_file_of_another_release():
    tree = many(1, 1).to_tree()
    for row in tree["per_episode"]:
        del row["task_group"]
    with pytest.raises(ConfigError, match="'task_group' is missing.*lerobot-eval --policy.path="):
        EvalResult.from_tree(tree, source="x")


def test_the_table_on_the_terminal():
    console = Console(file=io.StringIO(), width=100)
    console.print(table(many(4, 5)))
    said = console.file.getvalue()
    assert re.search(r"office_3 +5 +60\.0% +23\.1% to 88\.2%", said)
    assert re.search(r"\n +kitchen +10 +10\.0%", said) and re.search(r"\n +all +20 +30\.0%", said)
    assert table(many(1, 5)) is None


def test_the_page_of_fifty_tasks_with_fifty_episodes(tmp_path):
    path = write_report(tmp_path, evaluation=many(50, 50))
    page = Page(path)
    assert path.stat().st_size < 1_000_000
    assert page.tags.count("details") == 50 + 1, "a table per task and that of all tasks wait behind clicks"
    assert "success by group" in page.text and "office_49" in page.text and "open drawer 49" in page.text
    assert "2500 episodes" in page.text


def test_the_page_of_one_task(tmp_path):
    page = Page(write_report(tmp_path, evaluation=many(1, 8)))
    assert "details" not in page.tags and "by task" not in page.text
    assert "returns" in page.text and "lengths" in page.text and page.tags.count("rect") >= 2


def test_videos_one_of_each_task_first_and_no_more_than_fit(tmp_path, monkeypatch):
    result = many(20, 2)
    filmed = []
    for one in result.episodes:
        path = tmp_path / f"videos/{one.group}_{one.task_id}/eval_episode_{one.index}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        filmed.append(dataclasses.replace(one, video=path))
    monkeypatch.setattr("lerobot.evaluation.rollout_page.EMBEDDED_BYTES", 550)
    page = Page(write_report(tmp_path, evaluation=dataclasses.replace(result, episodes=filmed)))
    assert len(page.sources) == 40
    assert [source.startswith("data:") for source in page.sources] == [True] * 5 + [False] * 35
    assert page.sources[5] == "videos/kitchen_5/eval_episode_0.mp4"
    assert page.sources[20] == "videos/kitchen_0/eval_episode_1.mp4" and "28 more videos" in page.text


# ------------------------------------------------------------------------------------------------ provenance
def test_versions_of_what_an_environment_simulates_with():
    assert {"mujoco"} <= versions(SO101EnvConfig().packages).keys()
    assert {"gym-pusht", "pymunk", "pygame"} <= versions(PushTEnvConfig().packages).keys()
    assert "nothing-of-this-name" not in versions(("nothing-of-this-name",))


def test_fingerprints_are_of_what_loading_reads(tmp_path):
    for name in (
        "model.safetensors",
        "config.json",
        "policy_preprocessor.json",
        "train_config.json",
        "README.md",
    ):
        (tmp_path / name).write_text("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes
    assert fingerprints(tmp_path) == dict.fromkeys(
        ["config.json", "model.safetensors", "policy_preprocessor.json"], empty
    )
