"""The examples for clusters: SLURM with two nodes that are this machine, and a Ray cluster of one machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from tests.fakes.processes import free_port
from tests.training.conftest import TINY_ACT, make_dataset

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

# Stands in for SLURM: as many "nodes" as the job has, all of them here; a signal reaches each.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < SLURM_NNODES; node++)); do SLURM_NODEID=$node "$@" & tasks+=($!); done
trap 'kill -TERM "${tasks[@]}"' TERM
status=0
for task in "${tasks[@]}"; do
  wait $task || status=$?
  while kill -0 $task 2>/dev/null; do wait $task || status=$?; done
done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$SLURM_DIARY"; fi
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Flags of a tiny run on a small dataset."""
    root = make_dataset(tmp_path_factory.mktemp("data") / "small")
    words = ["--dataset.repo_id=local/small", f"--dataset.root={root}", *TINY_ACT, "--num_workers=0"]
    return [*words, "--batch_size=2", "--log_freq=1", "--save_freq=0"]


@pytest.fixture
def slurm(tmp_path):
    """The environment of a job on two nodes with one process each."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    port = next(port for port in iter(free_port, None) if port < 40000)  # the script's ports begin at 20000
    job = {"SLURM_NNODES": "2", "SLURM_JOB_ID": str(port - 20000), "SLURM_JOB_NODELIST": "here"}
    job |= {"SLURM_DIARY": str(tmp_path / "diary"), "PROCESSES_PER_NODE": "1", "PYTHONPATH": str(ROOT)}
    place = f"{tmp_path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | job | {"PATH": place}


def saved_step(run: Path) -> dict:
    return json.loads((run / "checkpoints/last/training_state/training_step.json").read_text())


def test_a_slurm_job_on_two_nodes_stops_in_time_and_goes_on(flags, slurm, tmp_path):
    run = tmp_path / "run"
    words = ["bash", str(ROOT / "examples/slurm_train.sh"), *flags, f"--output_dir={run}", "--steps=40"]
    job = subprocess.Popen(words, env=slurm, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not read_metrics(run / METRICS_FILE):
        assert time.monotonic() < deadline and job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=120)[1]
    assert job.returncode == 0, said
    assert (tmp_path / "diary").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
    stopped_at = saved_step(run)
    assert stopped_at["num_processes"] == 2 and stopped_at["step"] in (10, 20, 30)  # votes are rare
    done = subprocess.run(words, env=slurm, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{stopped_at['step']} to 40" in done.stderr and saved_step(run)["step"] == 40
    assert [row["step"] for row in read_metrics(run / METRICS_FILE) if "loss" in row] == list(range(1, 41))


def test_a_slurm_job_needs_a_folder(flags, slurm):
    words = ["bash", str(ROOT / "examples/slurm_train.sh"), *flags]
    done = subprocess.run(words, env=slurm, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "--output_dir=FOLDER" in done.stderr


def test_a_ray_cluster_trains(flags, tmp_path):
    pytest.importorskip("ray")
    words = [
        sys.executable,
        "examples/ray_train.py",
        "2",
        *flags,
        f"--output_dir={tmp_path / 'run'}",
        "--steps=2",
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder == tmp_path / "run/checkpoints/000002"
    assert saved_step(tmp_path / "run") == {"step": 2, "num_processes": 2, "batch_size": 2}
