"""What a person sees: plain lines in files and jobs, a bar on a terminal, a header that fits 80 columns."""

import io
import logging
import re
import sys

import pytest

from lerobot.scripts.train import train
from lerobot.training.logs.console import TrainingConsole, fold, is_watched

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Put a terminal of 80 columns in standard error's place, when called in the test: pytest captures it."""
    screen = Terminal()
    for name in ("SLURM_JOB_ID", "CI", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")

    def take() -> Terminal:
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return take


ROW = {"epoch": 1.5, "loss": 0.25, "l1_loss": 0.1, "grad_norm": 3.0, "lr": 1e-5}
ROW |= {"samples_per_s": 118.0, "eta_s": 125.0}


@pytest.mark.parametrize(("name", "value"), [("SLURM_JOB_ID", "17"), ("CI", "true"), ("TERM", "dumb")])
def test_no_bar_where_nobody_looks(terminal, monkeypatch, name, value):
    terminal()
    assert is_watched()
    monkeypatch.setenv(name, value)
    assert not is_watched() and not TrainingConsole(first_step=0, last_step=9).is_live


def test_ci_that_says_no_is_none(terminal, monkeypatch):
    monkeypatch.setenv("CI", "false")
    terminal()
    assert is_watched()


def test_a_file_gets_plain_lines_with_the_time_left(capsys):
    console = TrainingConsole(first_step=0, last_step=100)
    with console:
        for step in range(1, 11):
            console.advance(step)
        console.row(ROW | {"step": 10, "data_share": 0.05, "eta_s": 185.0, "advice": "data-bound: do that"})
        console.row({"step": 10, "eval/loss": 0.3})
        console.row({"step": 10, "eval/success_rate": 0.0, "transfer_share": 0.001})
    said = capsys.readouterr().err
    assert "\x1b" not in said and "━" not in said
    first, advice, second, third = said.splitlines()
    assert first.startswith("step 10/100  epoch 1.50  loss 0.2500  l1 0.1000  grad 3.00  lr 1.0e-05")
    assert (
        first.endswith("  waiting for data 5%  3 min 05 s left") and advice.strip() == "data-bound: do that"
    )
    assert second == "step 10/100  validation loss 0.3000" and third == "step 10/100  success 0%"


def test_a_terminal_gets_one_bar_with_loss_speed_and_time(terminal):
    screen = terminal()
    console = TrainingConsole(first_step=0, last_step=1000)
    with console:
        console.advance(1)
        console.row(ROW | {"step": 1})
        console.moved_s = 0.0
        console.advance(500)
        console.bar.refresh()
        drawn = ESCAPES.sub("", screen.getvalue()).replace("\r", "\n").splitlines()
    bar = next(line for line in reversed(drawn) if line.startswith("training"))
    assert len(bar) <= 80
    for words in ("━", "500/1000", "loss 0.2500", "118 samples/s", " left"):
        assert words in bar, bar
    assert any(line.startswith("step 1/1000") for line in drawn)


@pytest.mark.parametrize(("columns", "shown"), [(70, ("loss",)), (40, ())])
def test_a_narrow_bar_leaves_out_what_does_not_fit(terminal, monkeypatch, columns, shown):
    monkeypatch.setenv("COLUMNS", str(columns))
    screen = terminal()
    console = TrainingConsole(first_step=0, last_step=1000)
    with console:
        console.advance(1)
        console.row(ROW | {"step": 1})
        screen.seek(0), screen.truncate()
        console.moved_s = 0.0
        console.advance(2)
        console.bar.refresh()
        drawn = ESCAPES.sub("", screen.getvalue()).replace("\r", "\n").splitlines()
    bar = next(line for line in reversed(drawn) if line.startswith("training"))
    assert len(bar) <= columns and "2/1000" in bar
    assert [name for name in ("loss", "samples/s") if name in bar] == list(shown)


def test_log_lines_and_prints_stay_above_the_bar(terminal):
    screen = terminal()
    handler = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        console = TrainingConsole(first_step=0, last_step=10)
        with console:
            console.advance(1)
            assert handler.stream is not screen
            logging.getLogger("someone").warning("mind the gap")
            sys.stderr.write("a word from elsewhere\n")
        assert handler.stream is screen
    finally:
        root.removeHandler(handler)
    lines = [line.rstrip() for line in ESCAPES.sub("", screen.getvalue()).replace("\r", "\n").splitlines()]
    assert "mind the gap" in lines and "a word from elsewhere" in lines  # whole, on lines of their own


def test_other_processes_say_nothing(capsys):
    console = TrainingConsole(first_step=0, last_step=10, is_main=False)
    console.header({"data": "x"})
    with console:
        console.advance(1)
        console.row(ROW | {"step": 1})
    assert capsys.readouterr().err == ""


def test_no_word_is_cut():
    assert fold(["ab", "cd", "efghijk", "l"], width=5, gap=" ") == ["ab cd", "efghijk", "l"]
    assert fold([], width=5, gap=" ") == []


def test_the_header_says_what_will_happen_and_fits_80_columns(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    words = ["--gradient_accumulation_steps=2", "--lr_scheduler=true", "--mixed_precision=true", "--steps=6"]
    train(flags("run", *words, "--dataset.eval_split=0.3", "--eval_steps=3"))
    said = capsys.readouterr().err.split("step 2/6")[0].splitlines()
    assert max(map(len, said)) <= 80
    text = " ".join(" ".join(said).split())
    for words in (
        "3 episodes, 36 frames at 10 fps; 12 frames held out",
        "act, 4.9M parameters, all of them trained, from scratch",
        "action [3]",
        "cpu, bfloat16",
        "8 frames a step = 4 × 2 micro-batches",
        "adamw, lr 0.001 and 1e-05, weight decay 0.0001, gradients clipped at 10, schedule cosine",
        "6, 2.0 passes over 24 frames",
        "loss on held-out frames every 3 steps",
        "every 3 steps and at the end",
        "folder run",
        "metrics.jsonl, tensorboard/",
    ):
        assert words in text, words
