"""Searches without training: trials are functions (`tests.fakes.trials`), Optuna and the files are real."""

from contextlib import contextmanager

import pytest

import lerobot.search.study as study_module
from lerobot.search.config import parse_search
from tests.fakes.trials import ToldExecutor, valley

BASE = [
    "--dataset.repo_id=me/so101_pick",
    "--dataset.eval_split=0.1",
    "--eval_steps=1",
    "--steps=5",
    "--policy.type=act",
    "--policy.device=cpu",
    "--pruner=none",
]
LR = "--space.policy.optimizer_lr=log[1e-6,1e-2]"


@pytest.fixture
def search(tmp_path, monkeypatch):
    """`search("--n_trials=3", ...)` runs a search in `tmp_path / "out"`, on `search.executor`."""
    monkeypatch.setattr(study_module, "POLL_S", 0.0)
    monkeypatch.setattr("lerobot.core.files.sync_file", lambda path: None)  # a test survives no power cut
    monkeypatch.setattr("lerobot.core.files.sync_folder", lambda path: None)
    event = pytest.importorskip("sqlalchemy.event")
    engine = pytest.importorskip("sqlalchemy.engine").Engine
    event.listen(engine, "connect", unhurried)

    def run(*flags, story=valley):
        run.executor = ToldExecutor(story)

        @contextmanager
        def opened(cfg, train):
            yield run.executor

        monkeypatch.setattr(study_module, "open_executor", opened)
        return study_module.tune(parse_search([f"--output_dir={tmp_path / 'out'}", *flags]))

    yield run
    event.remove(engine, "connect", unhurried)


def unhurried(connection, record):
    """SQLite that leaves writing to the system, as above."""
    connection.execute("PRAGMA synchronous=OFF")
