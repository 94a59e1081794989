"""Training on what a policy lives through: the small walker, and a pendulum by the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core import keys
from lerobot.core.errors import CheckpointError, ConfigError, DatasetError
from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.source import DatasetConfig
from lerobot.envs.gym import GymEnvConfig
from lerobot.evaluation.rollout import undisturbed_randomness
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.tdmpc.config import TDMPCConfig
from lerobot.rl.actor import limits
from lerobot.rl.buffer import Buffer
from lerobot.rl.experience import Experience, OnlineLoader, joined, number_of, seed_of
from lerobot.rl.learner import OnlineData, train
from lerobot.scripts.train import read
from lerobot.training.config import TrainConfig
from lerobot.training.sections import OnlineConfig
from tests.fakes.walk import ACTION, STATE, WalkConfig

PENDULUM = [
    "--policy.type=tdmpc",
    "--policy.device=cpu",
    "--policy.mlp_dim=16",
    "--policy.latent_dim=8",
    "--policy.state_encoder_hidden_dim=8",
    "--policy.horizon=2",
    "--policy.cem_iterations=1",
    "--policy.n_gaussian_samples=8",
    "--policy.n_pi_samples=2",
    "--policy.n_elites=4",
    "--env.type=gym",
    "--env.task=Pendulum-v1",
    "--env.episode_length=10",
    "--online_training=true",
    "--online.steps_before_learning=20",
    "--online.utd_ratio=0.5",
    "--batch_size=4",
    "--log_freq=4",
    "--save_freq=4",
    "--eval_freq=0",
]


def weights(run, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"{step:06d}" / "pretrained_model" / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 12 steps that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with undisturbed_randomness():
        train(read([*PENDULUM, f"--output_dir={folder}", "--steps=12"]))
    return folder


def test_it_lives_as_much_as_it_learns(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows if "env_steps" in row] == [30, 40, 50]
    assert rows[-1]["env_episodes"] == 5 and rows[-1]["online_return"] < 0
    assert len(list((whole / "experience").iterdir())) == 5
    config = json.loads((whole / "checkpoints/last/pretrained_model/train_config.json").read_text())
    assert config["dataset"]["repo_id"] == [] and config["online_training"] is True
    stats = load_file(
        next(
            (whole / "checkpoints/last/pretrained_model").glob("policy_preprocessor*normalizer*.safetensors")
        )
    )
    assert stats["action.min"].tolist() == [-2] and stats["action.max"].tolist() == [2]


def test_a_resumed_run_lives_on_as_if_nothing_had_happened(whole, tmp_path):
    """Also what was lived after the checkpoint, by a run that was killed then, is lived again."""
    folder = tmp_path / "cut"
    train(read([*PENDULUM, f"--output_dir={folder}", "--steps=8"]))
    lived = sorted((folder / "experience").iterdir())
    (folder / "experience" / "episode_000009.safetensors").write_bytes(b"half of an epis")
    train(read(["--resume=true", f"--output_dir={folder}", "--steps=12"]))
    assert same(weights(folder, 12), weights(whole, 12))
    names = [path.name for path in sorted((folder / "experience").iterdir())]
    assert names[: len(lived)] == [path.name for path in lived] and len(names) == 5
    for name in names:
        assert same(load_file(folder / "experience" / name), load_file(whole / "experience" / name))


def test_a_checkpoint_whose_experience_is_gone(whole, tmp_path):
    folder = tmp_path / "cut"
    train(read([*PENDULUM, f"--output_dir={folder}", "--steps=4"]))
    (folder / "experience" / "episode_000001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"episode_000001.*--policy.path=CHECKPOINT"):
        train(read(["--resume=true", f"--output_dir={folder}", "--steps=8"]))


def test_a_trained_policy_explores_by_itself(whole, tmp_path):
    checkpoint = whole / "checkpoints" / "last"
    words = [flag for flag in PENDULUM if not flag.startswith("--policy.")]
    train(
        read(
            [*words, f"--policy.path={checkpoint}", f"--output_dir={tmp_path / 'on'}", "--steps=1"]
            + ["--policy.device=cpu"]
        )
    )
    state = json.loads((tmp_path / "on/checkpoints/last/training_state/extra_state.json").read_text())
    assert state["experience"]["random_steps"] == 0


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_with_the_same_weights(whole, tmp_path):
    folder = tmp_path / "killed"
    words = [*PENDULUM, f"--output_dir={folder}", "--steps=12"]
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    for wait_for in ("000004", "000008"):
        process = subprocess.Popen(
            [sys.executable, "-m", "lerobot.scripts.train", *words],
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while (folder / "checkpoints/last").resolve().name != wait_for and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        words = ["--resume=true", f"--output_dir={folder}"]
    if not (folder / "checkpoints/000012").exists():
        train(read(words))
    assert same(weights(folder, 12), weights(whole, 12))


# ------------------------------------------------------------------------------------------------- the walker
def walking(tmp_path, **changes) -> TrainConfig:
    policy = replace(
        TDMPCConfig.tiny(),
        input_features={STATE: PolicyFeature(FeatureType.STATE, (2,))},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (1,))},
        push_to_hub=False,
    )
    settings = {
        "dataset": DatasetConfig(repo_id=[]),
        "policy": policy,
        "env": WalkConfig(episode_length=8),
        "output_dir": tmp_path / "run",
        "online_training": True,
        "online": OnlineConfig(steps_before_learning=16, buffer_capacity=40),
        "steps": 2,
        "batch_size": 8,
    }
    return TrainConfig(**{**settings, **changes})


def experience(cfg: TrainConfig) -> Experience:
    """What a run of this config would live through, without the run."""
    from lerobot.distributed.world import World
    from lerobot.training.run import start

    data = OnlineData(cfg)
    start(cfg, World(rank=0, size=1, local_rank=0, device=torch.device("cpu")), data=data)
    assert isinstance(data.experience, Experience)
    return data.experience


def test_episodes_follow_from_their_seeds(tmp_path):
    lived = experience(walking(tmp_path))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = lived.actor.live(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    other, third = lived.actor.live(7), lived.actor.live(8)
    assert same(one.frames, other.frames) and not same(one.frames, third.frames)
    frames = one.frames
    assert frames[STATE].shape == (8, 2) and frames["observation.images.top"].shape == (8, 3, 9, 13)
    assert frames[keys.DONE].flatten().tolist() == [False] * 7 + [True]
    # the action of a frame leads to the state of the next, and its reward tells how near that is
    torch.testing.assert_close(
        frames[STATE][1:, :1], frames[STATE][:-1, :1] + frames[ACTION][:-1].clip(-1, 1)
    )
    torch.testing.assert_close(frames[keys.REWARD][:-1], 1 - 0.1 * frames[STATE][1:, :1].abs())


def test_random_actions_fill_the_range(tmp_path):
    lived = experience(walking(tmp_path))
    actions = torch.cat([lived.actor.live(i, random_steps=8).frames[ACTION] for i in range(20)])
    assert actions.min() < -0.9 and actions.max() > 0.9 and actions.abs().max() <= 1
    assert len({seed_of(1000, i) for i in range(100)}) == 100


def test_it_lives_whole_episodes_until_there_is_enough_to_learn_from(tmp_path):
    lived = experience(walking(tmp_path, online=OnlineConfig(steps_before_learning=20, utd_ratio=2.0)))
    loader = OnlineLoader(lived, batch_size=4, per_update=1, seed=0)
    for update, _ in zip(range(20), loader, strict=False):
        needed = 20 + update // 2
        assert lived.buffer.starts[-2] < needed <= lived.buffer.starts[-1]
    assert len(list(lived.folder.iterdir())) == lived.buffer.num_episodes > 3


def test_files_of_episodes_that_left_stay_for_the_checkpoint_before(tmp_path):
    lived = experience(walking(tmp_path))  # room for 40 steps of episodes of up to 8

    def on_disk():
        return sorted(number_of(path) for path in lived.folder.iterdir())

    lived.live_for(30)
    first = lived.state_dict()
    lived.live_for(60)
    assert on_disk()[0] == 0 < first["first_episode"] < lived.buffer.first_episode
    second = lived.state_dict()
    assert on_disk()[0] == first["first_episode"]
    lived.state_dict()
    assert on_disk()[0] == second["first_episode"]


def test_batches_do_not_depend_on_who_asks(tmp_path):
    lived = experience(walking(tmp_path))
    first = OnlineLoader(lived, batch_size=4, per_update=1, seed=0)
    taken = [batch[keys.INDEX].tolist() for batch, _ in zip(first, range(5), strict=False)]
    later = OnlineLoader(lived, batch_size=4, per_update=1, seed=0)
    later.start = first.position(3)
    assert next(iter(later))[keys.INDEX].tolist() == taken[3]


def walks(root) -> None:
    """A dataset with rewards, as lerobot-collect would record it."""
    from tests.rl.test_buffer import FEATURES, IMAGE, episode

    table = FEATURES | {IMAGE: {**FEATURES[IMAGE], "dtype": "image"}}
    dataset = LeRobotDataset.create("local/walks", WalkConfig().fps, table, root=root)
    for number in range(3):
        frames = episode(10, number)
        for i in range(10):
            frame = {name: values[i].numpy() for name, values in frames.items()}
            dataset.add_frame({**frame, keys.TASK: "recorded"})
        dataset.save_episode()
    dataset.finalize()


def test_recorded_data_takes_its_share_of_each_batch(tmp_path):
    walks(tmp_path / "walks")
    data = DatasetConfig(repo_id="local/walks", root=tmp_path / "walks")
    cfg = walking(tmp_path, dataset=data, online=OnlineConfig(steps_before_learning=16, ratio=0.25))
    online = OnlineData(cfg)
    from lerobot.distributed.world import World
    from lerobot.training.run import start

    run = start(cfg, World(rank=0, size=1, local_rank=0, device=torch.device("cpu")), data=online)
    batches = iter(run.loader)
    for _ in range(3):
        tasks = next(batches)[keys.TASK]
        assert tasks == ["walk home"] * 2 + ["recorded"] * 6


def test_two_batches_become_one():
    one, other = {"a": torch.zeros(2, 3), "t": ["x"], "b": torch.ones(1)}, {"a": torch.ones(1, 3), "t": ["y"]}
    both = joined(one, other)
    assert both.keys() == {"a", "t"} and both["a"].shape == (3, 3) and both["t"] == ["x", "y"]


# --------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"env": None}, "Give --env.type=NAME"),
        ({"policy": ACTConfig.tiny()}, "act does not read.*--policy.type=tdmpc"),
        ({"online_training": False}, "nothing to learn from"),
        ({"num_processes": 2}, "--num_processes=2 do not go together"),
        ({"num_epochs": 2}, "--num_epochs do not go together"),
        ({"dataset": DatasetConfig(repo_id=["a", "b"])}, "more than one --dataset.repo_id"),
    ],
)
def test_what_does_not_go_together(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        walking(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"utd_ratio": 0}, "--online.utd_ratio=0"),
        ({"steps_before_learning": 0}, "--online.steps_before_learning=0: expected at least 1"),
        ({"random_steps": -1}, "--online.random_steps=-1"),
        ({"ratio": 1.5}, "--online.ratio=1.5"),
    ],
)
def test_wrong_numbers(changes, said):
    with pytest.raises(ConfigError, match=said):
        OnlineConfig(**changes)


def test_recorded_data_without_rewards(tmp_path):
    table = WalkConfig().dataset_features()
    table = {name: feature for name, feature in table.items() if feature["dtype"] != "video"}
    dataset = LeRobotDataset.create("local/bare", 30, table, root=tmp_path / "bare")
    dataset.add_frame({STATE: [0.0, 0.0], ACTION: [0.0], keys.TASK: "walk"})
    dataset.save_episode()
    dataset.finalize()
    data = DatasetConfig(repo_id="local/bare", root=tmp_path / "bare")
    with pytest.raises(DatasetError, match=r"has no next.reward.*leave out --dataset.repo_id"):
        train(walking(tmp_path, dataset=data))


def test_recorded_data_at_another_rate(tmp_path):
    walks(tmp_path / "walks")
    data = DatasetConfig(repo_id="local/walks", root=tmp_path / "walks")
    with pytest.raises(DatasetError, match="Type: --env.fps=30"):
        train(walking(tmp_path, dataset=data, env=WalkConfig(fps=7)))


def test_actions_without_limits():
    class Endless:
        action_space = "anything"

    with pytest.raises(ConfigError, match="have none: anything"):
        limits(Endless())


def test_the_buffer_of_a_run_reads_what_the_policy_wants(tmp_path):
    buffer: Buffer = experience(walking(tmp_path)).buffer
    assert buffer.deltas[STATE].tolist() == [0, 1, 2, 3] and buffer.deltas[ACTION].tolist() == [0, 1, 2]
    assert GymEnvConfig().fps == 30
