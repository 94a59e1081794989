"""Attempts of an expert: the same episodes here and in other processes, and what happens when those end."""

import os
import time

import gymnasium
import numpy as np
import pytest

from lerobot.control.attempts import Driver, Elsewhere, Here, world_with_expert
from lerobot.core.errors import ConfigError, LeRobotError
from tests.fakes.chores import ChoresConfig

LEFT, RIGHT = ChoresConfig(task="left"), ChoresConfig(task="right")


def never() -> bool:
    return False


def attempted(stage, cfg, *, first_seed, count):
    """The frames of so many episodes."""
    found = []
    for frames in stage.attempts(cfg, first_seed=first_seed, wanted=lambda: count - len(found)):
        found.append(list(frames))  # noqa: PERF401  `wanted` counts them
    return found


def test_the_frames_of_an_episode():
    env = RIGHT.build()
    frames = list(Driver(noise=0.0).attempt(env, seed=3, is_stopped=never))
    assert [float(frame["observation.state"][0]) for frame in frames[:3]] == pytest.approx([0.3, 0.5, 0.7])
    assert [bool(frame["next.done"][0]) for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert frames[-1]["next.success"][0] and frames[-1]["next.reward"][0] == 1
    assert {frame["task"] for frame in frames} == {"walk right"}


def test_noise_is_executed_and_not_recorded():
    env = LEFT.build()
    calm, usual, wild = (
        list(Driver(noise=noise).attempt(env, seed=3, is_stopped=never)) for noise in (0.0, None, 0.1)
    )
    gone = [float(frames[1]["observation.state"][0] - 0.3) for frames in (calm, usual, wild)]
    assert gone[0] == pytest.approx(-0.2) and 0 < abs(gone[1] + 0.2) < abs(gone[2] + 0.2)
    assert all(frames[0]["action"] == pytest.approx(-0.2) for frames in (calm, usual, wild))


def test_an_expert_is_chosen_by_name():
    env = LEFT.build()
    assert len(list(Driver().attempt(env, seed=3, is_stopped=never))) < 10  # the environment's own
    frames = list(Driver("stumbler").attempt(env, seed=3, is_stopped=never))
    assert len(frames) == 30 and not frames[-1]["next.success"][0]


def test_unknown_experts_and_environments_without_one():
    assert world_with_expert(gymnasium.Wrapper(LEFT.build())).expert_noise == 0.01
    with pytest.raises(ConfigError, match="--expert=wlker.*Known: walker, stumbler. Did you mean 'walker'"):
        world_with_expert(LEFT.build(), "wlker")
    with pytest.raises(ConfigError, match="CartPole.* has no scripted expert. Environments with one: aloha"):
        world_with_expert(gymnasium.make("CartPole-v1"))


@pytest.mark.slow
def test_processes_give_the_same_episodes_in_the_same_order():
    with Here(Driver("stumbler"), is_stopped=never) as here:
        expected = [attempted(here, cfg, first_seed=5, count=4) for cfg in (LEFT, RIGHT)]
    with Elsewhere(Driver("stumbler"), num_processes=2, is_stopped=never) as elsewhere:
        found = [attempted(elsewhere, cfg, first_seed=5, count=4) for cfg in (LEFT, RIGHT)]
    assert [len(frames) for frames in found[0]] == [len(frames) for frames in expected[0]]
    for ours, theirs in zip(sum(found, []), sum(expected, []), strict=True):
        for frame, other in zip(ours, theirs, strict=True):
            assert frame["task"] == other["task"]
            np.testing.assert_array_equal(frame["action"], other["action"])
            assert frame["observation.state"][0] == other["observation.state"][0]
            assert frame["observation.state"][1] == 0, "a worker has loaded torch"


@pytest.mark.slow
def test_a_process_that_ends_is_one_message():
    broken = ChoresConfig(task="left", crash_seed=6)
    with (
        Elsewhere(Driver(), num_processes=2, is_stopped=never) as stage,
        pytest.raises(LeRobotError, match="--num_processes ended amid an episode.*try fewer"),
    ):
        attempted(stage, broken, first_seed=5, count=4)


@pytest.mark.slow
def test_errors_of_a_worker_are_raised_here():
    with (
        Elsewhere(Driver("nobody"), num_processes=1, is_stopped=never) as stage,
        pytest.raises(ConfigError, match="--expert=nobody"),
    ):
        attempted(stage, LEFT, first_seed=0, count=1)


@pytest.mark.slow
def test_who_wants_to_stop_does_not_wait_for_an_episode():
    endless = ChoresConfig(task="left", episode_length=10**6, step_s=0.01)
    started_s = time.monotonic()
    stop_s = started_s + 3
    with Elsewhere(
        Driver("stumbler"), num_processes=2, is_stopped=lambda: time.monotonic() > stop_s
    ) as stage:
        frames = next(iter(stage.attempts(endless, first_seed=0, wanted=lambda: 2)))
        workers = list(stage._pool._processes)
    assert frames == [] and time.monotonic() - started_s < 30
    assert workers and not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
