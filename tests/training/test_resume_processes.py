"""A run goes on with another number of processes: the epoch is finished with the frames that are left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

REST = """
import json, sys
from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.flags import parse
from lerobot.distributed.world import joined
from lerobot.training.config import TrainConfig, complete
from lerobot.training.run import start
from lerobot.training.checkpoints.state import restore_state
import torch

def main():  # nothing of the run outlives it: gloo's thread must not touch a tensor while Python ends
    cfg = parse(TrainConfig, sys.argv[2:], program="rest", aliases=TRAIN_ALIASES, complete=complete)
    with joined(torch.device("cpu")) as world:
        run = start(cfg, world)
        restore_state(run)
        run.first_step, seen = run.step, []
        for group in run.batches():
            seen += [int(frame) for batch in group for frame in batch["index"]]
            run.step += 1
        parts = world.gather(seen)
        if world.is_main:
            open(sys.argv[1], "w").write(json.dumps(parts))

main()
"""


def together(processes, *words):
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    command = [sys.executable, *(launcher if processes > 1 else [])]
    done = subprocess.run(
        [*command, *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_two_processes_go_on_as_three_and_as_one(flags, tmp_path):
    run, script = tmp_path / "run", tmp_path / "rest.py"
    script.write_text(REST)
    words = [
        "--steps=3",
        "--batch_size=2",
        "--save_freq=3",
        "--log_freq=1",
        "--gradient_accumulation_steps=2",
    ]
    together(2, "-m", "lerobot.scripts.train", *flags(run, *words))  # 24 of 36 frames
    state = json.loads((run / "checkpoints/last/training_state/extra_state.json").read_text())
    assert state["sampler"]["offset"] == 24 and len(state["meters"]) == 2
    rest = ["--gradient_accumulation_steps=1", f"--resume={run}"]
    left, said = {}, {}
    for processes in (3, 1):  # 12 frames in 2 steps
        words = [f"--batch_size={6 // processes}", "--steps=5", *rest]
        said[processes] = together(processes, str(script), str(tmp_path / "parts.json"), *words)
        parts = json.loads((tmp_path / "parts.json").read_text())
        assert [len(part) for part in parts] == [12 // processes] * processes
        left[processes] = sorted(sum(parts, []))
    assert left[1] == left[3] and len(set(left[1])) == 12
    assert said[3].count("changed: ") == 1 and "has no random state of rank 2" in said[3]
