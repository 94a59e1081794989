"""Errors of actions against a slow, plain computation of the same; what the dataset lacks is said."""

import dataclasses

import numpy as np
import pytest
import torch

from lerobot.core.errors import ConfigError, DatasetError, FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.datasets.source import DatasetConfig
from lerobot.evaluation.interval import mean_interval
from lerobot.evaluation.replay import joint_names, replay
from lerobot.policies.policy import PreTrainedPolicy
from tests.fakes import dataset as made
from tests.fakes.walk import WalkerConfig, pipelines

LENGTHS = [5, 3, 6]
STATE, CAMERA, ACTION = "observation.state", "observation.images.top", "action"
SCALE = [[1.0, 2.0, 3.0], [0.5, 0.0, -1.0], [0.0, 1.0, 0.25], [2.0, 0.1, 0.0]]  # (T, A)


class Planner(PreTrainedPolicy):
    """Plans `SCALE` times the state, of which it may give fewer steps than it learns from."""

    config_class, name = WalkerConfig, "walker"

    def __init__(self, *, steps=4, camera=CAMERA):
        inputs = {
            STATE: PolicyFeature(FeatureType.STATE, (3,)),
            camera: PolicyFeature(FeatureType.VISUAL, (3, made.HEIGHT, made.WIDTH)),
        }
        outputs = {ACTION: PolicyFeature(FeatureType.ACTION, (3,))}
        super().__init__(WalkerConfig(input_features=inputs, output_features=outputs))
        self.scale = torch.nn.Parameter(torch.tensor(SCALE[:steps]))
        self.camera, self.tasks = camera, []

    def plan(self, batch, *, draws=None):
        assert ACTION not in batch or batch[ACTION] is None, "the answer must not be shown"
        assert batch[self.camera].is_floating_point() and batch[self.camera].max() <= 1
        self.tasks += batch["task"]
        return batch[STATE][:, None] * self.scale  # (B, T, A)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.make(tmp_path_factory.mktemp("replay") / "set", LENGTHS).root


def run(folder, policy=None, **how):
    policy, more = policy or Planner(), {"n_episodes": 99, "batch_size": 4, **how}
    cfg = DatasetConfig(repo_id="me/made", root=folder, episodes=more.pop("episodes", None))
    return replay(policy, pipelines(policy.config), cfg, **more)


def errors(episode, steps=4):
    """(frame, step, joint) -> error, for steps inside the episode, from what the dataset was made of."""
    frames = [made.frame(made.NUMBERS, episode, k) for k in range(LENGTHS[episode])]
    return {
        (k, t, j): SCALE[t][j] * frame[STATE][j] - frames[k + t][ACTION][j]
        for k, frame in enumerate(frames)
        for t in range(steps)
        if k + t < len(frames)
        for j in range(3)
    }


def mse(values):
    return pytest.approx(np.mean(np.square(list(values))), rel=1e-5)


def mae(values):
    return pytest.approx(np.mean(np.abs(list(values))), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("steps", [4, 2])
def test_means_equal_a_plain_computation(folder, batch_size, steps):
    result = run(folder, Planner(steps=steps), batch_size=batch_size)
    each = [errors(episode, steps) for episode in range(3)]
    every = [item for episode in each for item in episode.items()]
    tree = result.to_tree()
    assert tree["overall"]["action_mse"] == mse(e for _, e in every)
    assert tree["overall"]["action_mae"] == mae(e for _, e in every)
    assert tree["overall"]["n_frames"] == sum(LENGTHS)
    for j, name in enumerate(("a.pos", "b.pos", "c.pos")):
        assert tree["per_joint"][name]["action_mse"] == mse(e for (_, _, joint), e in every if joint == j)
        assert tree["per_joint"][name]["action_mae"] == mae(e for (_, _, joint), e in every if joint == j)
    assert [row["step"] for row in tree["per_step"]] == list(range(steps))
    for t, row in enumerate(tree["per_step"]):
        assert row["action_mse"] == mse(e for (_, step, _), e in every if step == t)
        assert row["action_mae"] == mae(e for (_, step, _), e in every if step == t)
    assert [(row["episode_index"], row["n_frames"]) for row in tree["per_episode"]] == [
        (0, 5),
        (1, 3),
        (2, 6),
    ]
    for row, episode in zip(tree["per_episode"], each, strict=True):
        assert row["action_mse"] == mse(episode.values()) and row["action_mae"] == mae(episode.values())


def test_intervals_are_over_episodes(folder):
    tree = run(folder).to_tree()
    sums = [np.sum(np.square(list(errors(episode).values()))) for episode in range(3)]
    counts = [len(errors(episode)) for episode in range(3)]
    low, high = mean_interval(sums, counts)
    assert low < 0, "else nothing shows that an error is not taken for negative"
    assert tree["overall"]["action_mse_interval"] == pytest.approx([0.0, high], rel=1e-4)
    per_joint = tree["per_joint"]["b.pos"]["action_mae_interval"]
    of_joint = [[abs(e) for (_, _, j), e in errors(episode).items() if j == 1] for episode in range(3)]
    low, high = mean_interval([sum(part) for part in of_joint], [len(part) for part in of_joint])
    assert per_joint == pytest.approx([max(0.0, low), high], rel=1e-4)
    last = tree["per_step"][3]  # episode 1 is too short for it
    of_step = [[abs(e) for (_, t, _), e in errors(episode).items() if t == 3] for episode in (0, 2)]
    low, high = mean_interval([sum(part) for part in of_step], [len(part) for part in of_step])
    assert last["action_mae_interval"] == pytest.approx([max(0.0, low), high], rel=1e-4)
    assert run(folder, n_episodes=1).overall["action_mse_interval"] is None


class Remembering(Planner):
    """Looks at the last two states, and draws: plans the older one plus noise."""

    looks_back = True

    def __init__(self):
        super().__init__()
        self.config = dataclasses.replace(self.config, n_obs_steps=2)
        self.seen = []

    def plan(self, batch, *, draws=None):
        states = batch[STATE]  # (B, O, J)
        assert states.shape[1:] == (2, 3) and batch[CAMERA].shape[1:] == (2, 3, made.HEIGHT, made.WIDTH)
        self.seen += states.tolist()
        plans = states[:, :1] * self.scale  # (B, T, A)
        return plans + draws.normal(*plans.shape, like=plans)


class RememberingConfig(WalkerConfig):
    type = "walker"

    @property
    def observation_delta_indices(self):
        return [-1, 0]

    @property
    def action_delta_indices(self):
        return [-1, 0, 1, 2]  # what came before is learned from, and not compared


def remembering():
    policy = Remembering()
    policy.config = RememberingConfig(**{**vars(policy.config), "n_obs_steps": 2})
    return policy


def test_a_policy_that_looks_back_sees_the_frames_before(folder):
    policy = remembering()
    run(folder, policy, batch_size=4)
    states = [made.frame(made.NUMBERS, 1, k)[STATE] for k in range(3)]
    first = LENGTHS[0]
    np.testing.assert_allclose(policy.seen[first], [states[0], states[0]], rtol=1e-6)
    np.testing.assert_allclose(policy.seen[first + 2], [states[1], states[2]], rtol=1e-6)


def test_draws_are_those_of_the_frame_whatever_the_batch(folder):
    found = {size: run(folder, remembering(), batch_size=size).squared for size in (1, 4, 100)}
    assert found[1].shape == (3, 3, 3), "three of the four steps lie ahead"
    np.testing.assert_allclose(found[1], found[4], rtol=1e-5)
    np.testing.assert_allclose(found[1], found[100], rtol=1e-5)
    alone = run(folder, remembering(), episodes=[2])
    np.testing.assert_allclose(alone.squared[0], found[4][2], rtol=1e-5)
    assert not np.allclose(run(folder, remembering(), seed=1).squared, found[4])
    assert not np.allclose(run(folder, remembering(), seed=None).squared, found[4])


def test_the_callers_random_numbers_stay(folder):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(folder, remembering())
    assert torch.equal(torch.rand(2), expected)


def test_steps_that_no_episode_reaches_are_left_out(folder):
    result = run(folder, episodes=[1])
    assert [row["step"] for row in result.to_tree()["per_step"]] == [0, 1, 2]


def test_the_first_episodes_or_chosen_ones(folder):
    assert run(folder, n_episodes=2).episodes == [0, 1]
    chosen = run(folder, episodes=[2, 1], n_episodes=1)
    assert chosen.episodes == [2] and chosen.overall["action_mse"] == mse(errors(2).values())
    assert "of the 3 episodes" in chosen.rows["frames"] and "all" in run(folder).rows["frames"]


def test_curves_are_the_recorded_actions_and_the_first_planned_ones(folder):
    first, second = run(folder, max_curves=2).curves
    assert (first.episode, second.episode) == (0, 1)
    frames = [made.frame(made.NUMBERS, 1, k) for k in range(3)]
    np.testing.assert_allclose(second.recorded, [frame[ACTION] for frame in frames])
    np.testing.assert_allclose(second.predicted, [frame[STATE] * SCALE[0] for frame in frames], rtol=1e-6)


def test_task_texts(folder):
    policy = Planner()
    run(folder, policy)
    assert policy.tasks[:6] == [made.TASKS[0]] * 5 + [made.TASKS[1]]
    policy = Planner()
    run(folder, policy, task="something: else")
    assert set(policy.tasks) == {"something: else"}


def test_a_camera_of_another_name(folder):
    with pytest.raises(FeatureMismatchError, match="observation.images.head.*which is not there"):
        run(folder, Planner(camera="observation.images.head"))
    renamed = run(
        folder, Planner(camera="observation.images.head"), rename_map={CAMERA: "observation.images.head"}
    )
    assert renamed.overall["action_mse"] == run(folder).overall["action_mse"]


def test_another_robot(folder):
    policy = Planner()
    wide = {**policy.config.output_features, ACTION: PolicyFeature(FeatureType.ACTION, (7,))}
    policy.config = dataclasses.replace(policy.config, output_features=wide)
    with pytest.raises(
        FeatureMismatchError, match=r"dataset me/made.*action is \[3\] there and \[7\] in the policy"
    ):
        run(folder, policy)


def test_a_dataset_without_actions(tmp_path):
    features = {name: f for name, f in {**made.NUMBERS, **made.VIDEO}.items() if name != ACTION}
    root = made.make(tmp_path / "set", [2], features).root
    with pytest.raises(DatasetError, match="'me/made' has no 'action', so there is nothing to compare"):
        run(root)


def test_no_dataset_there(tmp_path):
    with pytest.raises(DatasetError, match="was not found: .* does not exist") as caught:
        run(tmp_path / "nothing")
    assert str(tmp_path / "nothing") in str(caught.value) and "--dataset.root" in str(caught.value)


def test_streaming_is_refused(folder):
    cfg = DatasetConfig(repo_id="me/made", root=folder, streaming=True)
    policy = Planner()
    with pytest.raises(ConfigError, match="--dataset.streaming"):
        replay(policy, pipelines(policy.config), cfg, n_episodes=1, batch_size=1)


@pytest.mark.parametrize(
    "names, expected",
    [
        (["pan", "lift"], ["pan", "lift"]),
        ({"motors": ["pan", "lift"]}, ["pan", "lift"]),
        ({"pan": 0, "lift": 1}, ["pan", "lift"]),
        (None, ["action_0", "action_1"]),
        (["arm"], ["action_0", "action_1"]),
    ],
)
def test_names_of_joints(names, expected):
    assert joint_names({"shape": [2], "names": names}) == expected
