"""A row of a run: where the time goes, how much memory, how long it will take, and what to change."""

import time

import pytest
import torch

from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training import loop, run
from lerobot.training.evaluations import validation
from lerobot.training.gauges.row import seconds_left
from lerobot.training.gauges.stopwatch import PARTS
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics

SLOW_S = 0.5


def rows_of(folder):
    return read_metrics(folder / METRICS_FILE)


def test_the_shares_of_a_step_add_up(flags, tmp_path):
    train(flags(tmp_path / "run"))
    for row in rows_of(tmp_path / "run"):
        assert sum(row[f"{part}_share"] for part in (*PARTS, "other")) == pytest.approx(1, abs=1e-6)
        assert sum(row[f"{part}_ms"] for part in (*PARTS, "other")) == pytest.approx(row["step_ms"])
        assert row["compute_ms"] > 0 and row["optimizer_ms"] > 0 and row["transfer_ms"] > 0
        assert row["samples_per_s"] == pytest.approx(4000 / row["step_ms"], rel=0.01)
        assert 0.05 < row["peak_memory_gib"] < 50 and row["bound"] in ("data", "transfer", "compute")


@pytest.mark.slow
def test_slow_data_is_found_and_said_once(flags, tmp_path, monkeypatch, capsys):
    read = run.BatchLoader.__iter__

    def slowly(self):
        for batch in read(self):
            time.sleep(SLOW_S)
            yield batch

    monkeypatch.setattr(run.BatchLoader, "__iter__", slowly)
    train(flags(tmp_path / "run", "--num_workers=0", "--steps=4"))
    rows = rows_of(tmp_path / "run")
    assert all(row["bound"] == "data" and row["data_ms"] >= 1000 * SLOW_S for row in rows)
    assert [("advice" in row) for row in rows] == [True, False]
    assert capsys.readouterr().err.count("Type: --num_workers=") == 2  # when it is found, and in the end


def test_evaluations_and_saves_are_no_part_of_a_step(flags, tmp_path, monkeypatch):
    slept = []

    def slow(function):
        def slowed(*args):
            slept.append(time.sleep(SLOW_S / 5) or SLOW_S / 5)
            return function(*args)

        return slowed

    monkeypatch.setattr(validation, "held_out_batches", slow(validation.held_out_batches))
    monkeypatch.setattr(loop, "save_checkpoint", slow(loop.save_checkpoint))
    words = flags(
        tmp_path / "run", "--dataset.eval_split=0.3", "--eval_steps=2", "--save_freq=3", "--steps=4"
    )
    began_s = time.perf_counter()
    train(words)
    lasted_s = time.perf_counter() - began_s
    # The first of two validations also counts what its means are over; and there are two saves.
    rows = [row for row in rows_of(tmp_path / "run") if "step_ms" in row]
    timed_s = sum(row["step_ms"] * steps / 1000 for row, steps in zip(rows, (1, 2), strict=True))
    assert len(slept) == 5 and timed_s < lasted_s - sum(slept)


def test_the_time_left_counts_what_is_due(monkeypatch):
    class Watch:
        timed_s, timed_steps = 20.0, 10
        untimed_s = {"evaluation": [30.0, 50.0], "validation": [7.0]}

    class Config:
        steps, eval_freq, eval_steps, save_freq = 100, 25, 0, 10

    class Standing:
        stopwatch, cfg, step = Watch(), Config(), 60

    assert seconds_left(Standing()) == 40 * 2.0 + 2 * 40.0  # evaluations at 75 and 100
    Watch.timed_steps = 0
    assert seconds_left(Standing()) is None


def test_tokens_are_counted_for_policies_that_have_some(flags, tmp_path, monkeypatch):
    train(flags(tmp_path / "without", "--steps=2"))
    assert "tokens_per_s" not in rows_of(tmp_path / "without")[0]
    monkeypatch.setattr(
        ACTPolicy, "count_tokens", lambda self, batch: torch.tensor(50.0) * len(batch["index"])
    )
    train(flags(tmp_path / "with", "--steps=2", "--gradient_accumulation_steps=2"))
    row = rows_of(tmp_path / "with")[0]
    assert row["tokens_per_s"] == pytest.approx(50 * row["samples_per_s"])
    assert "tokens" not in row and "items" not in row
