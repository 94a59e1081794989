"""A run that is asked to stop, or whose disk is full, loses nothing and says how to go on."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lerobot.core import signals
from lerobot.core.errors import TrainingError
from lerobot.scripts.train import train
from lerobot.training import loop
from lerobot.training.checkpoints import checkpoint
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.loop import stop_requests
from tests.training.test_checkpoint import hidden

ROOT = Path(__file__).parents[2]
posix_only = pytest.mark.skipif(os.name == "nt", reason="sends signals")


def send(number):
    os.kill(os.getpid(), number)


# ------------------------------------------------------------------------------------------------ signals
@posix_only
@pytest.mark.parametrize("name", signals.STOP_SIGNALS)
def test_a_signal_asks_for_a_stop(name, capsys):
    before = signal.getsignal(getattr(signal, name))
    with stop_requests() as stop:
        assert not stop.is_set()
        send(getattr(signal, name))
        assert stop.is_set()
    assert "Stopping after this step" in capsys.readouterr().err
    assert signal.getsignal(getattr(signal, name)) == before


@posix_only
def test_only_a_second_ctrl_c_of_a_person_interrupts(monkeypatch):
    with stop_requests() as stop:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            send(number)  # a terminal and a launcher pass on the same Ctrl-C
        assert stop.is_set()
    monkeypatch.setattr(loop, "ECHO_S", 0)
    with stop_requests():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@posix_only
def test_a_signal_while_a_checkpoint_is_written_saves_the_step_it_came_in(
    flags, tmp_path, monkeypatch, capsys
):
    real, saves = checkpoint.save, []

    def interrupted(*args, **kwargs):
        saves.append(kwargs["step"])
        if len(saves) == 1:
            send(signal.SIGTERM)
            time.sleep(0.05)
        return real(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    last = train(flags(tmp_path / "run", "--steps=100000", "--save_freq=2", "--num_workers=0"))
    step = saves[-1]
    assert saves[0] == 2 and checkpoint.read_progress(last).step == step < 1000
    assert (tmp_path / "run/checkpoints/last").resolve() == last and checkpoint.verify(last)
    said = capsys.readouterr().err
    command = next(line for line in said.splitlines() if line.strip().startswith("lerobot-train"))
    again = train([*shlex.split(command)[1:], f"--steps={step + 1}"])
    assert again.name == f"{step + 1:06d}"


@posix_only
def test_a_second_ctrl_c_during_a_write_harms_nothing(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "ECHO_S", 0)
    monkeypatch.setattr("lerobot.training.checkpoints.saver.PATIENCE_S", 0.01)
    real = checkpoint._sync_tree

    def slow(folder):
        if "000004" in folder.name:
            for _ in range(2):
                send(signal.SIGINT)
                time.sleep(0.3)
        real(folder)

    monkeypatch.setattr(checkpoint, "_sync_tree", slow)
    with pytest.raises(KeyboardInterrupt):
        train(flags(tmp_path / "run", "--steps=100000", "--save_freq=2", "--num_workers=0"))
    assert checkpoint.find_last(tmp_path / "run").name == "000002" and hidden(tmp_path / "run")
    time.sleep(1)  # in a command the thread would have ended with its process
    assert train([f"--resume={tmp_path / 'run'}", "--steps=5"]).name == "000005"


def wait_for_rows(process, run):
    deadline = time.monotonic() + 90
    while not (run / METRICS_FILE).exists() or not read_metrics(run / METRICS_FILE):
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.1)


@pytest.mark.slow
@posix_only
def test_ctrl_c_in_a_terminal_reaches_loader_processes_too(flags, tmp_path):
    """The terminal sends it to the whole group of processes."""
    words = flags(tmp_path / "run", "--steps=100000", "--save_freq=0", "--log_freq=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "lerobot.scripts.train", *words, "--loader_workers=processes"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    wait_for_rows(process, tmp_path / "run")
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "--resume=true" in said and "Traceback" not in said, said
    assert checkpoint.verify(tmp_path / "run/checkpoints/last")


@pytest.mark.slow
@posix_only
def test_torchrun_passes_a_stop_on_to_all_processes(flags, tmp_path):
    words = flags(tmp_path / "run", "--steps=100000", "--save_freq=3", "--log_freq=1", "--batch_size=2")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    process = subprocess.Popen(
        [*command, "-m", "lerobot.scripts.train", *words], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    wait_for_rows(process, tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert said.count("the run is saved. Continue it with:") == 1, said
    progress = checkpoint.read_progress(tmp_path / "run/checkpoints/last")
    assert progress.step % loop.VOTE_EVERY == 0 and progress.num_processes == 2
    assert checkpoint.verify(tmp_path / "run/checkpoints/last")
    rows = read_metrics(tmp_path / "run" / METRICS_FILE)
    assert rows[-1]["step"] == progress.step


# ------------------------------------------------------------------------------------------------ disk
@pytest.fixture
def small_disk(tmp_path):
    """A file system of 100 MB, which holds one checkpoint of the tiny ACT."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; the tests of the saver run everywhere")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_harms_no_earlier_checkpoint(flags, small_disk, tmp_path):
    run = small_disk / "run"
    with pytest.raises(
        TrainingError, match=r"No space left on device.*Earlier checkpoints are unharmed"
    ) as caught:
        train(flags(run, "--save_freq=2", "--steps=100000"))
    assert caught.value.exit_status == 1
    last = (run / "checkpoints/last").resolve(strict=True)
    assert last.name == "000002" and checkpoint.verify(last) and hidden(run) == []
    rows = [row["step"] for row in read_metrics(run / METRICS_FILE)]
    moved = shutil.copytree(run, tmp_path / "moved", symlinks=True)  # where there is room
    assert train([f"--resume={moved}", "--steps=4"]).name == "000004"
    assert rows == sorted(rows)


def test_the_command_says_that_the_disk_is_full(flags, small_disk):
    """Whatever was written last: a row of metrics, an event file, a checkpoint."""
    (small_disk / "ballast").write_bytes(bytes(60_000_000))
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.train", *flags(small_disk / "run", "--save_freq=1")],
        cwd=ROOT, text=True, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert not list((small_disk / "run/checkpoints").iterdir())
