"""The command itself: real training runs in real processes, killed, interrupted, continued; and on Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.search.test_trial import is_alive, wait_until
from tests.training.conftest import TINY_ACT, make_dataset

ROOT = Path(__file__).parents[2]
TINY = [flag for flag in TINY_ACT if "optimizer_lr" not in flag]
SHORT = ["--steps=4", "--num_workers=0", "--log_freq=1", "--eval_steps=2"]
LR = "--space.policy.optimizer_lr=log[1e-5,1e-2]"


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = make_dataset(tmp_path_factory.mktemp("tune") / "small", episodes=4)
    data = ["--dataset.repo_id=local/small", f"--dataset.root={root}", "--dataset.eval_split=0.25"]
    return [*data, *TINY, *SHORT]


def command(*words, **how):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "lerobot.scripts.tune", *map(str, words)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **how,
    )


def finished(process) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def study(folder) -> dict:
    return json.loads((folder / "study.json").read_text())


def trainings(folder) -> list[int]:
    """Ids of the processes that train below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        is_here = any(word.startswith(f"--output_dir={folder}".encode()) for word in words)
        if is_here and words[1].endswith(b"scripts/train.py"):
            found.append(int(path.name))
    return found


@pytest.mark.slow
def test_a_search_whose_trial_is_killed_goes_on_and_its_command_repeats_the_best(flags, tmp_path):
    out = tmp_path / "out"
    long = ["--steps=60", "--eval_steps=20"]
    process = command(*flags, "--batch_size=2", *long, LR, "--n_trials=2", f"--output_dir={out}")
    wait_until(lambda: (out / "trials/0000/metrics.jsonl").is_file())
    os.kill(trainings(out)[0], signal.SIGKILL)
    said = finished(process)
    assert "failed" in said and "killed from outside" in said and "2 trials: 1 failed, 1 finished" in said
    best = study(out)["best"]
    assert best["number"] == 1 and [path.parent.name for path in out.glob("trials/*/checkpoints")] == ["0001"]
    assert (out / "trials/0000/log.txt").is_file() and (out / "report.html").is_file()
    words = best["command"].split()
    assert words[0] == "lerobot-train"
    subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.train", *words[1:]],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    rows = [json.loads(line) for line in (out / "best/metrics.jsonl").read_text().splitlines()]
    assert [row["eval/loss"] for row in rows if "eval/loss" in row][-1] == best["value"]  # bit for bit


@pytest.mark.slow
def test_killed_then_interrupted(flags, tmp_path):
    """The trials are too long to end by themselves, however late a busy machine hears of the request."""
    out = tmp_path / "out"
    words = [*flags, "--steps=100000", "--eval_steps=1000", LR, "--n_trials=2", "--n_jobs=2"]
    words += ["--pruner=none", f"--output_dir={out}"]
    process = command(*words)
    wait_until(lambda: all((out / f"trials/{i:04d}/metrics.jsonl").is_file() for i in range(2)))
    pids = trainings(out)
    assert len(pids) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, pids)))  # children do not outlive the search
    process = command(*words)
    wait_until(lambda: all((out / f"trials/{i:04d}/metrics.jsonl").is_file() for i in (2, 3)))
    process.send_signal(signal.SIGINT)
    said = finished(process)
    assert f"lerobot-tune --resume=true --output_dir={out}" in said and trainings(out) == []
    assert "Stopped after step" in (out / "trials/0002/log.txt").read_text()  # ended cleanly
    trials = study(out)["trials"]
    assert [trial["state"] for trial in trials] == ["interrupted"] * 4
    first, again = ({trial["params"]["policy.optimizer_lr"] for trial in trials[i : i + 2]} for i in (0, 2))
    assert first == again


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_ended_then_finished(flags, tmp_path, how):
    """The first trial is held while its search is ended, so that it cannot finish before."""
    out = tmp_path / "out"
    process = command(*flags, LR, "--n_trials=1", f"--output_dir={out}")
    wait_until(lambda: trainings(out))
    (training,) = trainings(out)
    os.kill(training, signal.SIGSTOP)
    process.send_signal(getattr(signal, how))
    if how == "SIGKILL":
        process.wait()
    os.kill(training, signal.SIGCONT)
    if how == "SIGINT":
        assert f"lerobot-tune --resume=true --output_dir={out}" in finished(process)
    finished(command("--resume=true", f"--output_dir={out}"))
    trials = study(out)["trials"]
    assert [trial["state"] for trial in trials] == ["interrupted", "finished"]
    assert trials[0]["params"] == trials[1]["params"]


@pytest.mark.slow
def test_a_search_on_a_ray_cluster(flags, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "out"
    said = finished(
        command(
            *flags,
            "--batch_size=2",
            "--space.dataset.episodes={[0,1,2,3],[77]}",
            "--sampler=grid",
            "--n_jobs=2",
            "--executor=ray",
            f"--output_dir={out}",
            cwd=tmp_path,
        )
    )
    assert "on Ray with" in said
    trials = {trial["params"]["dataset.episodes"]: trial for trial in study(out)["trials"]}
    whole, absent = trials["[0,1,2,3]"], trials["[77]"]
    assert whole["state"] == "finished" and whole["steps"].keys() == {"2", "4"}
    assert absent["state"] == "refused" and "77" in absent["reason"]  # the message of the run on the cluster


def test_help_is_quick_and_mistakes_end_with_2(tmp_path):
    process = command("--help")
    said = finished(process)
    assert "--n_trials=null" in said and "log[1e-6,1e-3]" in said and "lerobot-train --help" in said
    process = command("--policy.type=act", "--dataset.repo_id=a/b", "--space.policy.dropot=[0,1]")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and said.count("\n") == 1
    assert said.startswith(
        "error: --space.policy.dropot=[0, 1]: --policy.dropot is unknown. Did you mean 'dropout'?"
    )


def test_help_loads_neither_torch_nor_optuna():
    code = (
        "import sys\nfrom lerobot.scripts.tune import tune\n"
        "try: tune(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'optuna', 'numpy'} & set(sys.modules)) or 0)"
    )
    started_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started_s < 10  # half a second on an idle machine
