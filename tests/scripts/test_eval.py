"""lerobot-eval, a real ACT in the real simulation and on a real dataset, and what a user may do wrong."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lerobot.core.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    DeviceError,
    EnvironmentFailedError,
    FeatureMismatchError,
    MissingExtraError,
    MissingStatsError,
)
from lerobot.datasets import LeRobotDataset
from lerobot.envs.base import EnvConfig
from lerobot.envs.pusht import PushTEnvConfig
from lerobot.envs.so101 import SO101EnvConfig
from lerobot.evaluation import rollout
from lerobot.evaluation.job import load
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.build import make_policy, make_pre_post_processors
from lerobot.policies.config import PreTrainedConfig
from lerobot.scripts.eval import evaluate
from tests.fakes.joints import TellingConfig

ROOT = Path(__file__).parents[2]
STATES = ["--env.type=so101", "--env.obs_type=state", "--env.episode_length=12", "--eval.max_videos=0"]


def save_policy(folder: Path, env: EnvConfig, **fields) -> Path:
    """The folder of a run whose checkpoint is a new tiny ACT with made-up statistics."""
    tiny = {key: value for key, value in vars(ACTConfig.tiny()).items() if "features" not in key}
    config = ACTConfig(**{**tiny, "chunk_size": 6, "n_action_steps": 4, **fields})
    torch.manual_seed(0)
    policy = make_policy(config, env_cfg=env)
    stats = {
        name: {"mean": np.zeros(shape, np.float32), "std": np.full(shape, 20.0, np.float32)}
        for name, f in env.features.items()
        for shape in [(f.shape[0], 1, 1) if len(f.shape) == 3 else f.shape]
    }
    for part in (policy, *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(folder / "checkpoints/000010/pretrained_model")
    (folder / "checkpoints/last").symlink_to("000010")
    (folder / "metrics.jsonl").write_text('{"step": 5, "loss": 3.0}\n{"step": 10, "loss": 2.0}\n')
    return folder


@pytest.fixture(scope="session")
def blind(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("runs") / "blind", SO101EnvConfig(obs_type="state"))


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    env = SO101EnvConfig(obs_type="state")
    return save_policy(tmp_path_factory.mktemp("runs") / "other", env, dim_feedforward=32)


@pytest.fixture(scope="session")
def seeing(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("runs") / "seeing", SO101EnvConfig(cameras=["front"]))


def test_the_files_and_the_lines(blind, tmp_path, capsys):
    flags = [f"--policy.path={blind}", *STATES, f"--output_dir={tmp_path / 'out'}", "--num_episodes=3"]
    result = evaluate(flags)
    said = capsys.readouterr()
    assert "success rate  0.0% (0 of 3 episodes; 95 % interval 0.0% to 56.1%)" in said.out
    assert str(tmp_path / "out/report.html") in said.out and "evaluating 3/3 episodes" in said.err
    info = json.loads((tmp_path / "out/eval_info.json").read_text())
    assert [e["seed"] for e in info["per_episode"]] == [1000, 1001, 1002]
    assert info["checkpoint"].endswith("pretrained_model") and info["policy"] == "act" and info["device"]
    assert info["task"].startswith("Pick up") and result.overall["n_episodes"] == 3
    page = (tmp_path / "out/report.html").read_text()
    assert "polyline" in page, "the run's training curve belongs on the page"
    assert not (tmp_path / "out/videos").exists()


@pytest.mark.parametrize(
    "spelling", ["", "checkpoints/last", "checkpoints/000010/pretrained_model", "last.pt"]
)
def test_spellings_of_a_checkpoint(blind, tmp_path, spelling):
    path = blind / "checkpoints" / spelling if spelling.endswith(".pt") else blind / spelling
    result = evaluate(["-p", str(path), *STATES, "--eval.n_episodes=1", f"--output_dir={tmp_path}"])
    assert result.episodes[0].steps == 12


ENSEMBLE = {"temporal_ensemble_coeff": 0.01, "n_action_steps": 1}  # plans at every step


@pytest.mark.parametrize("plan_batch_size", [1, 4])
@pytest.mark.parametrize("fields", [{}, ENSEMBLE])
def test_episodes_of_act_do_not_depend_on_the_batch_size(blind, plan_batch_size, fields):
    """Exactly; joints are what every rounding shows in."""
    hows = [{"batch_size": size, "num_processes": None} for size in (1, 2, 5)]
    alone, *others = joint_sums(blind, hows, fields, plan_batch_size=plan_batch_size)
    assert all(other == alone for other in others)
    assert len(set(alone)) == 5, "equal trajectories prove nothing"


@pytest.mark.slow
def test_episodes_of_act_do_not_depend_on_the_number_of_processes(blind):
    hows = [{"batch_size": 5, "num_processes": count} for count in (None, 1, 2, 5)]
    here, *others = joint_sums(blind, hows, {})
    assert all(other == here for other in others)


def joint_sums(run, hows, fields, **both):
    """What the joints of each episode add up to, for each way of evaluating."""
    folder = run / "checkpoints/000010/pretrained_model"
    policy, processors = load(PreTrainedConfig.from_pretrained(folder, device="cpu", **fields), folder)
    env = TellingConfig(obs_type="state", episode_length=12)
    results = [rollout.evaluate(policy, processors, env, n_episodes=5, **both, **how) for how in hows]
    return [[one.sum_reward for one in result.episodes] for result in results]


@pytest.mark.slow
def test_a_ray_cluster_finds_the_same(blind, tmp_path):
    pytest.importorskip("ray")
    flags = [f"--policy.path={blind}", "--policy.device=cpu", *STATES[:-1], "--eval.n_episodes=5"]
    evaluate([*flags, "--eval.max_videos=1", f"--output_dir={tmp_path / 'here'}"])
    cluster = ["--executor=ray", "--n_jobs=2", "--eval.max_videos=1"]
    evaluate([*flags, *cluster, f"--output_dir={tmp_path / 'ray'}"])
    here, there = (json.loads((tmp_path / name / "eval_info.json").read_text()) for name in ("here", "ray"))
    numbers = [
        [{name: value for name, value in row.items() if "video" not in name} for row in info["per_episode"]]
        for info in (here, there)
    ]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 5
    assert there["device"] == "cpu"
    (video,) = there["overall"]["video_paths"]
    assert Path(video) == tmp_path / "ray/videos/so101_0/eval_episode_0.mp4" and Path(video).stat().st_size
    with pytest.raises(FeatureMismatchError, match="does not fit this act policy"):
        evaluate([*flags[:2], "--env.type=so101", "--executor=ray", f"--output_dir={tmp_path / 'wrong'}"])


def test_a_failure_in_an_environment_leaves_its_traceback(blind, tmp_path, monkeypatch):
    def fall(self, angles):
        raise ZeroDivisionError("the arm fell off")

    monkeypatch.setattr("lerobot.sim.physics.Physics.set_targets", fall)
    with pytest.raises(EnvironmentFailedError) as caught:
        evaluate([f"--policy.path={blind}", *STATES, "--eval.batch_size=1", f"--output_dir={tmp_path}"])
    where = "The so101 environment failed in episode 0 (task so101 pick_place, seed 1000) after 0 steps"
    assert str(caught.value) == f"{where}: ZeroDivisionError: the arm fell off"
    assert caught.value.__notes__ == [f"Details: {tmp_path / 'failure.txt'}"]
    assert "in fall" in (tmp_path / "failure.txt").read_text()


def test_the_default_folder_is_named_after_time_environment_and_policy(blind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate([f"--policy.path={blind}", *STATES, "--eval.n_episodes=1"])
    (report,) = tmp_path.glob("outputs/eval/*-*-*/*-*-*_so101_act/report.html")
    assert report.is_file()


@pytest.mark.slow
def test_the_guides_spelling_with_cameras_and_videos(seeing, tmp_path):
    words = [sys.executable, "lerobot/scripts/eval.py", "-p", str(seeing), "--env.type=so101"]
    words += ["--env.cameras=[front]", "--env.episode_length=5", "--eval.n_episodes=3", "--eval.batch_size=2"]
    done = subprocess.run(
        [*words, f"--output_dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "0 of 3 episodes" in done.stdout
    names = sorted(path.name for path in (tmp_path / "videos/so101_0").iterdir())
    assert names == [f"eval_episode_{i}.mp4" for i in range(3)]
    assert (tmp_path / "report.html").read_text().count("data:video/mp4") == 3


def test_a_dataset_is_replayed(blind, tmp_path, capsys):
    env = SO101EnvConfig(obs_type="state")
    dataset = LeRobotDataset.create("me/poses", 30, env.dataset_features(), root=tmp_path / "set")
    for episode in range(3):
        for k in range(8):
            numbers = {name: np.full(f.shape, episode + k, np.float32) for name, f in env.features.items()}
            dataset.add_frame({**numbers, "task": "stay"})
        dataset.save_episode()
    dataset.finalize()
    flags = [f"--policy.path={blind / 'checkpoints/000010'}", "--dataset.repo_id=me/poses"]
    flags += [f"--dataset.root={tmp_path / 'set'}", f"--output_dir={tmp_path / 'out'}", "--num_episodes=2"]
    result = evaluate(flags)
    info = json.loads((tmp_path / "out/eval_info.json").read_text())
    assert info["overall"]["n_frames"] == 16 and len(info["per_step"]) == 6
    assert list(info["per_joint"]) == env.dataset_features()["action"]["names"]
    assert info["overall"]["action_mae_interval"][0] <= info["overall"]["action_mae"] and info["seed"] == 1000
    assert (info["dataset_episodes"], info["dataset_frames"]) == (3, 24)
    pictures = sorted(path.name for path in (tmp_path / "out/actions").iterdir())
    assert pictures == ["episode_0.svg", "episode_1.svg"]
    assert result.overall["action_mse"] > 0
    assert "2 of the 3 episodes" in capsys.readouterr().out


def test_what_a_number_depends_on_is_written_down(blind, tmp_path):
    evaluate([f"--policy.path={blind}", *STATES, f"--output_dir={tmp_path}", "--num_episodes=1", "--seed=7"])
    info = json.loads((tmp_path / "eval_info.json").read_text())
    assert {"python", "torch", "lerobot", "numpy", "gymnasium", "mujoco"} == info["versions"].keys()
    assert info["seed"] == 7 == info["per_episode"][0]["seed"] and info["renderer"] == os.environ["MUJOCO_GL"]
    assert info["device_name"] and info["config"]["env"]["type"] == "so101"
    folder = blind / "checkpoints/000010/pretrained_model"
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert info["checkpoint_sha256"]["model.safetensors"] == weights
    assert {
        name for name in info["checkpoint_sha256"] if "normalizer" in name or "processor.json" in name
    } >= {
        "policy_preprocessor.json",
        "policy_postprocessor.json",
    }


def test_two_policies_in_the_same_episodes_and_their_folders_again(blind, other, tmp_path, capsys):
    out = tmp_path / "out"
    flags = [f"--compare={blind},{other}", *STATES, "--num_episodes=3", f"--output_dir={out}", "--device=cpu"]
    found = evaluate(flags)
    said = capsys.readouterr().out
    assert "B minus A     +0.0 points of success" in said and str(out / "comparison.json") in said
    assert [(a.seed, b.seed) for a, b in found.pairs] == [(1000 + i, 1000 + i) for i in range(3)]
    for side, run in (("a", blind), ("b", other)):
        info = json.loads((out / side / "eval_info.json").read_text())
        assert str(run) in info["checkpoint"] and (out / side / "report.html").is_file()
    tree = json.loads((out / "comparison.json").read_text())
    assert tree["overall"]["n_episodes"] == 3 and (tree["a"], tree["b"]) == (str(blind), str(other))
    again = evaluate([f"--compare={out}/a,{out}/b/eval_info.json", f"--output_dir={tmp_path / 'again'}"])
    assert again.overall == found.overall
    assert not (tmp_path / "again/a").exists() and (tmp_path / "again/report.html").is_file()


def test_episodes_become_a_dataset(blind, tmp_path, caplog):
    flags = [f"--policy.path={blind}", *STATES, f"--output_dir={tmp_path}", "--eval.recording=true"]
    result = evaluate([*flags, "--num_episodes=2"])
    dataset = LeRobotDataset("me/x", root=tmp_path / "recordings/so101_0")
    assert dataset.num_episodes == 2 and dataset.num_frames == 24 and dataset.meta.robot_type == "so101"
    assert dataset[0]["task"] == result.episodes[0].task and not (tmp_path / "videos").exists()
    assert dataset[11]["next.done"] and not dataset[10]["next.done"]
    info = json.loads((tmp_path / "eval_info.json").read_text())
    assert info["recordings"] == [str(tmp_path / "recordings/so101_0")]
    with pytest.raises(ConfigError, match="recordings of an earlier evaluation, which are kept"):
        evaluate([*flags, "--num_episodes=3"])
    assert LeRobotDataset("me/x", root=tmp_path / "recordings/so101_0").num_episodes == 2


def test_recordings_are_pushed_when_the_results_are_safe(blind, tmp_path, hub):
    flags = [f"--policy.path={blind}", *STATES, f"--output_dir={tmp_path}", "--eval.recording=true"]
    evaluate(
        [*flags, "--num_episodes=1", "--eval.recording_repo_id=me/walks", "--eval.recording_private=true"]
    )
    there = hub.repos["dataset", "me/walks"]
    assert "meta/info.json" in there.files()
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_pictures_of_pusht_are_recorded_as_they_are_declared(tmp_path):
    env = PushTEnvConfig(observation_height=96, observation_width=96)
    run = save_policy(tmp_path / "run", env)
    flags = [f"--policy.path={run}", "--env.type=pusht", "--env.episode_length=4", "--eval.recording=true"]
    flags += ["--env.observation_height=96", "--env.observation_width=96", f"--output_dir={tmp_path / 'out'}"]
    evaluate([*flags, "--num_episodes=3", "--eval.batch_size=2"])  # also a second batch
    dataset = LeRobotDataset("me/x", root=tmp_path / "out/recordings/pusht_0")
    assert dataset.num_episodes == 3 and dataset[0]["observation.image"].shape == (3, 96, 96)


# ---------------------------------------------------------------------------------- what a user may do wrong
@pytest.mark.parametrize(
    "flags, kind, said",
    [
        (["--compare=x"], ConfigError, "--compare=x: expected two names with a comma"),
        (["--compare=a,b,c"], ConfigError, "expected two names"),
        (["--compare=a,"], ConfigError, "expected two names"),
        (["--compare=none/a,none/b"], ConfigError, "no eval_info.json in none/a.*add --env.type=NAME"),
        (["--compare=none/a/x,none/b/x", *STATES], CheckpointError, "There is no checkpoint at none/a/x"),
        (["--compare={run},none/b/x", *STATES], CheckpointError, "There is no checkpoint at none/b/x"),
        (["--compare={run},{run}", "-p", "{run}", *STATES], ConfigError, "--policy.path and --compare"),
        (
            ["--compare={run},{run}", "--policy.n_action_steps=1", *STATES],
            ConfigError,
            "only --policy.device",
        ),
        (["--compare={run},{run}", "--seed=null", *STATES], ConfigError, "--compare needs a --seed"),
        (["--compare={run},{run}", "--dataset.repo_id=me/x"], ConfigError, "compares in simulation"),
        (["--compare={run},{run}", "--eval.recording=true", *STATES], ConfigError, "one by one"),
        (
            ["-p", "{run}", "--eval.recording=true", "--dataset.repo_id=me/x"],
            ConfigError,
            "in simulation: give",
        ),
        (["--compare={run},{seeing}", *STATES], FeatureMismatchError, "observation.images.front.*not there"),
    ],
)
def test_comparisons_that_are_wrong(blind, seeing, flags, kind, said, tmp_path):
    flags = [flag.replace("{run}", str(blind)).replace("{seeing}", str(seeing)) for flag in flags]
    with pytest.raises(kind, match=said):
        evaluate([*flags, f"--output_dir={tmp_path}"])
    assert list(tmp_path.iterdir()) == [], "nothing has run"


def test_a_comparison_does_not_replace_an_evaluation(blind, tmp_path):
    evaluate([f"--policy.path={blind}", *STATES, f"--output_dir={tmp_path}", "--num_episodes=1"])
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(ConfigError, match="holds an evaluation, whose report would be replaced"):
        evaluate([f"--compare={tmp_path},{tmp_path}", f"--output_dir={tmp_path}"])
    assert (tmp_path / "report.html").read_bytes() == before


@pytest.mark.parametrize("lost", ["all", "pipelines", "numbers"])
def test_a_checkpoint_without_statistics(blind, tmp_path, lost):
    folder = tmp_path / "kept"
    shutil.copytree(blind / "checkpoints/000010/pretrained_model", folder)
    patterns = {"all": "policy_*", "pipelines": "policy_*.json", "numbers": "policy_*.safetensors"}
    for path in folder.glob(patterns[lost]):
        path.unlink()
    with pytest.raises((CheckpointError, MissingStatsError)) as caught:
        evaluate(["-p", str(folder), *STATES, f"--output_dir={tmp_path / 'out'}"])
    said = str(caught.value)
    assert str(folder) in said and "policy_preprocessor" in said and "\n" not in said
    assert not (tmp_path / "out").exists(), "nothing has run"


def wrong(*flags):
    evaluate([*flags, "--output_dir=nowhere/never"])


@pytest.mark.parametrize(
    "flags, kind, said",
    [
        (["--eval.n_episodes=0"], ConfigError, "--eval.n_episodes=0: expected at least 1"),
        (["--num_episodes=0"], ConfigError, "--eval.n_episodes=0: expected at least 1"),
        (["--eval.batch_size=-1"], ConfigError, "--eval.batch_size=-1: expected 0"),
        (["--policy.device=cuda:99"], DeviceError, "'cuda:99' was asked for.*--policy.device="),
        (["--env.obs_type=pixels_agent_pos"], FeatureMismatchError, "environment_state.* is not there"),
        (["--env.tpye=so101"], ConfigError, "tpye"),
        (["--dataset.repo_id=me/x"], ConfigError, "Give --env.type=NAME .* or --dataset.repo_id"),
        (["--eval.recording_repo_id=me/x"], ConfigError, "there are none. Add --eval.recording=true"),
        (["--executor=ray", "--eval.recording=true"], ConfigError, "writes on this machine"),
        (["--rename_map={a: b}"], FeatureMismatchError, "renames 'a', which the so101 environment lacks"),
    ],
)
def test_flags_that_are_wrong(blind, flags, kind, said):
    with pytest.raises(kind, match=said):
        wrong(f"--policy.path={blind}", *STATES, *flags)


def test_cameras_of_another_size(seeing):
    with pytest.raises(FeatureMismatchError) as caught:
        wrong(f"--policy.path={seeing}", "--env.type=so101", "--env.observation_width=64")
    said = str(caught.value)
    assert "observation.images.front is [3, 96, 64] there and [3, 96, 96] in the policy" in said
    assert "--env.observation_height=96 --env.observation_width=96" in said


def test_a_path_to_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint at .*/none. Looked for") as caught:
        wrong("-p", str(tmp_path / "none"), *STATES)
    assert str(tmp_path / "none/checkpoints/last/pretrained_model/config.json") in str(caught.value)


def test_a_path_without_a_value():
    with pytest.raises(ConfigError, match=r"--policy.path \(-p\) needs a value"):
        wrong("-p", *STATES)


def test_a_policy_that_was_never_trained():
    with pytest.raises(ConfigError, match="--policy.path must be given"):
        wrong("--policy.type=act", *STATES)
    with pytest.raises(ConfigError, match="--policy.path must be given"):
        wrong(*STATES)


def test_no_dataset_there(blind, tmp_path):
    with pytest.raises(DatasetError, match="'me/none' was not found: .* does not exist"):
        wrong(f"--policy.path={blind}", "--dataset.repo_id=me/none", f"--dataset.root={tmp_path / 'none'}")


def test_an_environment_that_is_not_installed(tmp_path, monkeypatch):
    env = PushTEnvConfig(obs_type="environment_state_agent_pos")
    run = save_policy(tmp_path / "run", env)
    for name in ("gym_pusht", "gym_pusht.envs", "gym_pusht.envs.pusht"):
        monkeypatch.setitem(sys.modules, name, None)  # as good as not installed, whoever imported it before
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[pusht\]'"):
        flags = ["--env.type=pusht", f"--env.obs_type={env.obs_type}", "--eval.use_async_envs=false"]
        wrong(f"--policy.path={run}", *flags)


def test_an_output_folder_that_is_a_file(blind, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="is a file. Give a folder"):
        evaluate([f"--policy.path={blind}", *STATES, f"--output_dir={tmp_path / 'taken'}"])


def test_the_command_prints_one_message_and_exits_with_2(tmp_path):
    words = [sys.executable, "-m", "lerobot.scripts.eval", "-p", str(tmp_path / "none"), "--env.type=so101"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 2 and "Traceback" not in done.stderr and "error: There is no check" in done.stderr
    )
