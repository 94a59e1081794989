"""lerobot-train starts its processes: how many, what they get, who speaks, and how they end."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from lerobot.core.command import LAUNCHED
from lerobot.core.errors import ConfigError, DeviceError, LeRobotError
from lerobot.distributed.launch import launch, processes_to_start
from tests.fakes.processes import server

ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------------------------ how many
@pytest.mark.parametrize(
    ("asked", "device", "gpus", "wanted"),
    [
        (None, None, 0, 1),
        (None, None, 4, 4),
        (None, "cuda", 4, 4),
        (None, "cuda", 1, 1),
        (None, "cpu", 4, 1),
        (None, "cuda:1", 4, 1),
        (None, "mps", 0, 1),
        (1, "cuda", 4, 1),
        (2, "cuda", 4, 2),
        (2, "cpu", 0, 2),
        (3, None, 0, 3),
    ],
)
def test_one_process_per_visible_gpu_unless_told_otherwise(monkeypatch, asked, device, gpus, wanted):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert processes_to_start(asked, device=device) == wanted


@pytest.mark.parametrize(
    ("asked", "device", "gpus", "said"),
    [
        (8, "cuda", 4, "4 GPUs are visible"),
        (2, "cuda:0", 4, "--policy.device=cuda)"),
        (2, "mps", 0, "a GPU each"),
    ],
)
def test_what_cannot_be_is_said(monkeypatch, asked, device, gpus, said):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises((ConfigError, DeviceError), match=said.replace(")", r"\)")):
        processes_to_start(asked, device=device)


def test_a_process_of_a_launcher_starts_none(monkeypatch):
    for name in ("RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    assert processes_to_start(None, device="cuda") == processes_to_start(4, device="cuda") == 1
    with pytest.raises(ConfigError, match="started 4"):
        processes_to_start(2, device="cuda")


# ------------------------------------------------------------------------------------------ how they end
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from lerobot.core.command import command
from lerobot.core.errors import ConfigError, LostConnectionError, TrainingError

RANK = int(os.environ["RANK"])
FOLDER = Path(__file__).parent

@command
def main():
    {body}

main()
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(body, words...)` starts two processes of a program with this body."""

    def start(body: str, *words: str) -> None:
        (tmp_path / "program.py").write_text(PROGRAM.format(body=body.strip().replace("\n", "\n    ")))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
        monkeypatch.delenv("TORCHELASTIC_SIGNALS_TO_HANDLE", raising=False)
        launch(2, module="program", words=words)

    return start


@pytest.mark.slow
def test_flags_arrive_unchanged_and_one_process_has_the_console(run, tmp_path, capfd):
    words = ["--task=for $5 ${local_rank} $$", "--x", "a b", "--y='ü'"]
    run(
        """
found = [sys.argv[1:], os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"]]
(FOLDER / f"{RANK}.json").write_text(json.dumps(found))
print("out", RANK)
print("err", RANK, file=sys.stderr)
""",
        *words,
    )
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [
        [words, "2", "0"],
        [words, "2", "1"],
    ]
    assert capfd.readouterr() == ("out 0\n", "err 0\n")
    assert LAUNCHED not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "said", "unsaid"),
    [
        ('raise ConfigError("Give another.")', 2, "Give another.", "Process"),
        ('time.sleep(30 * (1 - RANK)); raise TrainingError("It is NaN.")', 1, "It is NaN.", "Process"),
        (f"time.sleep(30 * (1 - RANK)); {KILLED}", 1, "Process 1 was ended by SIGKILL", "None"),
        (f'{KILLED} if RANK else 0\nraise LostConnectionError("gone")', 1, "ended by SIGKILL", "gone"),
        ('raise LostConnectionError("The cable.")', 1, "The cable.", "Process"),
        ('time.sleep(30 * (1 - RANK)); 1 / 0', 1, "ZeroDivisionError", "It is"),
    ],
    ids=["alike", "one", "killed", "echo", "nobody", "bug"],
)  # fmt: skip
def test_one_error_is_said(run, capfd, body, status, said, unsaid):
    started_s = time.monotonic()
    with pytest.raises(LeRobotError) as caught:
        run(body)
    assert said in str(caught.value) and unsaid not in str(caught.value)
    assert caught.value.exit_status == status
    assert "error" not in capfd.readouterr().err
    assert time.monotonic() - started_s < 15  # nobody waits for the one that sleeps


@pytest.mark.slow
def test_a_bug_of_the_first_process_is_on_the_console(run, capfd):
    with pytest.raises(LeRobotError, match=r"Process 0 failed \(exit status 1\)"):
        run("time.sleep(30 * RANK); 1 / 0")
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1


STOPPABLE = """
signal.signal(signal.SIGTERM, lambda *_: (FOLDER / f"{RANK}.stopped").write_text("yes"))
(FOLDER / f"{RANK}.ready").write_text("yes")
while not (FOLDER / f"{RANK}.stopped").exists():
    time.sleep(0.05)
time.sleep(0.5)  # a save
(FOLDER / f"{RANK}.saved").write_text("yes")
"""


def launched(folder: Path) -> None:
    """A process of its own that launches, and writes what it says into a file."""
    os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT), 2)
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{ROOT}"
    launch(2, module="program", words=[])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_request_to_stop_is_passed_on_once_and_waited_for(tmp_path, number):
    (tmp_path / "program.py").write_text(PROGRAM.format(body=STOPPABLE.strip().replace("\n", "\n    ")))
    process = server().Process(target=launched, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"{rank}.ready").exists() for rank in range(2)):
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(60)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 0, said
    assert said.count("Stopping after this step") == 1
    assert all((tmp_path / f"{rank}.saved").exists() for rank in range(2))
