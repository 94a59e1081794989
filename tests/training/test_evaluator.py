"""Evaluations beside the training: the same numbers as in its own process, in order, and nothing lost."""

import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.errors import TrainingError
from lerobot.datasets import LeRobotDataset
from lerobot.envs.base import EnvConfig
from lerobot.scripts.train import train
from lerobot.training.checkpoints.checkpoint import read_progress
from lerobot.training.evaluations.evaluator import Evaluator
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics

ROOT = Path(__file__).parents[2]
PLUGIN = '''
"""A plug-in with an environment: a walker on a line, whose reward is where it stands."""

import os
import time
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium import spaces

from lerobot.core.types import FeatureType, PolicyFeature
from lerobot.envs.base import EnvConfig


@EnvConfig.register_subclass("stroll")
@dataclass(kw_only=True)
class StrollConfig(EnvConfig):
    fps: int = 10
    episode_length: int = 6
    breaks_at: int | None = None  # seed of the episode
    dies: bool = False  # whether it takes its process with it then
    takes_s: float = 0.0  # per step

    def build(self):
        return Stroll(self)

    @property
    def features(self):
        return {
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (2,)),
            "action": PolicyFeature(FeatureType.ACTION, (2,)),
        }

    def dataset_features(self):
        row = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
        return {name: dict(row) for name in self.features}


class Stroll(gymnasium.Env):
    metadata = {"render_fps": 10}
    task_description = "stroll"

    def __init__(self, cfg):
        self.cfg, self.action_space = cfg, spaces.Box(-9, 9, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.place, self.steps = seed, self.np_random.normal(size=2), 0
        return self.observe(), {}

    def step(self, action):
        time.sleep(self.cfg.takes_s)
        if self.seed == self.cfg.breaks_at and self.steps == 3:
            if self.cfg.dies:
                os.kill(os.getpid(), 9)
            raise RuntimeError("a leg broke")
        self.place = self.place + action
        self.steps += 1
        reward, is_late = float(self.place.sum()), self.steps >= 6
        return self.observe(), reward, False, is_late, {"is_success": self.place[0] > 0}

    def observe(self):
        place = self.place.astype(np.float32)
        return {"agent_pos": place, "environment_state": place}

    def render(self):
        return np.full((32, 32, 3), 40 * self.steps, np.uint8)
'''
NAMES = ("eval/success_rate", "eval/avg_sum_reward", "eval/avg_max_reward")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A folder with the plug-in as if it were installed there; this process and those it starts find it."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "lerobot_env_stroll.py").write_text(PLUGIN)
    (folder / "lerobot_env_stroll-1.dist-info").mkdir()
    (folder / "lerobot_env_stroll-1.dist-info/METADATA").write_text("Name: lerobot_env_stroll\nVersion: 1\n")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("lerobot_env_stroll")
    sys.path.remove(str(folder))
    del EnvConfig._members["stroll"], sys.modules["lerobot_env_stroll"]


@pytest.fixture(scope="module")
def strolls(tmp_path_factory, plugin):
    """Two episodes of somebody who strolls about."""
    root, features = tmp_path_factory.mktemp("strolls") / "data", plugin.StrollConfig().dataset_features()
    dataset, noise = LeRobotDataset.create("me/strolls", 10, features, root=root), np.random.default_rng(0)
    for _ in range(2):
        for _ in range(12):
            frame = {name: noise.normal(size=2).astype(np.float32) for name in features}
            dataset.add_frame(frame | {"task": "stroll"})
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture
def stroll_flags(flags, strolls):
    def make(folder, *more):
        words = ["--dataset.repo_id=me/strolls", f"--dataset.root={strolls}", "--env.type=stroll"]
        return flags(folder, *words, "--eval.n_episodes=3", "--eval.max_videos=0", "--save_freq=0", *more)

    return make


def rows_of(folder):
    return [row for row in read_metrics(folder / METRICS_FILE) if NAMES[0] in row]


@pytest.mark.slow
def test_a_process_of_its_own_finds_the_same_numbers(stroll_flags, tmp_path):
    """Two evaluations, one behind the other, of averaged weights, against those in the training's process."""
    more = ["--eval_freq=2", "--steps=4", "--ema.enable=true", "--eval.max_videos=1"]
    train(stroll_flags(tmp_path / "here", *more, "--eval_workers=0"))
    train(stroll_flags(tmp_path / "beside", *more))
    here, beside = (rows_of(tmp_path / name) for name in ("here", "beside"))
    assert [row["step"] for row in beside] == [row["step"] for row in here] == [2, 4]
    for one, other in zip(here, beside, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert here[0]["eval/avg_sum_reward"] != pytest.approx(here[1]["eval/avg_sum_reward"], rel=1e-5)
    weights = [
        load_file(tmp_path / name / "checkpoints/last/pretrained_model/model.safetensors")
        for name in ("here", "beside")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    videos = {path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.mp4")}
    assert videos == {path.relative_to(tmp_path / "beside") for path in (tmp_path / "beside").rglob("*.mp4")}
    assert len(videos) == 2 and not (tmp_path / "beside/eval/pending").exists()
    assert "success rate" in (tmp_path / "beside/report.html").read_text().lower()


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_a_failure_saves_the_run_and_ends_it(stroll_flags, tmp_path, dies):
    more = [
        "--env.breaks_at=1001",
        f"--env.dies={dies}",
        "--eval_freq=1",
        "--steps=100000",
        "--eval.batch_size=1",
    ]
    with pytest.raises(TrainingError) as caught:
        train(stroll_flags(tmp_path / "run", *more, "--log_freq=1000"))
    said = str(caught.value)
    assert "The evaluation of step 1 in stroll failed: " in said and caught.value.exit_status == 1
    assert "--resume=true" in said and "--eval_workers=0" in said
    if dies:
        assert "its process ended by SIGKILL without a word" in said
    else:
        assert "failed in episode 1 (task stroll 0, seed 1001) after 3 steps: RuntimeError: a leg bro" in said
        assert "Traceback" in (tmp_path / "run/eval/failed_step_000001.txt").read_text()
    assert (tmp_path / "run/checkpoints/last/pretrained_model/model.safetensors").is_file()
    # Mended, the run goes on and makes up for it.
    step = read_progress(tmp_path / "run/checkpoints/last").step
    mended = ["--env.breaks_at=null", f"--steps={step + 1}", "--eval_freq=100000"]
    train([f"--output_dir={tmp_path / 'run'}", "--resume=true", *mended])
    assert rows_of(tmp_path / "run")[0]["step"] == 1
    assert not (tmp_path / "run/eval/pending").exists()


@pytest.mark.slow
def test_a_stop_does_not_wait_and_a_resumed_run_makes_up_for_it(stroll_flags, tmp_path, plugin):
    """As a command: SIGTERM while an episode takes a minute."""
    more = ["--env.takes_s=10", "--eval_freq=2", "--steps=100000", "--log_freq=1", "--eval_workers=2"]
    words = stroll_flags(tmp_path / "run", *more)
    places = os.pathsep.join([str(Path(plugin.__file__).parent), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "lerobot.scripts.train", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": places},
    )
    pending, deadline = tmp_path / "run/eval/pending", time.monotonic() + 60
    while not (pending / "000002/job.json").exists():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "The evaluation of step 2 was stopped; a resumed run repeats it." in said
    assert not children_in(tmp_path / "run"), "a process was left behind"
    step = read_progress(tmp_path / "run/checkpoints/last").step
    more = ["--env.takes_s=0", f"--steps={step + 1}", "--eval_freq=100000"]
    train([f"--output_dir={tmp_path / 'run'}", "--resume=true", *more])
    assert 2 in [row["step"] for row in rows_of(tmp_path / "run")]


def children_in(folder):
    """Processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] if str(folder).encode() in path.read_bytes() else []
        except OSError:  # it has ended meanwhile
            continue
    return found


# ------------------------------------------------------------------------------------------------- alone
class Script(Evaluator):
    """Runs little programs instead of evaluations."""

    programs: ClassVar[list[str]] = []

    def _start(self, one):
        program = self.programs.pop(0).format(folder=one.folder)
        (one.folder / "log.txt").touch()
        return subprocess.Popen([sys.executable, "-c", program], start_new_session=True)


RESULT = """
import json, pathlib, time
time.sleep({takes_s})
result = dict(episodes=[], eval_s={eval_s})
part = pathlib.Path("{{folder}}/part.json")
part.write_text(json.dumps(result))
part.rename("{{folder}}/result.json")
"""


class Nothing:
    """A policy or a pipeline without files."""

    def save_pretrained(self, folder):
        folder.mkdir(parents=True, exist_ok=True)


@pytest.fixture
def evaluator(tmp_path, plugin):
    def make(*programs, workers=1, resume_step=None):
        settings = {"env": plugin.StrollConfig(), "eval_workers": workers, "steps": 100}
        made = Script(
            SimpleNamespace(**settings), tmp_path, device=torch.device("cpu"), resume_step=resume_step
        )
        made.programs = list(programs)
        return made

    return make


def submit(evaluator, step, stop=None):
    things = (Nothing(), (Nothing(), Nothing()))
    return [found for found, _ in evaluator.submit(step, *things, stop=stop or threading.Event())]


def test_results_come_in_the_order_of_steps(evaluator):
    slow, quick = (RESULT.format(takes_s=s, eval_s=s) for s in (0.6, 0.0))
    two = evaluator(slow, quick, workers=2)
    assert submit(two, 10) == submit(two, 20) == []
    assert all(one.process is not None for one in two.pending)
    assert [(step, result.eval_s) for step, result in two.rest(stop=threading.Event())] == [
        (10, 0.6),
        (20, 0.0),
    ]
    two.close()
    assert not two.folder.exists()


def test_one_waits_beside_those_that_run_and_then_the_training_does(evaluator, caplog):
    program = RESULT.format(takes_s=0.3, eval_s=1.0)
    one = evaluator(*[program] * 4)
    assert submit(one, 10) == submit(one, 20) == [] and not caplog.records
    assert [pending.process is not None for pending in one.pending] == [True, False]
    with caplog.at_level(logging.WARNING):
        assert submit(one, 30) == [10] and submit(one, 40) == [20]
    assert len(caplog.records) == 1  # said once
    assert (
        "Step 30: the evaluation of step 10 still runs" in caplog.text and "--eval_workers=2" in caplog.text
    )
    assert [step for step, _ in one.rest(stop=threading.Event())] == [30, 40]


def test_a_run_that_is_stopped_waits_for_nothing(evaluator):
    stop = threading.Event()
    stop.set()
    one = evaluator(*[RESULT.format(takes_s=60, eval_s=1.0)] * 3)
    began_s = time.monotonic()
    assert (
        submit(one, 10, stop)
        == submit(one, 20, stop)
        == submit(one, 30, stop)
        == list(one.rest(stop=stop))
        == []
    )
    process = one.pending[0].process
    one.close()
    assert time.monotonic() - began_s < 10 and process.returncode == -signal.SIGKILL


def test_a_resumed_run_repeats_what_was_unfinished_and_forgets_what_will_come_again(evaluator, tmp_path):
    for name in ("000010", "000020", ".000005.part"):
        (tmp_path / "eval/pending" / name).mkdir(parents=True)
    one = evaluator(RESULT.format(takes_s=0, eval_s=1.0), resume_step=15)
    assert [pending.step for pending in one.pending] == [10]
    assert sorted(path.name for path in one.folder.iterdir()) == ["000010"]
    assert [step for step, _ in one.rest(stop=threading.Event())] == [10]


def test_after_a_failure_nothing_more_is_begun(evaluator):
    one = evaluator("raise SystemExit(3)", RESULT.format(takes_s=0, eval_s=1.0))
    submit(one, 10)
    submit(one, 20)
    assert list(one.rest(stop=threading.Event())) == [] and one.programs
    assert "ended with exit status 3 without a word" in str(one.failure)
    assert (one.folder / "000010").is_dir() and (one.folder / "000020").is_dir()
