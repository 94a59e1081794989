"""Worker processes end with the process that they belong to, and Ctrl-C is not for them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from lerobot.core.signals import become_worker

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=become_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    busy = pool.submit(time.sleep, 1000)
    time.sleep(1000)
"""
LIMIT_S = 60
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")]


@pytest.fixture
def parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_parent_takes_its_worker_along(parent):
    worker = int(parent.stdout.readline())
    os.kill(worker, signal.SIGINT)
    time.sleep(0.2)
    assert is_alive(worker)
    parent.kill()
    deadline = time.monotonic() + LIMIT_S
    while is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.02)
