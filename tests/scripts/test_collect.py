"""lerobot-collect: what the expert does well becomes a dataset that opens, whatever interrupts it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lerobot.control.collect import Tally
from lerobot.core.errors import ConfigError, DatasetError
from lerobot.datasets import LeRobotDataset
from lerobot.scripts.collect import CollectConfig, CollectedDatasetConfig, collect, what_is_left
from tests.fakes.chores import ChoresConfig

ROOT = Path(__file__).parents[2]
STATES = ["--env.type=so101", "--env.obs_type=state", "--dataset.repo_id=me/cubes"]
OUTCOMES = {"next.reward": "float32", "next.done": "bool", "next.success": "bool"}


def run(root, *more, episodes=2):
    return collect([*STATES, f"--dataset.root={root}", f"--num_episodes={episodes}", *more])


def test_episodes_of_states(tmp_path, capsys):
    root = run(tmp_path / "set")
    dataset = LeRobotDataset("me/cubes", root=root)
    assert dataset.num_episodes == 2 and dataset.meta.robot_type == "so101" and dataset.fps == 30
    assert list(dataset.meta.tasks["task_index"]) == ["Pick up the red cube and put it in the blue bin."]
    for name, dtype in OUTCOMES.items():
        assert dataset.features[name] == {"dtype": dtype, "shape": (1,), "names": None}
    ends = [dataset.meta.episodes[i]["dataset_to_index"] - 1 for i in range(2)]
    done = [i for i in range(len(dataset)) if dataset[i]["next.done"]]
    assert done == ends and all(dataset[i]["next.success"] and dataset[i]["next.reward"] == 1 for i in ends)
    assert dataset[0]["next.reward"] == 0 and not dataset[0]["next.success"]
    said = capsys.readouterr()
    assert "saved 2 of 2 episodes; 0 failed" in said.out and "collecting 2/2 episodes" in said.err


def test_the_same_seed_gives_the_same_episodes(tmp_path):
    roots = [
        run(tmp_path / name, f"--seed={seed}", episodes=1) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    a, b, c = (LeRobotDataset("me/cubes", root=root).batch(range(40)) for root in roots)
    assert all(np.array_equal(a[k], b[k]) for k in ("action", "observation.state"))
    assert not np.array_equal(a["action"], c["action"])


def test_the_label_is_the_plan_and_the_state_strays_from_it(tmp_path):
    clean, noisy = (
        LeRobotDataset("me/cubes", root=run(tmp_path / str(noise), f"--noise={noise}", episodes=1)).batch(
            range(40)
        )
        for noise in (0.0, 0.02)
    )
    assert np.array_equal(clean["action"], noisy["action"])
    strayed = (clean["observation.state"] - noisy["observation.state"]).abs().amax(0)
    assert strayed[:5].max() > 0.3 and strayed[5] < 0.3  # degrees; the gripper is never disturbed


@pytest.mark.slow
def test_cameras_are_encoded_as_video(tmp_path):
    from lerobot.sim.gl import has_renderer

    if not has_renderer():
        pytest.skip("nothing can draw here")
    flags = [f for f in STATES if "obs_type" not in f]
    root = collect([*flags, f"--dataset.root={tmp_path / 'set'}", "--num_episodes=1"])
    dataset = LeRobotDataset("me/cubes", root=root)
    assert dataset.meta.video_keys == ["observation.images.front", "observation.images.wrist"]
    assert dataset[40]["observation.images.front"].shape == (3, 96, 96)
    assert dataset[0]["observation.images.front"].std() > 0.05
    assert (
        dataset[0]["observation.images.wrist"] - dataset[60]["observation.images.wrist"]
    ).abs().mean() > 0.02


@pytest.mark.slow
def test_without_a_renderer_states_are_recorded_and_that_is_said(tmp_path):
    flags = [f for f in STATES if "obs_type" not in f]
    words = [sys.executable, "-m", "lerobot.scripts.collect", *flags, f"--dataset.root={tmp_path / 'set'}"]
    env = {**os.environ, "MUJOCO_GL": "disable"}
    done = subprocess.run(
        [*words, "--num_episodes=1"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Going on without cameras: only states are recorded." in done.stdout
    features = json.loads((tmp_path / "set/meta/info.json").read_text())["features"]
    assert "observation.environment_state" in features and not any("images" in name for name in features)


def test_an_existing_folder_is_not_touched(tmp_path):
    root = run(tmp_path / "set", episodes=1)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(DatasetError, match="exists already. Add episodes to it with --resume=true"):
        run(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_resuming_adds_other_episodes(tmp_path):
    root = run(tmp_path / "set", "--seed=5")
    run(root, "--seed=5", "--resume=true", episodes=1)
    dataset = LeRobotDataset("me/cubes", root=root)
    assert dataset.num_episodes == 3
    starts = [dataset.meta.episodes[i]["dataset_from_index"] for i in range(3)]
    cubes = [tuple(dataset[i]["observation.environment_state"][:2].tolist()) for i in starts]
    assert len(set(cubes)) == 3


def test_resuming_nothing_or_something_else(tmp_path):
    with pytest.raises(DatasetError, match="there is no dataset in .*Leave --resume out"):
        run(tmp_path / "none", "--resume=true")
    root = run(tmp_path / "set", episodes=1)
    with pytest.raises(DatasetError, match="at 30 fps, but the environment gives .* at 20 fps"):
        run(root, "--resume=true", "--env.fps=20")


def test_failures_are_left_out_and_counted(tmp_path, capsys):
    root = run(tmp_path / "set", "--env.episode_length=85", "--noise=0.02", "--seed=9", episodes=4)
    dataset = LeRobotDataset("me/cubes", root=root)
    ends = [dataset.meta.episodes[i]["dataset_to_index"] - 1 for i in range(4)]
    assert all(dataset[i]["next.success"] for i in ends)
    failed = int(capsys.readouterr().out.split("episodes; ")[1].split()[0])
    assert failed > 0, "choose a harder setting: without a failure this test shows nothing"


def test_an_expert_that_always_fails_ends_the_collection(tmp_path):
    with pytest.raises(DatasetError, match="failed in 11 episodes and succeeded in 0.*--keep_failures=true"):
        run(tmp_path / "set", "--env.episode_length=5")
    assert not (tmp_path / "set").exists()  # so that the next try may begin


def test_failures_can_be_kept(tmp_path):
    root = run(tmp_path / "set", "--env.episode_length=5", "--keep_failures=true")
    dataset = LeRobotDataset("me/cubes", root=root)
    assert dataset.meta.episodes["length"] == [5, 5]
    assert [bool(dataset[i]["next.done"]) for i in (3, 4)] == [False, True] and not dataset[4]["next.success"]


@pytest.mark.parametrize(
    "flag, said",
    [
        ("--num_episodes=0", "--num_episodes=0: expected at least 1"),
        ("--noise=-1", "--noise=-1.0: expected 0 or more"),
        ("--seed=-1", "--seed=-1: expected 0 or more"),
        ("--num_processes=0", "--num_processes=0: expected at least 1"),
        ("--env.difficulty=esy", "--env.difficulty=esy.*Did you mean 'easy'"),
        ("--num_episode=3", "Did you mean 'num_episodes'"),
    ],
)
def test_flags_that_are_wrong(tmp_path, flag, said):
    with pytest.raises(ConfigError, match=said):
        run(tmp_path / "set", flag)
    assert not (tmp_path / "set").exists()


def test_an_expert_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="--expert=scriptd.*Known: scripted. Did you mean 'scripted'"):
        run(tmp_path / "set", "--expert=scriptd")
    assert not (tmp_path / "set").exists()
    assert run(tmp_path / "set", "--expert=scripted", episodes=1).exists()


def collect_chores(root, **flags):
    dataset = CollectedDatasetConfig(repo_id="me/chores", root=root)
    collect(CollectConfig(env=ChoresConfig(), dataset=dataset, seed=100, **flags))
    return LeRobotDataset("me/chores", root=root)


def test_every_task_has_its_episodes(tmp_path, capsys):
    dataset = collect_chores(tmp_path / "set", expert="stumbler", num_episodes=4)
    tasks = [dataset.meta.episodes[i]["tasks"][0] for i in range(dataset.num_episodes)]
    assert tasks == ["walk left"] * 4 + ["walk right"] * 4
    said = capsys.readouterr().out
    assert (
        "left: saved 4 of 4 episodes; 1 failed" in said and "right: saved 4 of 4 episodes; 2 failed" in said
    )


@pytest.mark.slow
def test_the_dataset_is_the_same_for_every_number_of_processes(tmp_path):
    one, three = (
        collect_chores(tmp_path / str(n), expert="stumbler", num_episodes=5, num_processes=n) for n in (1, 3)
    )
    assert len(one) == len(three) > 20
    a, b = one.batch(range(len(one))), three.batch(range(len(one)))
    assert all(np.array_equal(a[name], b[name]) for name in ("action", "task_index", "episode_index"))
    assert np.array_equal(a["observation.state"][:, 0], b["observation.state"][:, 0])


def test_what_is_left_of_several_tasks():
    tallies = [Tally(saved=3), Tally(saved=10), Tally(saved=4)]
    three = ChoresConfig(task="left,right,left")
    assert what_is_left(three, tallies, 10) == [
        "--num_episodes=7 --env.task=left",
        "--num_episodes=6 --env.task=left",
    ]
    assert what_is_left(ChoresConfig(task="left"), [Tally(saved=3)], 10) == ["--num_episodes=7"]


@pytest.mark.slow
def test_a_killed_collection_keeps_its_episodes_and_leaves_no_process(tmp_path):
    words = [sys.executable, "-m", "lerobot.scripts.collect", *STATES, f"--dataset.root={tmp_path / 'set'}"]
    process = subprocess.Popen([*words, "--num_episodes=400", "--num_processes=2"], cwd=ROOT)
    table = tmp_path / "set/meta/episodes"
    deadline = time.monotonic() + 60
    while not list(table.rglob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) >= 2 and not any(Path(f"/proc/{pid}").exists() for pid in children)
    before = LeRobotDataset("me/cubes", root=tmp_path / "set").num_episodes
    assert before > 0
    run(tmp_path / "set", "--resume=true", episodes=1)
    assert LeRobotDataset("me/cubes", root=tmp_path / "set").num_episodes == before + 1


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_saved(tmp_path):
    words = [sys.executable, "-m", "lerobot.scripts.collect", *STATES, f"--dataset.root={tmp_path / 'set'}"]
    process = subprocess.Popen(
        [*words, "--num_episodes=400"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    table = tmp_path / "set/meta/episodes"
    deadline = time.monotonic() + 60
    while not list(table.rglob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    dataset = LeRobotDataset("me/cubes", root=tmp_path / "set")
    assert 0 < dataset.num_episodes < 400
    assert f"saved {dataset.num_episodes} of 400 episodes" in out
    assert f"go on with: --resume=true --num_episodes={400 - dataset.num_episodes}" in out
    assert len(dataset[0 : len(dataset)]) == sum(dataset.meta.episodes["length"])
