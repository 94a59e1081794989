"""Two processes train together: each frame is seen once, and steps are those of one with twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training.metrics import METRICS_FILE, read_metrics

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# One action per item is never padded, so the mean of two halves is the mean of the whole; and SGD, unlike
# Adam, feels the size of a gradient and does not blow up its rounding.
EXACT = [
    "--optimizer.type=sgd",
    "--optimizer.lr=1e-3",
    "--policy.use_vae=false",
    "--policy.dropout=0",
    "--policy.chunk_size=1",
    "--policy.n_action_steps=1",
]

EPOCH = """
import json, sys
from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.flags import parse
from lerobot.distributed.world import joined
from lerobot.training.config import TrainConfig, complete
from lerobot.training.run import start
import torch

cfg = parse(TrainConfig, sys.argv[2:], program="epoch", aliases=TRAIN_ALIASES, complete=complete)
with joined(torch.device("cpu")) as world:
    run = start(cfg, world)
    seen = []
    for group in run.batches():
        seen += [int(frame) for batch in group for frame in batch["index"]]
        run.step += 1
    parts = world.gather(seen)
    if world.is_main:
        open(sys.argv[1], "w").write(json.dumps(parts))
"""


def together(*words: str) -> str:
    """Run `-m module` or a script with two processes; gives what they wrote to standard error."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*command, *words], cwd=ROOT, env=os.environ, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def train_together(words: list[str]) -> str:
    return together("-m", "lerobot.scripts.train", *words)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints/last/pretrained_model/model.safetensors")


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(flags, tmp_path):
    train(flags(tmp_path / "one", *EXACT, "--batch_size=8", "--log_freq=1"))
    said = train_together(flags(tmp_path / "two", *EXACT, "--batch_size=4", "--log_freq=1"))
    alone, shared = (read_metrics(tmp_path / run / METRICS_FILE) for run in ("one", "two"))
    assert [row["step"] for row in shared] == [1, 2, 3, 4, 5, 6]  # written by one process only
    assert said.count("step 6/6") == 1 and "8 frames a step (4 x 1 x 2 processes)" in said
    for ours, theirs in zip(alone, shared, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-4)
        assert theirs["epoch"] == ours["epoch"]
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-4, atol=1e-6)
    progress = json.loads((tmp_path / "two/checkpoints/last/training_state/training_step.json").read_text())
    assert progress == {"step": 6, "num_processes": 2, "batch_size": 4}
    policy = ACTPolicy.from_pretrained(tmp_path / "two")
    action = policy.select_action({"state": torch.zeros(3), "images": {"top": torch.zeros(3, 32, 32)}})
    assert action.shape == (3,) and torch.isfinite(action).all()


def test_each_frame_of_an_epoch_is_on_one_process(flags, tmp_path):
    (tmp_path / "epoch.py").write_text(EPOCH)
    words = flags(tmp_path / "run", "--batch_size=4", "--steps=5", "--num_workers=2")  # 36 frames, 8 a step
    together(str(tmp_path / "epoch.py"), str(tmp_path / "parts.json"), *words)
    first, second = json.loads((tmp_path / "parts.json").read_text())
    assert len(first) == len(second) == 18
    assert sorted(first + second) == list(range(36))


def test_resumed_together_they_go_on_as_if_nothing_had_happened(flags, tmp_path):
    words = ["--policy.dropout=0.1", "--log_freq=1", "--batch_size=2"]  # random numbers differ per process
    train_together(flags(tmp_path / "whole", *words, "--steps=4"))
    train_together(flags(tmp_path / "parts", *words, "--steps=2"))
    train_together(["--resume=true", f"--output_dir={tmp_path / 'parts'}", "--steps=4"])
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)
    rows = [
        [row["loss"] for row in read_metrics(tmp_path / run / METRICS_FILE)] for run in ("whole", "parts")
    ]
    assert len(rows[0]) == 4 and rows[0] == rows[1]
