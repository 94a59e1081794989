"""Checkpoints: their layout, what is restored, and that no kill at any instant leaves `last` unusable."""

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

from lerobot.core.errors import CheckpointError
from lerobot.optim.optimizers import AdamConfig
from lerobot.optim.schedulers import ConstantWithWarmupSchedulerConfig
from lerobot.processor.defaults import default_steps, policy_pipelines
from lerobot.training.checkpoints import checkpoint
from tests.fakes.death import kill_before


class TinyPolicy(torch.nn.Module):
    """A policy as far as checkpoints are concerned: weights and config.json."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def save_pretrained(self, folder):
        (folder / "config.json").write_text('{"type": "tiny"}')
        save_file(self.state_dict(), folder / "model.safetensors")


class Run:
    """What a checkpoint holds, trained for a few steps."""

    def __init__(self):
        torch.manual_seed(0)
        self.policy = TinyPolicy()
        self.optimizer = AdamConfig(lr=1e-2).build(self.policy.parameters())
        self.scheduler = ConstantWithWarmupSchedulerConfig(num_warmup_steps=4).build(self.optimizer, 20)
        self.before, self.after = policy_pipelines(
            *default_steps(input_features={}, output_features={}, norm_map={})
        )

    def train(self):
        loss = self.policy.layer(torch.randn(4, 3)).square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def save(self, output_dir, step, **more):
        return checkpoint.save(
            output_dir,
            step=step,
            total_steps=20,
            policy=self.policy,
            train_config={"steps": 20, "job_name": "été"},
            batch_size=4,
            preprocessor=self.before,
            postprocessor=self.after,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            **more,
        )


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def hidden(output_dir):
    return [path.name for path in (output_dir / "checkpoints").glob(".*")]


def test_the_layout_is_the_one_every_release_reads(tmp_path):
    run = Run()
    run.train()
    folder = run.save(tmp_path, 3, ema_policy=run.policy, extra={"epoch": 2})
    assert folder == tmp_path / "checkpoints/000003"
    model = [
        "config.json",
        "model.safetensors",
        "policy_postprocessor.json",
        "policy_preprocessor.json",
        "train_config.json",
    ]
    state = [
        "extra_state.json",
        "optimizer_param_groups.json",
        "optimizer_state.safetensors",
        "rng_state.safetensors",
        "rng_state_exact.safetensors",
        "scheduler_state.json",
        "training_step.json",
    ]
    assert files(folder) == sorted(
        [
            "manifest.json",
            *(f"pretrained_model/{name}" for name in model),
            *(f"pretrained_model_ema/{name}" for name in model),
            *(f"training_state/{name}" for name in state),
        ]
    )
    step = (folder / "training_state/training_step.json").read_text()
    assert step == '{\n    "step": 3,\n    "num_processes": 1,\n    "batch_size": 4\n}'
    assert "été" in (folder / "pretrained_model/train_config.json").read_text(encoding="utf-8")
    last = tmp_path / "checkpoints/last"
    assert last.is_symlink() and str(last.readlink()) == "000003"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("step", "total", "name"), [(3, 10, "000003"), (3, 999_999, "000003"), (20_000, 1_000_000, "0020000")]
)
def test_step_folders_have_as_many_digits_as_the_last_step(step, total, name):
    assert checkpoint.step_name(step, total) == name


def test_a_resumed_run_continues_to_the_bit(tmp_path):
    run = Run()
    for _ in range(3):
        run.train()
    folder = run.save(tmp_path, 3, num_processes=2, extra={"sampler": {"epoch": 1}})
    expected = [run.train() for _ in range(4)]
    again = Run()
    again.policy.load_state_dict(load_file(folder / "pretrained_model/model.safetensors"))
    progress = checkpoint.load(folder, optimizer=again.optimizer, scheduler=again.scheduler)
    assert progress == checkpoint.Progress(
        step=3, num_processes=2, batch_size=4, extra={"sampler": {"epoch": 1}}
    )
    assert [again.train() for _ in range(4)] == expected


def test_every_way_to_name_a_checkpoint_leads_to_it(tmp_path):
    run = Run()
    first, second = run.save(tmp_path, 1), run.save(tmp_path, 2)
    for path in (first, first / "pretrained_model", first / "pretrained_model/train_config.json"):
        assert checkpoint.find(path) == first
    for path in (
        tmp_path,
        tmp_path / "checkpoints",
        tmp_path / "checkpoints/last",
        second / "training_state",
    ):
        assert checkpoint.find(path) == second
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoint.find(tmp_path / "elsewhere")


def test_step_files_of_all_releases_are_read(tmp_path):
    state = tmp_path / "training_state"
    state.mkdir()
    for tree, processes in (
        ({"step": 5}, None),
        ({"step": 5, "num_processes": 2, "batch_size": 8}, 2),
        ({"step": 5, "dp_world_size": 4, "batch_size": 8, "grad_accum_steps": 1, "parallelism": {}}, 4),
        ({"step": 15, "dp_world_size": 1, "batch_size": 8, "grad_accum_steps": 3, "parallelism": {}}, 1),
    ):
        (state / "training_step.json").write_text(json.dumps(tree))
        progress = checkpoint.read_progress(tmp_path)
        assert (progress.step, progress.num_processes) == (5, processes)  # of the optimizer
    (state / "training_step.json").write_text('{"steps": 5}')
    with pytest.raises(CheckpointError, match="no whole number called step"):
        checkpoint.read_progress(tmp_path)


def test_a_changed_or_missing_file_is_noticed(tmp_path):
    run = Run()
    folder = run.save(tmp_path, 1)
    assert checkpoint.verify(folder)
    weights = folder / "pretrained_model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors is not what was written .* rm "):
        checkpoint.load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing"):
        checkpoint.load(folder)
    (folder / "manifest.json").unlink()  # as in checkpoints of other releases
    assert not checkpoint.verify(folder)
    assert checkpoint.load(folder, optimizer=run.optimizer, scheduler=run.scheduler).step == 1


def test_a_failed_save_leaves_nothing_behind(tmp_path):
    run = Run()
    run.save(tmp_path, 1)

    def disk_full(folder):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        run.save(tmp_path, 2, write_more=disk_full)
    assert checkpoint.find_last(tmp_path).name == "000001"
    assert hidden(tmp_path) == []
    assert not (tmp_path / "checkpoints/000002").exists()


def test_saving_a_step_again_replaces_it(tmp_path):
    run = Run()
    run.save(tmp_path, 1, extra={"try": 1})
    run.save(tmp_path, 1, extra={"try": 2})
    assert checkpoint.load(tmp_path).extra == {"try": 2}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name[0] != "."] in (
        ["000001", "last"],
        ["last", "000001"],
    )
    assert hidden(tmp_path) == []


def test_leftovers_of_a_killed_save_are_removed_by_the_next(tmp_path):
    run = Run()
    run.save(tmp_path, 1)
    (tmp_path / "checkpoints/.000002.part/pretrained_model").mkdir(parents=True)
    (tmp_path / "checkpoints/.last.part").symlink_to("000002")
    run.save(tmp_path, 3)
    assert hidden(tmp_path) == []


def test_without_links_a_text_file_points_to_the_last_one(tmp_path, monkeypatch):
    def no_links(self, target, target_is_directory=False):
        raise OSError("links are not allowed here")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    run = Run()
    run.save(tmp_path, 1)
    run.save(tmp_path, 2)
    assert (tmp_path / "checkpoints/last").read_text() == "000002"
    assert checkpoint.find_last(tmp_path).name == "000002"
    run.save(tmp_path, 2)
    assert checkpoint.load(tmp_path).step == 2


def test_a_run_copied_without_links_goes_on(tmp_path, caplog):
    run = Run()
    run.save(tmp_path / "run", 1)
    copied = tmp_path / "copied"
    shutil.copytree(tmp_path / "run", copied)  # follows links: `last` becomes a folder
    assert (copied / "checkpoints/last").is_dir() and not (copied / "checkpoints/last").is_symlink()
    assert checkpoint.load(copied).step == 1
    run.save(copied, 2)
    assert "type: mv" in caplog.text and "last_copied" in caplog.text
    assert checkpoint.load(copied / "checkpoints/last").step == 1  # the folder itself, when it is named
    assert checkpoint.find_last(copied).name == "000002"


def test_a_dangling_link_is_said_and_the_highest_step_taken(tmp_path, caplog):
    run = Run()
    run.save(tmp_path, 1)
    shutil.rmtree(run.save(tmp_path, 2))
    assert checkpoint.find_last(tmp_path).name == "000001"
    assert "does not lead to a checkpoint" in caplog.text


# --- a kill at any instant
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")


def in_child(work):
    """Run `work` in a forked process; gives its process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def last_is_usable(output_dir, allowed_steps):
    """`last` itself, followed by anyone, leads to a checkpoint that agrees with its manifest."""
    last = output_dir / "checkpoints/last"
    assert checkpoint.verify(last.resolve(strict=True))
    assert checkpoint.read_progress(last).step in allowed_steps
    assert checkpoint.load(output_dir, optimizer=Run().optimizer).step in allowed_steps


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize(("first", "second"), [(1, 2), (1, 1)], ids=["a new step", "the same step again"])
def test_a_kill_before_any_change_of_the_disk_leaves_last_usable(tmp_path, first, second):
    """The child is killed just before its nth rename, link, removal ...; n runs over all of them."""
    run = Run()
    count = 0
    for deadline in range(1, 500):
        output_dir = tmp_path / str(deadline)
        run.save(output_dir, first)

        def save_until_killed(deadline=deadline, output_dir=output_dir):
            kill_before(deadline, lambda: run.save(output_dir, second))

        _, status = os.waitpid(in_child(save_until_killed), 0)
        if not os.WIFSIGNALED(status):
            count = deadline
            break
        last_is_usable(output_dir, {first, second})
        run.save(output_dir, second)  # the next save cleans up and succeeds
        assert hidden(output_dir) == []
        last_is_usable(output_dir, {second})
    assert count > 20


@needs_fork
def test_a_kill_at_a_random_instant_leaves_last_usable(tmp_path):
    run = Run()
    run.save(tmp_path, 1)
    pick = random.Random(0)

    def save_for_ever():
        for step in range(10_000):
            run.save(tmp_path, 1 + step % 3)

    for _ in range(10):
        child = in_child(save_for_ever)
        time.sleep(pick.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        last_is_usable(tmp_path, {1, 2, 3})
