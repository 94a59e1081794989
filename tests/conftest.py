"""What holds for every test: no network, homes in a folder that goes away, one thread, known random numbers.

`--seed=N` runs the suite with other random numbers.
"""

import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

# Before anything reads them: huggingface_hub does at its import, OpenMP when torch loads.
HOME = Path(tempfile.mkdtemp(prefix="lerobot-tests-"))
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(HOME / "huggingface"),
    "HF_LEROBOT_HOME": str(HOME / "lerobot"),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "SDL_VIDEODRIVER": "dummy",
    "WANDB_MODE": "offline",
    "COLUMNS": "120",
}
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a suite in the background, and of its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
LOCAL = ("localhost", "127.", "::1", "0.0.0.0")
connect = socket.socket.connect


def connect_here_only(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOCAL):
        raise AssertionError(f"a test tried to reach {address}: tests do without the network")
    return connect(self, address)


socket.socket.connect = connect_here_only


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="seed of the random numbers each test starts from")


def pytest_unconfigure(config):
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def seeded(request):
    """Every test starts from the same random numbers, whichever tests ran before it."""
    seed = request.config.getoption("--seed")
    random.seed(seed)
    if "numpy" in sys.modules:  # only where a test loads it anyway
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on the loopback and an account on it; homes are below `tmp_path / "hf"`."""
    from tests.fakes.hub import FakeHub

    with FakeHub() as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        for name in ("HF_HUB_OFFLINE", "HF_LEROBOT_HOME", "LEROBOT_HOME"):
            monkeypatch.delenv(name, raising=False)
        yield fake
