"""Recordings of an evaluation: the frames that were, in the order of the episodes, and nothing lost."""

import json

import numpy as np
import pytest

from lerobot.core.errors import ConfigError, EnvironmentFailedError
from lerobot.datasets import LeRobotDataset
from lerobot.evaluation.recording import EpisodeRecorder, Recordings, frames, frames_file
from lerobot.evaluation.result import EpisodeResult
from lerobot.evaluation.rollout import evaluate
from tests.fakes.walk import WIDTH, Walk, WalkConfig, Walker, pipelines


class RecordableConfig(WalkConfig):
    """A walk whose dataset can be declared."""

    def dataset_features(self):
        numbers = {"observation.state": 2, "action": self.action_size}
        table = {name: {"dtype": "float32", "shape": [size], "names": None} for name, size in numbers.items()}
        picture = {
            "dtype": "image",
            "shape": [self.height, WIDTH, 3],
            "names": ["height", "width", "channels"],
        }
        return table | {"observation.images.top": picture}


def record(folder, *, env=None, **how):
    env = env or RecordableConfig()
    how = {"n_episodes": 5, "batch_size": 2, "num_processes": None, **how}
    with Recordings(folder, env) as recordings:
        result = evaluate(Walker(), pipelines(), env, recordings=recordings, **how)
    return result, recordings


def alone(seed):
    """The frames of an episode in a plain loop, without any of the code under test."""
    env, found = Walk(WalkConfig()), []
    observation, _ = env.reset(seed=seed)
    gain, plan, is_done = np.float32(Walker().gain.item()), [], False
    while not is_done:
        if not plan:
            plan = [-gain * observation["agent_pos"][0] * np.float32(0.6**i) for i in range(3)]
        action = np.array([plan.pop(0)], np.float32)
        before = observation
        observation, reward, ended, late, info = env.step(action)
        is_done = ended or late
        found.append((before, action, reward, is_done, info["is_success"]))
    return found


@pytest.mark.parametrize(
    "batch_size, num_processes",
    [(1, None), (2, None), (5, None), pytest.param(4, 2, marks=pytest.mark.slow)],
)
def test_every_frame_of_every_episode_in_order(tmp_path, batch_size, num_processes):
    how = {"batch_size": batch_size, "num_processes": num_processes}
    result, recordings = record(tmp_path / "recordings", **how)
    assert recordings.folders == [tmp_path / "recordings/walk_0"]
    assert sorted(path.name for path in (tmp_path / "recordings").iterdir()) == ["walk_0"]
    dataset = LeRobotDataset("me/walks", root=tmp_path / "recordings/walk_0")
    assert (dataset.num_episodes, dataset.meta.robot_type) == (5, "walk")
    assert dataset.num_frames == sum(episode.steps for episode in result.episodes)
    items = iter(dataset)
    for number in range(5):
        for observation, action, reward, is_done, is_success in alone(1000 + number):
            item = next(items)
            assert item["episode_index"] == number and item["task"] == "walk home"
            np.testing.assert_allclose(item["observation.state"], observation["agent_pos"], rtol=1e-6)
            picture = (item["observation.images.top"] * 255).round().numpy().astype(np.uint8)
            assert np.array_equal(picture.transpose(1, 2, 0), observation["pixels"]["top"])
            np.testing.assert_allclose(item["action"], action, rtol=1e-5)
            np.testing.assert_allclose(item["next.reward"], [reward], rtol=1e-5)
            assert bool(item["next.done"]) == is_done and bool(item["next.success"]) == is_success


def test_episodes_that_end_out_of_order_wait_for_their_turn(tmp_path):
    env = RecordableConfig()

    def episode(recordings, number):
        recorder = EpisodeRecorder(frames_file(recordings.waiting_folder, ("walk", 0), number))
        world = Walk(env)
        recorder.begin(world.reset(seed=number)[0])
        for _ in range(number + 1):
            observation, reward, *_, info = world.step(np.zeros(1, np.float32))
            recorder.step(
                np.zeros(1), observation, reward=reward, is_done=False, is_success=info["is_success"]
            )
        recorder.finish()
        return EpisodeResult(
            index=number, seed=number, steps=number + 1, sum_reward=0.0, max_reward=0.0,
            success=False, group="walk", task="walk home",
        )  # fmt: skip

    with Recordings(tmp_path / "r", env) as recordings:
        for number in (2, 0, 3, 1):
            recordings.add(episode(recordings, number))
    lengths = [row["length"] for row in LeRobotDataset("me/r", root=tmp_path / "r/walk_0").meta.episodes]
    assert lengths == [1, 2, 3, 4]


def test_what_an_environment_reuses_is_not_mixed_up(tmp_path):
    state = np.zeros(2, np.float32)
    recorder = EpisodeRecorder(tmp_path / "one")
    recorder.begin({"agent_pos": state})
    for step in range(3):
        state += 1
        recorder.step(np.array([step]), {"agent_pos": state}, reward=0.5, is_done=step == 2, is_success=False)
    found = list(frames(recorder.finish()))
    assert [float(frame["observation.state"][0]) for frame in found] == [0.0, 1.0, 2.0]
    assert [float(frame["action"][0]) for frame in found] == [0.0, 1.0, 2.0]
    assert [bool(frame["next.done"][0]) for frame in found] == [False, False, True]


def test_every_task_has_a_dataset_of_its_own(tmp_path):
    result, recordings = record(tmp_path / "r", env=RecordableConfig(names=("up", "down")), n_episodes=2)
    assert [folder.name for folder in recordings.folders] == ["hills_0", "hills_1"]
    for number, folder in enumerate(recordings.folders):
        dataset = LeRobotDataset(f"me/{number}", root=folder)
        lengths = [episode.steps for episode in result.episodes if episode.task_id == number]
        assert [row["length"] for row in dataset.meta.episodes] == lengths


def test_the_last_frame_says_that_it_is_the_last(tmp_path):
    env = RecordableConfig(episode_length=4, is_endless=True)
    record(tmp_path / "r", env=env, n_episodes=1, seed=1004)  # which begins five metres away
    dataset = LeRobotDataset("me/r", root=tmp_path / "r/walk_0")
    assert [bool(item["next.done"]) for item in dataset] == [False, False, False, True]


def test_a_failure_keeps_what_was_complete(tmp_path):
    with pytest.raises(EnvironmentFailedError, match="a leg broke"):
        record(tmp_path / "r", env=RecordableConfig(fails_at=(1003, 2)), batch_size=1)
    dataset = LeRobotDataset("me/r", root=tmp_path / "r/walk_0")
    assert dataset.num_episodes == 3
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["walk_0"]


def test_recordings_are_never_written_over(tmp_path):
    record(tmp_path / "r", n_episodes=1)
    before = json.loads((tmp_path / "r/walk_0/meta/info.json").read_text())
    with pytest.raises(
        ConfigError, match="recordings of an earlier evaluation, which are kept.*--output_dir"
    ):
        record(tmp_path / "r", n_episodes=2)
    assert json.loads((tmp_path / "r/walk_0/meta/info.json").read_text()) == before
