"""Two policies in the same episodes: what is paired with what, what is refused, what the page says."""

import dataclasses
import json

import pytest

from lerobot.core.errors import ConfigError
from lerobot.evaluation.compare_page import compare_parts
from lerobot.evaluation.comparison import compare
from lerobot.evaluation.interval import mcnemar_p, mean_interval, paired_interval
from lerobot.evaluation.report import write_page
from tests.evaluation.test_report import Page
from tests.evaluation.test_result import many

FACTS = {
    "versions": {"torch": "2.9", "mujoco": "3.3"},
    "renderer": "egl",
    "config": {"env": {"type": "kitchen", "episode_length": 300, "features_map": {}}, "seed": 1000},
}
NAMES = ("run/a", "run/b")


def two(num_tasks=2, num_episodes=10):
    """A succeeds in the first k of task k; B in two more of each, and gets half a point more then."""
    a = dataclasses.replace(many(num_tasks, num_episodes), facts=FACTS)
    better = [
        dataclasses.replace(
            one, success=one.index < one.task_id + 2, sum_reward=one.sum_reward + 0.5 * one.index
        )
        for one in a.episodes
    ]
    return a, dataclasses.replace(a, episodes=better)


def with_facts(result, **changes):
    return dataclasses.replace(result, facts={**result.facts, **changes})


def test_the_paired_difference():
    found = compare(*two(), names=NAMES).overall
    assert (found["n_both"], found["n_only_a"], found["n_only_b"], found["n_neither"]) == (1, 0, 4, 15)
    assert found["success_rate_difference"] == pytest.approx(0.2)
    assert found["success_rate_difference_interval"] == list(
        paired_interval(both=1, only_a=0, only_b=4, neither=15)
    )
    assert found["mcnemar_p"] == mcnemar_p(only_a=0, only_b=4) == 0.125
    changes = [0.5 * number for number in range(10)] * 2
    assert found["avg_sum_reward_difference"] == pytest.approx(2.25)
    assert found["avg_sum_reward_difference_interval"] == pytest.approx(mean_interval(changes))
    assert found["a"]["success_rate"] == 0.05 and found["b"]["success_rate"] == 0.25


def test_tasks_and_episodes_are_listed():
    tree = compare(*two(), names=NAMES).to_tree()
    assert [task["success_rate_difference"] for task in tree["per_task"]] == pytest.approx([0.2, 0.2])
    assert [task["n_both"] for task in tree["per_task"]] == [0, 1]
    assert tree["per_episode"][11] == {
        "task_group": "office", "task_id": 1, "episode_ix": 1, "seed": 1001,
        "successes": [False, True], "sum_rewards": [0.0, 0.5],
    }  # fmt: skip
    assert (tree["a"], tree["b"]) == NAMES and tree["versions"] == FACTS["versions"]
    assert json.loads(json.dumps(tree)) == tree


def test_a_turned_comparison_is_its_mirror():
    a, b = two()
    one, other = compare(a, b, names=NAMES).overall, compare(b, a, names=NAMES).overall
    low, high = one["success_rate_difference_interval"]
    assert other["success_rate_difference_interval"] == pytest.approx([-high, -low])
    assert other["avg_sum_reward_difference"] == -one["avg_sum_reward_difference"]


def test_order_does_not_matter():
    a, b = two()
    shuffled = dataclasses.replace(b, episodes=b.episodes[::-1])
    assert compare(a, shuffled, names=NAMES).overall == compare(a, b, names=NAMES).overall


def test_a_policy_against_itself_is_not_told_apart(tmp_path):
    a, _ = two()
    found = compare(a, a, names=NAMES).overall
    low, high = found["success_rate_difference_interval"]
    assert low < 0 < high and found["mcnemar_p"] == 1.0
    assert found["avg_sum_reward_difference_interval"] is None
    page = Page(
        write_page(tmp_path, "t", compare_parts(compare(a, a, names=NAMES), tmp_path), config=None, used={})
    )
    assert "do not tell which of the two" in page.text


def test_the_page(tmp_path):
    parts = compare_parts(compare(*two(2, 40), names=NAMES), tmp_path)
    page = Page(write_page(tmp_path, "t", parts, config=None, used={}))
    for words in ("+5 points", "only B succeeded", "McNemar", "office_1", "difference of returns", "run/b"):
        assert words in page.text, words


# -------------------------------------------------------------------------------------------- what is refused
def refused(a, b, said):
    with pytest.raises(ConfigError, match=said):
        compare(a, b, names=NAMES)


def test_other_episodes():
    a, b = two()
    short = dataclasses.replace(b, episodes=b.episodes[:-1])
    refused(a, short, r"run/a has 1 episodes that run/b has not: office_1 episode 9 \(seed 1009\).*--seed")
    refused(short, a, r"run/b has 1 episodes that run/a has not")
    moved = [dataclasses.replace(one, seed=one.seed + 1) for one in b.episodes]
    refused(
        a, dataclasses.replace(b, episodes=moved), r"20 episodes.*kitchen_0 episode 0 \(seed 1000\).*\.\.\."
    )


def test_episodes_without_seeds():
    a, b = two()
    free = dataclasses.replace(b, episodes=[dataclasses.replace(one, seed=None) for one in b.episodes])
    refused(a, free, r"run/b have no seeds.*--seed=1000")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"versions": {"torch": "2.9", "mujoco": "3.4"}}, "version of mujoco: 3.3 and 3.4"),
        ({"versions": {"torch": "2.9"}}, "version of mujoco: 3.3 and absent"),
        ({"renderer": "osmesa"}, r"renderer \(MUJOCO_GL\): egl and osmesa"),
        ({"config": {"env": {"type": "kitchen", "episode_length": 9}}}, "--env.episode_length: 300 and 9"),
    ],
)
def test_other_conditions(changes, said):
    a, b = two()
    refused(a, with_facts(b, **changes), f"different conditions.*{said}.*lerobot-eval --compare=")


def test_names_of_features_are_no_conditions():
    a, b = two()
    env = {**FACTS["config"]["env"], "features_map": {"a": "b"}}
    assert compare(a, with_facts(b, config={"env": env}), names=NAMES).pairs


def test_conditions_that_were_not_written_down():
    a, b = two()
    refused(a, with_facts(b, config=None), "run/b does not say with which versions and settings")
