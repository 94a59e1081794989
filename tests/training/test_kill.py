"""SIGKILL at any instant of a process that trains, writes checkpoints beside it and prunes them.

The process is killed a hundred times and goes on from `last` each time. `last` can always be loaded, it never
moves back, and in the end the weights are those of a run that nobody disturbed.
"""

import json
import os
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.flags import read_flags, tree_of
from lerobot.distributed.world import World
from lerobot.training import checkpoint
from lerobot.training.config import TrainConfig, complete
from lerobot.training.metrics import METRICS_FILE
from lerobot.training.run import seed_everything, start
from lerobot.training.state import restore_state, save_checkpoint
from tests.training.test_checkpoint import files, hidden, in_child, needs_fork

CPU = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
pytestmark = [pytest.mark.slow, needs_fork]


class Small(nn.Module):
    """A policy as far as training and checkpoints are concerned, with 90,000 weights."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(300, 300), nn.Tanh(), nn.Dropout(0.1), nn.Linear(300, 3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layers(x).square().mean()

    def saved_weights(self):
        return self.state_dict()

    def save_pretrained(self, folder, *, weights):
        (folder / "config.json").write_text('{"type": "small"}')
        save_file(dict(weights), folder / "model.safetensors")


@pytest.fixture
def opened(flags, tmp_path):
    """A run like that of `lerobot-train`, with a smaller policy."""

    def make(name, *words):
        words = flags(tmp_path / name, "--steps=1000000", "--num_workers=0", "--save_freq=1", *words)
        tree = tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete)
        run = start(decode(TrainConfig, tree), CPU)
        torch.manual_seed(0)
        run.policy = Small()
        run.optimizer = torch.optim.Adam(run.policy.parameters(), lr=1e-3)
        return run

    return make


def go_on(run, *, steps=None):
    """Train from `last`, if there is one; save after every step."""
    torch.set_num_threads(1)
    if (run.output_dir / "checkpoints/last").exists():
        folder = checkpoint.find_last(run.output_dir)
        run.cfg.checkpoint_path = str(folder)
        run.policy.load_state_dict(load_file(folder / "pretrained_model/model.safetensors"))
        restore_state(run)
    else:
        seed_everything(0)
    with run.saver:
        while run.step != steps:
            run.policy.train()
            run.policy(torch.randn(2, 300)).backward()
            run.saver.before_change()
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.step += 1
            if steps is None or run.step == steps:
                save_checkpoint(run)


def assert_usable(checkpoints, *, since):
    """Everything under its own name is complete and unharmed; gives the step of `last`."""
    last = (checkpoints / "last").resolve(strict=True)
    assert last.parent == checkpoints and checkpoint.verify(last)
    for name in ("best", *(path.name for path in checkpoints.glob("0*"))):
        if name != "best" or (checkpoints / name).is_symlink():
            assert checkpoint.verify((checkpoints / name).resolve(strict=True)), name
    step = checkpoint.read_progress(last).step
    assert step >= since
    return step


@pytest.mark.parametrize(
    ("kills", "keeping"),
    [(100, ("--keep_last=2", "--keep_best=lr")), (40, ())],
    ids=["a hundred kills, pruned", "all kept"],
)
def test_kills_change_nothing(opened, kills, keeping):
    run = opened("run", *keeping)
    run.output_dir.mkdir()
    values = random.Random(1).choices(range(1000), k=5000)  # of a metric that is best now here, now there
    rows = [json.dumps({"step": step, "lr": value}) + "\n" for step, value in enumerate(values)]
    (run.output_dir / METRICS_FILE).write_text("".join(rows))
    pick, checkpoints, step, killed_in = random.Random(0), run.output_dir / "checkpoints", 0, set()
    for _ in range(kills):
        child = in_child(lambda: go_on(run))
        time.sleep(pick.uniform(0.02, 0.12))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        if (checkpoints / "last").is_symlink():
            step = assert_usable(checkpoints, since=step)
            killed_in |= {name.rpartition(".")[2] for name in hidden(run.output_dir)}
    assert step > kills / 4  # it got on in spite of everything
    assert "part" in killed_in  # and was killed in the middle of writing
    if keeping:
        assert len(list(checkpoints.glob("0*"))) <= 5  # two, the best, and what a kill left for the next save
    whole = opened("whole")
    assert os.waitpid(in_child(lambda: go_on(whole, steps=step)), 0)[1] == 0
    one, other = (folder / f"checkpoints/{step:07d}" for folder in (run.output_dir, whole.output_dir))
    for name in files(one):
        if name.endswith(".safetensors"):
            a, b = load_file(one / name), load_file(other / name)
            assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
