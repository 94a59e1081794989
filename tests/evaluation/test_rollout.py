"""Every episode runs once, its result is its own, and what does not fit or fails is said."""

import dataclasses
import importlib
import io

import av
import pytest
import torch
from rich.console import Console

from lerobot.core.errors import EnvironmentFailedError, FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.result import EpisodeResult
from lerobot.evaluation.rollout import automatic_batch_size, evaluate
from lerobot.processor.pipeline import IdentityProcessorStep
from tests.fakes.walk import HEIGHT, IMAGE, STATE, WIDTH, Walk, WalkConfig, Walker, WalkerConfig, pipelines


def run(policy=None, env=None, processors=None, **how):
    policy = policy or Walker()
    env = env or WalkConfig()
    return evaluate(
        policy,
        processors or pipelines(policy.config),
        env,
        **{"n_episodes": 5, "batch_size": 2, "num_processes": None, **how},
    )


def alone(seed, policy):
    """One episode in a plain loop, without any of the code under test."""
    env, rewards = Walk(WalkConfig()), []
    observation, _ = env.reset(seed=seed)
    plan, is_done = [], False
    while not is_done:
        if not plan:
            x = torch.from_numpy(observation["agent_pos"])[0]
            plan = [float(-policy.gain.item() * x * 0.6**i) for i in range(3)]
        observation, reward, ended, late, info = env.step(torch.tensor([plan.pop(0)]).numpy())
        rewards.append(reward)
        is_done = ended or late
    return len(rewards), sum(rewards), max(rewards), info["is_success"]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_an_episode_does_not_depend_on_its_batch(batch_size):
    policy = Walker()
    found = run(policy, batch_size=batch_size).episodes
    assert [(e.index, e.seed) for e in found] == [(i, 1000 + i) for i in range(5)]
    for episode in found:
        steps, total, best, success = alone(episode.seed, policy)
        assert (episode.steps, episode.success) == (steps, success)
        assert episode.sum_reward == pytest.approx(total, rel=1e-6)
        assert episode.max_reward == pytest.approx(best, rel=1e-6)
    assert len({episode.steps for episode in found}) > 2, "episodes of one length prove nothing"


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
def test_ranks_share_the_episodes(num_ranks):
    """Neighbours, in order, as evenly as can be; some have none."""
    parts = [run(rank=rank, num_ranks=num_ranks).episodes for rank in range(num_ranks)]
    assert [e for part in parts for e in part] == run().episodes
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_every_seed_runs_exactly_once_and_environments_are_closed():
    env = WalkConfig()
    run(env=env, batch_size=3)
    assert [seed for seed, event in env.log if event == "reset"] == [1000, 1001, 1002, 1003, 1004]
    assert [event for _, event in env.log].count("close") == 3


@pytest.mark.parametrize("is_endless", [False, True])
def test_an_episode_that_does_not_end_is_cut_off(is_endless):
    policy = Walker(WalkerConfig())
    torch.nn.init.zeros_(policy.gain)
    env = WalkConfig(episode_length=7, is_endless=is_endless)
    result = run(policy, env)
    assert [e.steps for e in result.episodes] == [7] * 5
    assert result.overall["success_rate"] == 0


def test_a_queue_left_over_from_before_is_forgotten():
    policy = Walker()
    first = run(policy, n_episodes=1).episodes
    policy.select_action(
        {STATE: torch.full((1, 2), 0.4), IMAGE: torch.zeros(1, 3, HEIGHT, WIDTH), "task": [""]}
    )
    assert run(policy, n_episodes=1).episodes == first


def test_random_policies_repeat_and_the_callers_random_numbers_stay():
    policy = Walker(WalkerConfig(noise=0.3))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = run(policy)
    assert torch.equal(torch.rand(3), expected)
    assert run(policy).episodes == first.episodes
    assert run(policy, seed=2000).episodes != first.episodes


def test_without_a_seed_episodes_differ():
    policy = Walker(WalkerConfig(noise=0.3))
    result = run(policy, seed=None, batch_size=1, n_episodes=3)
    assert {e.seed for e in result.episodes} == {None}
    assert len({e.sum_reward for e in result.episodes}) == 3


def test_actions_pass_the_postprocessor():
    class Backwards(IdentityProcessorStep):
        def __call__(self, transition):
            return {**transition, "action": -transition["action"]}

    before, after = pipelines()
    after.steps.insert(0, Backwards())
    assert run().overall["success_rate"] > 0.5
    assert run(processors=(before, after)).overall["success_rate"] == 0


def test_the_policy_is_told_the_task():
    policy = Walker()
    assert run(policy, n_episodes=1).episodes[0].task == "walk home"
    run(policy, n_episodes=1, task="go: 'home' # now")
    assert policy.tasks[0] == ["walk home"] and policy.tasks[-1] == ["go: 'home' # now"]


def test_a_failure_of_an_environment_fails_the_evaluation(tmp_path):
    env = WalkConfig(fails_at=(1003, 2))
    with pytest.raises(EnvironmentFailedError) as caught:
        run(env=env, max_videos=5, video_folder=tmp_path)
    where = "The walk environment failed in episode 3 (task walk 0, seed 1003) after 2 steps"
    assert str(caught.value) == f"{where}: RuntimeError: a leg broke"
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert env.log[-1] == (None, "close")
    assert {p.name for p in tmp_path.rglob("*.*")} <= {f"eval_episode_{i}.mp4" for i in (0, 1, 2, 4)}


# ------------------------------------------------------------------------------------------------- what fits
def test_cameras_of_another_size_are_refused_before_anything_starts():
    env = WalkConfig(height=32)
    with pytest.raises(FeatureMismatchError) as caught:
        run(env=env)
    assert env.log == []
    said = str(caught.value)
    assert "walk environment" in said and "walker policy" in said
    assert f"{IMAGE} is [3, 32, 13] there and [3, 9, 13] in the policy" in said
    assert "--env.observation_height=9 --env.observation_width=13" in said


def test_actions_of_another_size_are_refused():
    with pytest.raises(FeatureMismatchError, match=r"action is \[2\] there and \[1\] in the policy"):
        run(env=WalkConfig(action_size=2))


def test_a_policy_that_breaks_its_word_on_actions():
    class Wide(Walker):
        def plan(self, batch, *, draws=None):
            return super().plan(batch, draws=draws).expand(-1, -1, 2)

    with pytest.raises(FeatureMismatchError, match=r"returned actions \[2\]; the environment takes \[1\]"):
        run(Wide())


def other_camera() -> Walker:
    cfg = WalkerConfig()
    features = dict(cfg.input_features)
    features["observation.images.head"] = features.pop(IMAGE)
    policy = Walker(dataclasses.replace(cfg, input_features=features))
    plan = policy.plan
    policy.plan = lambda batch, **how: plan({**batch, IMAGE: batch["observation.images.head"]}, **how)
    return policy


def test_a_camera_of_another_name_needs_a_rename():
    with pytest.raises(FeatureMismatchError, match="observation.images.head.*which is not there") as caught:
        run(other_camera())
    assert f'--rename_map=\'{{"{IMAGE}": "observation.images.head"}}\'' in str(caught.value)
    renamed = run(other_camera(), rename_map={IMAGE: "observation.images.head"})
    assert renamed.episodes == run().episodes


def test_features_map_of_an_environment_renames_too():
    env = WalkConfig(features_map={IMAGE: "observation.images.head"})
    assert run(other_camera(), env).episodes == run().episodes


def test_a_rename_of_nothing_is_refused():
    with pytest.raises(FeatureMismatchError, match="which the walk environment lacks. Did you mean"):
        run(rename_map={"observation.images.tpo": IMAGE})


def test_a_resizing_preprocessor_counts():
    from lerobot.processor.images import ResizeImagesProcessorStep

    before, after = pipelines()
    before.steps.insert(1, ResizeImagesProcessorStep({IMAGE: (9, 13)}))
    assert run(env=WalkConfig(height=32), processors=(before, after)).episodes == run().episodes


def test_a_missing_action_feature():
    cfg = WalkerConfig(output_features={"action.arm": PolicyFeature(FeatureType.ACTION, (1,))})
    with pytest.raises(FeatureMismatchError, match=r"needs action.arm \[1\], which is not there"):
        run(Walker(cfg))


def test_no_episodes():
    with pytest.raises(ValueError, match="n_episodes=0"):
        run(n_episodes=0)


# ---------------------------------------------------------------------------------------------------- videos
def test_the_first_episodes_leave_videos_that_browsers_play(tmp_path):
    result = run(max_videos=3, video_folder=tmp_path / "videos")
    paths = [tmp_path / f"videos/walk_0/eval_episode_{i}.mp4" for i in range(3)]
    assert [e.video for e in result.episodes] == [*paths, None, None]
    assert sorted((tmp_path / "videos/walk_0").iterdir()) == paths
    for episode in result.episodes[:3]:
        with av.open(str(episode.video)) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == 5
            assert (frames[0].width, frames[0].height) == (424, 324)  # 8 times as large, below two lines
        assert len(frames) == episode.steps + 1
    assert [dataclasses.replace(e, video=None) for e in result.episodes] == run().episodes


def test_without_a_renderer_there_are_results_and_a_warning(tmp_path, caplog):
    result = run(env=WalkConfig(can_draw=False), max_videos=3, video_folder=tmp_path)
    assert result.episodes == run().episodes
    assert "There will be no videos. There is no screen." in caplog.text
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- progress
def test_progress_is_plain_lines_in_a_file(capsys):
    run(n_episodes=25, batch_size=5)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 10
    assert lines[-1].startswith("evaluating 25/25 episodes  ") and "of 25 succeeded" in lines[-1]
    assert "left" in lines[0] and "\x1b" not in "".join(lines)


@pytest.mark.parametrize("is_given", [True, False])
def test_progress_is_a_bar_on_a_terminal_unless_another_bar_may_live_there(is_given, monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, highlight=False)
    importlib.import_module("rich.progress")  # so that only what is made here is the terminal
    monkeypatch.setattr("rich.console.Console", lambda **how: terminal)
    run(progress=EpisodeProgress(5, title="evaluating", console=terminal if is_given else None))
    shown = terminal.file.getvalue()
    assert ("━" in shown) is not is_given and "of 5 succeeded" in shown


def test_automatic_batch_size(monkeypatch):
    for cores, size in ((None, 1), (1, 1), (2, 1), (16, 11), (256, 64)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert automatic_batch_size() == size
    monkeypatch.undo()
    assert isinstance(run(batch_size=0).episodes[0], EpisodeResult)
