"""What comes of an episode is its own: whatever runs beside it, here or in how many processes."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from lerobot.core.errors import EnvironmentFailedError, FeatureMismatchError, MissingExtraError, UserError
from lerobot.envs.base import Task
from lerobot.evaluation.actor import MemoryActor, TwinActor, make_actor, twin
from lerobot.evaluation.assignment import Schedule, assignments, share
from lerobot.evaluation.episode import OwnRandomness
from lerobot.evaluation.pool import WorkerTraceback
from lerobot.processor.pipeline import IdentityProcessorStep
from tests.fakes.walk import Loner, Tracker, WalkConfig, Walker, WalkerConfig, pipelines

from .test_rollout import run

NOISE = 0.3
POLICIES = {"walker": Walker, "tracker": Tracker, "loner": Loner}


def random_policy(kind):
    return POLICIES[kind](WalkerConfig(noise=NOISE, n_obs_steps=2 if kind == "tracker" else 1))


def rough(**how):
    """A world that draws from the generators of the whole process."""
    return WalkConfig(wind=0.2, **how)


# ------------------------------------------------------------------------------------------- independence
@pytest.mark.parametrize("kind", POLICIES)
def test_an_episode_is_the_same_alone_and_beside_others(kind):
    """Exactly, of a policy that draws in a world that draws."""
    policy = random_policy(kind)
    alone = run(policy, rough(), batch_size=1).episodes
    for batch_size in (2, 5):
        assert run(policy, rough(), batch_size=batch_size).episodes == alone
    assert run(policy, rough(), batch_size=1, n_episodes=2).episodes == alone[:2]
    assert len({e.sum_reward for e in alone}) == 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_an_episode_is_the_same_in_any_number_of_processes(kind, num_processes):
    policy = random_policy(kind)
    expected = run(policy, rough(), batch_size=1).episodes
    assert run(policy, rough(), batch_size=5, num_processes=num_processes).episodes == expected


def test_plans_of_one_size_whoever_needs_them():
    """A network whose products round differently in batches of different sizes."""

    class Wide(Walker):
        def __init__(self, config=None):
            super().__init__(config)
            self.model = torch.nn.Sequential(
                torch.nn.Linear(2, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.Linear(512, 4)
            )
            self.sizes = []

        def plan(self, batch, *, draws=None):
            self.sizes.append(len(batch["observation.state"]))
            return super().plan(batch, draws=draws) + 0.1 * self.model(batch["observation.state"])[..., None]

    class Anew(Wide):
        def act(self, batch, memories, **how):
            """Plans at every step, for all at once, as an average of plans does."""
            return self.decide(batch, memories)[:, 0]

    for kind in (Wide, Anew):
        policy = kind(WalkerConfig(noise=NOISE))
        for size in (1, 4):
            alone = run(policy, plan_batch_size=size, batch_size=1).episodes
            assert run(policy, plan_batch_size=size, batch_size=5).episodes == alone
            assert set(policy.sizes) == {size}
            policy.sizes.clear()


def test_without_a_seed_nothing_repeats():
    policy = random_policy("walker")
    first, second = (run(policy, seed=None, batch_size=1, n_episodes=2).episodes for _ in range(2))
    assert len({e.sum_reward for e in first + second}) == 4


def test_a_policy_that_looks_back_sees_the_latest_of_its_own_episode():
    """Tracker checks what it is shown; pictures that nobody looks at are not even drawn."""
    for env in (WalkConfig(), WalkConfig(skips_pictures=False)):
        config = WalkerConfig(n_obs_steps=3, n_action_steps=2, noise=NOISE)
        assert run(Tracker(config), env, batch_size=3).episodes == run(Tracker(config), batch_size=1).episodes


def test_policies_are_asked_in_the_way_they_remember():
    stateful = pipelines()
    stateful[0].steps.append(Remembering())
    kinds = [(Walker(), pipelines()), (Loner(), pipelines()), (Walker(), stateful)]
    actors = [make_actor(policy, pair, names={}, plans_at_once=0) for policy, pair in kinds]
    assert [type(actor) for actor in actors] == [MemoryActor, TwinActor, TwinActor]


class Remembering(IdentityProcessorStep):
    def reset(self):
        self.seen = []


def test_a_twin_shares_the_parameters_and_nothing_else():
    policy = Loner()
    policy.reset()
    other = twin(policy)
    assert other.gain is policy.gain
    other.log.append(1)
    assert policy.log == [] and type(other) is Loner


def test_steps_that_remember_belong_to_one_slot():
    class Counting(Remembering):
        def __call__(self, transition):
            self.seen.append(transition["observation"]["observation.state"][:, 1])
            assert torch.equal(torch.cat(self.seen), torch.arange(len(self.seen)))  # steps of one episode
            return transition

    before, after = pipelines()
    before.steps.append(Counting())
    assert run(processors=(before, after)).overall["success_rate"] > 0.5


def test_own_randomness_goes_on_where_it_was():
    mine, other, expected = OwnRandomness(3), OwnRandomness(4), []
    with OwnRandomness(3):
        expected = np.random.rand(4).tolist()
    drawn = []
    for _ in range(4):
        with mine:
            drawn.append(float(np.random.rand()))
        with other:
            np.random.rand(7)
    assert drawn == expected


# ------------------------------------------------------------------------------------------- many tasks
NAMES = ("up", "down", "over")


def test_every_episode_of_every_task_runs_once(tmp_path):
    env = WalkConfig(names=NAMES, diary=tmp_path / "diary")
    result = run(env=env, batch_size=2, n_episodes=4, max_videos=1, video_folder=tmp_path)
    found = [(e.group, e.task_id, e.index, e.task, e.seed) for e in result.episodes]
    assert found == [("hills", t, i, NAMES[t], 1000 + i) for t in range(3) for i in range(4)]
    assert [e.video for e in result.episodes if e.video] == [
        tmp_path / f"hills_{t}" / "eval_episode_0.mp4" for t in range(3)
    ]
    lines = [line.split(maxsplit=1)[1] for line in env.diary.read_text().splitlines()]
    resets = Counter(line for line in lines if line.startswith("reset"))
    assert set(resets.values()) == {1} and len(resets) == 12
    assert "reset over 1003 {'episode_index': 3}" in resets
    assert sum(line.startswith("build") for line in lines) <= 4  # three tasks, two slots


def test_tasks_have_random_numbers_of_their_own():
    policy = random_policy("walker")
    many = run(policy, WalkConfig(names=NAMES), n_episodes=2).episodes
    assert len({e.sum_reward for e in many}) == 6
    assert run(policy, WalkConfig(names=NAMES), n_episodes=2, batch_size=1).episodes == many


def test_slots_keep_their_task():
    every = assignments(WalkConfig(names=NAMES), n_episodes=10, seed=0)
    schedule = Schedule(every)
    tasks, given = dict.fromkeys(range(4)), []
    changes = 0
    while True:
        for slot, before in tasks.items():
            one = schedule.next(before)
            if one is None:
                assert len(given) == 30 and len({one.key for one in given}) == 30
                assert changes <= 3 + 4  # tasks and slots
                return
            changes += one.task != before
            tasks[slot] = one.task
            given.append(one)


def test_shares_are_all_of_it():
    every = assignments(WalkConfig(names=NAMES), n_episodes=3, seed=None)
    for num_ranks in (1, 2, 4, 20):
        parts = [share(every, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
        assert [one for part in parts for one in part] == every
    assert every[0].task == Task("hills", 0, "up") and len({one.policy_seed for one in every}) == 9


# ------------------------------------------------------------------------------------------- failures
@pytest.mark.parametrize("num_processes", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failure_names_its_episode(num_processes, tmp_path):
    env = WalkConfig(names=NAMES, fails_at=(1002, 1), diary=tmp_path / "diary")
    with pytest.raises(EnvironmentFailedError) as caught:
        run(env=env, num_processes=num_processes, max_videos=3, video_folder=tmp_path / "videos")
    words = r"failed in episode 2 \(task hills (up|down|over), seed 1002\) after 1 steps: RuntimeError: a leg"
    caught.match(words)
    if num_processes:
        assert isinstance(caught.value.__cause__, WorkerTraceback)
        assert "world.py" in str(caught.value.__cause__) and "in step" in str(caught.value.__cause__)
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.slow
def test_a_process_that_dies_is_named():
    with pytest.raises(EnvironmentFailedError) as caught:
        run(env=WalkConfig(dies_at=(1003, 2)), num_processes=2)
    said = str(caught.value)
    assert "was ended by SIGSEGV in episode 3 (task walk 0, seed 1003)" in said
    assert "--eval.batch_size" in said


@pytest.mark.slow
def test_errors_of_ours_arrive_as_they_are(monkeypatch):
    with pytest.raises(FeatureMismatchError, match=r"returned actions \[2\]; the environment takes \[1\]"):
        run(TwoActions(), num_processes=1)
    with pytest.raises(MissingExtraError) as caught:
        run(env=Uninstalled(), num_processes=1)
    assert str(caught.value) == "'no_such_simulator' is not installed. Type: pip install 'lerobot[hills]'"


class TwoActions(Walker):
    def plan(self, batch, *, draws=None):
        return super().plan(batch, draws=draws).expand(-1, -1, 2)


@dataclasses.dataclass(kw_only=True)
class Uninstalled(WalkConfig):
    def build(self):
        from lerobot.core.optional import require

        return require("no_such_simulator", extra="hills")


@pytest.mark.slow
def test_videos_come_from_the_processes_too(tmp_path):
    result = run(num_processes=2, max_videos=3, video_folder=tmp_path)
    assert [e.video for e in result.episodes[:3]] == [
        tmp_path / f"walk_0/eval_episode_{i}.mp4" for i in range(3)
    ]
    assert all(e.video.stat().st_size for e in result.episodes[:3])


@pytest.mark.slow
def test_a_renderer_that_fails_there_is_said_once(tmp_path, caplog):
    result = run(env=WalkConfig(can_draw=False), num_processes=2, max_videos=5, video_folder=tmp_path)
    assert result.episodes == run().episodes
    assert caplog.text.count("There will be no videos. There is no screen.") == 1


@pytest.mark.parametrize("n_episodes", [0, -3])
def test_no_episodes_are_refused(n_episodes):
    with pytest.raises(UserError, match=f"n_episodes={n_episodes}: expected at least 1"):
        run(n_episodes=n_episodes)
