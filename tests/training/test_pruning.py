"""Which checkpoints stay: the newest, the best, what is linked, read or no checkpoint."""

import json
import math
import os

import pytest

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.core.files import reading
from lerobot.policies.locate import locate
from lerobot.scripts.train import train
from lerobot.training import loop
from lerobot.training.checkpoints import checkpoint
from lerobot.training.checkpoints.pruning import find_best, keep_best, prune
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics


@pytest.fixture
def made(tmp_path):
    """Complete checkpoints of the given steps, as far as pruning is concerned."""

    def make(*steps):
        checkpoints = tmp_path / "checkpoints"
        for step in steps:
            folder = checkpoints / f"{step:06d}"
            (folder / keys.PRETRAINED_FOLDER).mkdir(parents=True)
            (folder / keys.PRETRAINED_FOLDER / keys.CONFIG_FILE).write_text("{}")
            (folder / keys.TRAINING_STATE_FOLDER).mkdir()
            (folder / keys.TRAINING_STATE_FOLDER / checkpoint.STEP_FILE).write_text(
                json.dumps({"step": step})
            )
        checkpoint.point(checkpoints, "last", f"{steps[-1]:06d}")
        return checkpoints

    return make


def measured(folder, metric, values):
    rows = [{"step": step, metric: value} for step, value in values.items()]
    (folder / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def names(checkpoints):
    return sorted(path.name for path in checkpoints.iterdir())


def test_the_newest_stay(made):
    checkpoints = made(1, 2, 3, 10)
    assert prune(checkpoints, keep_last=2) == ["000001", "000002"]
    assert names(checkpoints) == ["000003", "000010", "last"]
    assert prune(checkpoints, keep_last=2) == []


def test_links_and_strangers_stay(made):
    checkpoints = made(1, 2, 3, 4)
    checkpoint.point(checkpoints, "last", "000002")  # a run that was resumed further back
    checkpoint.point(checkpoints, "best", "000001")
    (checkpoints / "notes").mkdir()
    (checkpoints / "000000").mkdir()  # half a checkpoint, of a program that writes in place
    assert prune(checkpoints, keep_last=1) == ["000003"]
    assert names(checkpoints) == ["000000", "000001", "000002", "000004", "best", "last", "notes"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files by itself")
def test_what_is_being_read_stays(made):
    checkpoints = made(1, 2, 3)
    with reading(checkpoints / "000001/pretrained_model/config.json"):
        assert prune(checkpoints, keep_last=1) == ["000002"]
    assert prune(checkpoints, keep_last=1) == ["000001"]


def test_the_best_is_the_first_with_the_best_value_so_far(made, tmp_path):
    checkpoints = made(100, 150, 200, 300)
    file = tmp_path / METRICS_FILE
    assert find_best(checkpoints, file, "eval/loss") is None
    measured(tmp_path, "eval/loss", {100: 0.5, 200: 0.7, 290: math.nan, 300: 0.6})
    assert find_best(checkpoints, file, "eval/loss") == "000100"
    measured(tmp_path, "eval/success_rate", {90: 0.1, 200: 0.7, 300: 0.7})
    assert find_best(checkpoints, file, "eval/success_rate") == "000200"
    assert find_best(checkpoints, file, "eval/loss") is None


def test_the_link_follows_the_best(made, tmp_path, caplog):
    checkpoints = made(1, 2)
    assert keep_best(checkpoints, tmp_path / METRICS_FILE, "eval/loss") is None
    measured(tmp_path, "loss", {1: 2.0})
    assert keep_best(checkpoints, tmp_path / METRICS_FILE, "eval/loss") is None
    assert "no such metric was logged so far. Logged are: loss." in caplog.text
    measured(tmp_path, "eval/loss", {1: 2.0, 2: 3.0})
    assert keep_best(checkpoints, tmp_path / METRICS_FILE, "eval/loss") == "000001"
    assert (checkpoints / "best").resolve() == checkpoints / "000001"
    measured(tmp_path, "eval/loss", {1: 2.0, 2: 1.0})
    keep_best(checkpoints, tmp_path / METRICS_FILE, "eval/loss")
    assert locate(checkpoints / "best").parent.resolve() == checkpoints / "000002"


def test_pointer_files_serve_where_links_do_not(made, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "HAS_LINKS", False)  # as on Windows
    checkpoints = made(1, 2, 3)
    checkpoint.point(checkpoints, "best", "000001")
    assert (checkpoints / "best").read_text() == "000001" and (checkpoints / "last").read_text() == "000003"
    assert prune(checkpoints, keep_last=1) == ["000002"]
    assert locate(checkpoints / "best") == checkpoints / "000001/pretrained_model"
    assert locate(checkpoints / "last") == locate(tmp_path) == checkpoints / "000003/pretrained_model"
    (checkpoints / "last").unlink()
    (checkpoints / "last").symlink_to("000003")  # made on another system
    checkpoint.point(checkpoints, "last", "000001")
    assert (checkpoints / "last").read_text() == "000001"


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--keep_last=0", "at least 1"), ("--keep_best=eval/loss", "give --eval_steps"),
     ("--keep_best=eval/success_rate", "give --env.type")],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(flags, tmp_path, flag, words):
    with pytest.raises(ConfigError, match=words):
        train(flags(tmp_path / "run", flag))


def test_what_was_measured_after_the_last_save_counts_too(flags, tmp_path, monkeypatch):
    late = [{"step": 4, "eval/success_rate": 0.9}, {"step": 6, "eval/success_rate": 0.5}]
    monkeypatch.setattr(loop, "last_evaluations", lambda run, stop: late)
    last = train(flags(tmp_path / "run", "--save_freq=2", "--keep_best=l1_loss"))
    assert (last.parent / "best").exists()
    monkeypatch.setattr("lerobot.training.config.check_keeping", lambda cfg: None)  # it has no simulation
    last = train(flags(tmp_path / "other", "--save_freq=2", "--keep_best=eval/success_rate"))
    assert (last.parent / "best").resolve().name == "000004"


def test_a_run_keeps_what_was_asked_for(flags, tmp_path):
    words = ["--steps=5", "--save_freq=1", "--log_freq=1", "--keep_last=2", "--keep_best=kld_loss"]
    last = train(flags(tmp_path / "run", *words, "--policy.kl_weight=0"))  # so that it rises
    values = {f"{row['step']:06d}": row["kld_loss"] for row in read_metrics(tmp_path / "run" / METRICS_FILE)}
    best = min(values, key=values.get)
    assert names(last.parent) == sorted({best, "000004", "000005", "best", "last"})
    assert (last.parent / "best").resolve().name == best and (last.parent / "last").resolve() == last
    assert all(checkpoint.verify(last.parent / name) for name in {best, "000004", "000005"})
