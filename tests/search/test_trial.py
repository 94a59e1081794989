"""A trial's process: kept by a keeper, followed through its metrics, its failure in one line."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lerobot.core.flags import parse
from lerobot.search.config import TuneConfig
from lerobot.search.executor import LocalExecutor, threads_per_trial
from lerobot.search.keeper import GRACE_S, keep, kill_group
from lerobot.search.trial import Ending, Job, MetricsTail, TrialProcess, why
from lerobot.training.config import TrainConfig

PATIENCE_S = 60


def kept(code: str, *, grace_s: float = GRACE_S) -> subprocess.Popen:
    """A keeper of `python -c code`, as the search starts one."""
    start = (
        f"import sys; from lerobot.search.keeper import keep; sys.exit(keep(sys.argv[1:], grace_s={grace_s}))"
    )
    words = [sys.executable, "-c", start, sys.executable, "-c", code]
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def is_alive(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}") is not None and open(f"/proc/{pid}/stat").read().split()[2] != "Z"
    except OSError:
        return False


def wait_until(condition) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "status"), [("pass", 0), ("raise SystemExit(2)", 2), ("import os; os.abort()", 134)]
)
def test_the_status_is_the_commands(code, status):
    keeper = kept(code)
    assert keeper.wait(PATIENCE_S) == status


def test_the_command_is_asked_to_stop_when_the_input_ends():
    keeper = kept(
        "import signal, sys, time\nsignal.signal(15, lambda *a: sys.exit(7))\n"
        "print('on', flush=True)\ntime.sleep(99)"
    )
    assert keeper.stdout.readline() == "on\n"
    keeper.stdin.close()
    assert keeper.wait(PATIENCE_S) == 7


def test_a_command_that_does_not_stop_is_killed_with_its_children():
    code = (
        "import os, signal, subprocess, sys, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
        "print(os.getpid(), child.pid, flush=True)\ntime.sleep(99)"
    )
    keeper = kept(code, grace_s=0.2)
    pids = [int(word) for word in keeper.stdout.readline().split()]
    keeper.stdin.close()
    assert keeper.wait(PATIENCE_S) == -signal.SIGKILL
    wait_until(lambda: not any(map(is_alive, pids)))


def test_the_command_does_not_outlive_a_killed_search():
    """The search is a process in between here: killed with SIGKILL, it can ask for nothing any more."""
    code = (
        "import subprocess, sys\nk = subprocess.Popen([sys.executable, '-m', 'lerobot.search.keeper', "
        "sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(99)'], "
        "stdin=subprocess.PIPE, "
        "start_new_session=True)\nk.wait()"
    )
    search = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(search.stdout.readline())
    assert is_alive(pid)
    search.kill()
    wait_until(lambda: not is_alive(pid))


def test_a_group_that_is_gone_is_no_error():
    done = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    done.wait()
    kill_group(done.pid)


def test_keep_in_this_process_gives_the_status(monkeypatch):
    read, write = os.pipe()
    with open(read) as reader, open(write, "w"):
        monkeypatch.setattr(sys, "stdin", reader)
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        assert keep([sys.executable, "-c", "raise SystemExit(5)"]) == 5
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_rows_are_read_once_and_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read() == []
    with path.open("w") as file:
        for text, rows in (
            ('{"step": 1}\n{"st', [1]),
            ('ep": 2}', []),
            ("\n", [2]),
            ('{"step": 3, "loss": NaN}\n', [3]),
        ):
            file.write(text)
            file.flush()
            assert [row["step"] for row in tail.read()] == rows
    assert tail.read() == []


WHY = {
    (1, "warming up\nerror: The loss became nan before step 3.\n"): "The loss became nan before step 3.",
    (1, "Traceback ...\nKeyError: 'x'\n"): "KeyError: 'x'",
    (1, "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB\n"): "out of memory: torch.OutOfMemoryError",
    (137, "step 1\n"): "killed from outside; if nobody did, by the system",
    (3, ""): "exit status 3 and said nothing",
}


@pytest.mark.parametrize("case", WHY)
def test_the_reason_of_a_failure_is_one_line(case):
    assert why(*case).startswith(WHY[case]) or WHY[case] in why(*case)
    assert "\n" not in why(*case)


def test_a_command_line_that_is_refused_ends_with_status_2(tmp_path):
    trial = TrialProcess(Job(0, ("--batch_sise=3",), tmp_path / "trials" / "0000"))
    news = []
    wait_until(lambda: news.append(trial.poll()) or news[-1].ending)
    assert news[-1].ending.status == 2 and "--batch_sise is unknown" in news[-1].ending.reason
    assert "--batch_sise" in (tmp_path / "trials/0000/log.txt").read_text()


# ------------------------------------------------------------------------------------------ who gets what
def local(monkeypatch, *, visible=None, device="cuda", **fields):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    train = parse(TrainConfig, ["--dataset.repo_id=a/b", "--policy.type=act"], program="x")
    train.policy.device = device
    return LocalExecutor(TuneConfig(space={}, **fields), train)


def test_gpus_are_dealt_out_in_turn(monkeypatch):
    four = local(monkeypatch, visible="0,1,2,3", n_jobs=4)
    assert [four.gpus_of(place) for place in range(4)] == [("0",), ("1",), ("2",), ("3",)]
    assert [local(monkeypatch, visible="2,5", n_jobs=3).gpus_of(place) for place in range(3)] == [
        ("2",),
        ("5",),
        ("2",),
    ]
    pairs = local(monkeypatch, visible="0,1,2,3", n_jobs=2, gpus_per_trial=2)
    assert [pairs.gpus_of(place) for place in range(2)] == [("0", "1"), ("2", "3")]
    assert local(monkeypatch, visible="0", gpus_per_trial=0).gpus_of(0) == ()
    assert local(monkeypatch, visible="0", device="cpu").gpus_of(0) is None


def test_threads_are_divided(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_trial(TuneConfig(space={}, n_jobs=2)) is None  # the user's own setting stays
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_per_trial(TuneConfig(space={}, n_jobs=2)) == 4
    assert threads_per_trial(TuneConfig(space={}, n_jobs=20)) == 1
    assert threads_per_trial(TuneConfig(space={}, n_jobs=2, cpus_per_trial=6)) == 6


def test_an_ending_without_failure_has_no_reason():
    assert Ending(0) == Ending(0, "")
