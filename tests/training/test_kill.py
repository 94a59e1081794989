"""SIGKILL at any instant of a process that trains, writes checkpoints beside it and prunes them.

The process is killed a hundred times and goes on from `last` each time. `last` can always be loaded, it never
moves back, and in the end the weights are those of a run that nobody disturbed.
"""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.flags import read_flags, tree_of
from lerobot.distributed.world import World
from lerobot.training.checkpoints import checkpoint
from lerobot.training.checkpoints.pruning import keep_best, prune
from lerobot.training.checkpoints.state import restore_state, save_checkpoint
from lerobot.training.config import TrainConfig, complete
from lerobot.training.logs.metrics import METRICS_FILE
from lerobot.training.run import build_optimizer, seed_everything, start
from tests.fakes.death import kill_before
from tests.training.test_checkpoint import Run as TinyRun
from tests.training.test_checkpoint import files, hidden, in_child, needs_fork

CPU = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
pytestmark = [pytest.mark.slow, needs_fork]


class Small(nn.Module):
    """A policy as far as training and checkpoints are concerned, with 90,000 weights."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(300, 300), nn.Tanh(), nn.Dropout(0.1), nn.Linear(300, 3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layers(x).square().mean()

    def get_optim_params(self):
        return list(self.parameters())

    def saved_weights(self):
        return self.state_dict()

    def progress(self):
        return {"calls": int(self.calls)}

    def resume(self, progress, *, step):
        assert progress == {"calls": int(self.calls)} == {"calls": step}

    def save_pretrained(self, folder, *, weights):
        self.config.save_pretrained(folder)
        save_file(dict(weights), folder / "model.safetensors")


@pytest.fixture
def opened(flags, tmp_path):
    """A run like that of `lerobot-train`, with a smaller policy."""

    def make(name, *words):
        words = flags(tmp_path / name, "--steps=1000000", "--num_workers=0", "--save_freq=1", *words)
        tree = tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete)
        run = start(decode(TrainConfig, tree), CPU)
        torch.manual_seed(0)
        run.policy = Small(run.cfg.policy)
        run.optimizer, _ = build_optimizer(run.cfg, run.policy)
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


def let_work(pid, work_s):
    """Return when a process has computed for so long, which comes later on a busy machine, but not much."""
    path, until_s = Path(f"/proc/{pid}/schedstat"), time.monotonic() + 10 * work_s
    if not path.exists():  # not on Linux
        time.sleep(work_s)
        return
    while int(path.read_text().split()[0]) / 1e9 < work_s and time.monotonic() < until_s:
        time.sleep(0.001)


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
    [(100, ("--keep_last=2", "--keep_best=loss")), (20, ())],
    ids=["a hundred kills, pruned", "all kept"],
)
def test_kills_change_nothing(opened, kills, keeping):
    run = opened("run", *keeping)
    run.output_dir.mkdir()
    values = random.Random(1).choices(range(1000), k=5000)  # of a metric that is best now here, now there
    rows = [json.dumps({"step": step, "loss": value}) + "\n" for step, value in enumerate(values)]
    (run.output_dir / METRICS_FILE).write_text("".join(rows))
    pick, checkpoints, step, killed_in = random.Random(0), run.output_dir / "checkpoints", 0, set()
    for _ in range(kills):
        child = in_child(lambda: go_on(run))
        let_work(child, pick.uniform(0.02, 0.12))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        if (checkpoints / "last").is_symlink():
            step = assert_usable(checkpoints, since=step)
            killed_in |= {name.rpartition(".")[2] for name in hidden(run.output_dir)}
    assert step > kills / 4  # it got on in spite of everything
    assert "part" in killed_in  # and was killed in the middle of writing
    if keeping:  # one save that nobody disturbs clears away what kills before pruning have left
        assert os.waitpid(in_child(lambda: go_on(run, steps=step + 1)), 0)[1] == 0
        assert len(list(checkpoints.glob("0*"))) <= 3  # two, and the best
    whole = opened("whole")
    assert os.waitpid(in_child(lambda: go_on(whole, steps=step)), 0)[1] == 0
    one, other = (folder / f"checkpoints/{step:07d}" for folder in (run.output_dir, whole.output_dir))
    for name in files(one):
        if name.endswith(".safetensors"):
            a, b = load_file(one / name), load_file(other / name)
            assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name


def test_a_kill_before_any_change_of_the_disk_harms_nothing_that_is_kept(tmp_path):
    """The process is killed just before its n-th rename, link, removal ...; n runs over all of them."""
    run, killed = TinyRun(), 0
    for step in (1, 2, 3):
        run.save(tmp_path / "before", step)
    rows = [{"step": step, "loss": loss} for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 0.5))]
    (tmp_path / "before" / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    keep_best(tmp_path / "before/checkpoints", tmp_path / "before" / METRICS_FILE, "loss")
    assert (tmp_path / "before/checkpoints/best").resolve().name == "000002"
    for deadline in range(1, 500):
        output_dir = shutil.copytree(tmp_path / "before", tmp_path / str(deadline), symlinks=True)
        checkpoints = output_dir / "checkpoints"

        def save_and_prune(output_dir=output_dir, checkpoints=checkpoints):
            run.save(output_dir, 4)
            keep_best(checkpoints, output_dir / METRICS_FILE, "loss")
            prune(checkpoints, keep_last=1)

        child = in_child(lambda deadline=deadline, work=save_and_prune: kill_before(deadline, work))
        _, status = os.waitpid(child, 0)
        assert_usable(checkpoints, since=3)
        assert checkpoint.read_progress(checkpoints / "best").step in (2, 4)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
        if killed % 4 == 0:
            save_and_prune()  # the next save cleans up
            assert sorted(path.name for path in checkpoints.iterdir()) == ["000004", "best", "last"]
        shutil.rmtree(output_dir)
    assert killed > 80


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux for the names of open files")
def test_nothing_gets_its_name_before_it_is_on_the_disk(tmp_path, monkeypatch):
    """What a power cut may lose was not yet renamed: every file and folder is forced to the disk first."""
    synced, renamed = set(), []
    real_sync, real_rename = os.fsync, os.rename

    def sync(descriptor):
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_sync(descriptor)

    def rename(source, target, **how):
        source = os.fspath(source)
        if source.endswith("000001.part"):
            there = [source, *(os.path.join(place, name) for place, *kinds in os.walk(source)
                               for names in kinds for name in names)]  # fmt: skip
            assert len(there) > 12 and set(there) <= synced
            renamed.append(source)
        real_rename(source, target, **how)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    TinyRun().save(tmp_path, 1)
    assert len(renamed) == 1 and str(tmp_path / "checkpoints") in synced
