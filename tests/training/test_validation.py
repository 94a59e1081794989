"""The validation loss: that of all held-out frames as one batch, whatever the batches, and moving nothing."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.flags import read_flags, tree_of
from lerobot.datasets import LeRobotDataset
from lerobot.distributed.world import World
from lerobot.scripts.train import train
from lerobot.training.config import TrainConfig, complete
from lerobot.training.evaluations.validation import held_out_batches, read_ahead, validate, validation_loss
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.run import start
from tests.training.conftest import FPS, make_dataset


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Episodes of two tasks and of different lengths; of each task the last one is held out."""
    root = tmp_path_factory.mktemp("tasks") / "data"
    numbers = {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    names = ("observation.environment_state", "action")
    dataset = LeRobotDataset.create("me/tasks", FPS, dict.fromkeys(names, numbers), root=root)
    noise = np.random.default_rng(2)
    for length, task in ((9, "push"), (5, "pull"), (7, "push"), (2, "pull"), (11, "push")):
        for _ in range(length):
            frame = {name: noise.standard_normal(3).astype(np.float32) for name in names}
            dataset.add_frame(frame | {"task": task})
        dataset.save_episode()
    dataset.finalize()
    return root


HELD_OUT = [*range(21, 23), *range(23, 34)]  # episodes 3 and 4


@pytest.fixture
def opened(flags, tasks, tmp_path):
    def make(*more, rank=0, size=1):
        words = flags(tmp_path / "run", f"--dataset.root={tasks}", "--dataset.eval_split=0.3", *more)
        words += ["--eval_steps=1", "--policy.chunk_size=4"]
        tree = tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete)
        alone = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
        run = start(decode(TrainConfig, tree), alone)
        run.world = replace(alone, rank=rank, size=size)
        return run

    return make


def test_it_is_the_loss_of_one_large_batch(opened):
    """Batches differ in how much of their chunks is padding, so a mean of their means is another number."""
    run = opened("--batch_size=13", "--policy.dropout=0.5")
    assert run.held_out == HELD_OUT
    batch = run.prepare(run.dataset.batch(HELD_OUT))
    with torch.no_grad():
        expected = run.policy.eval()(batch)[0].item()
    for size in (13, 5, 3, 1):
        found = validation_loss(
            opened(f"--batch_size={size}", f"--num_workers={size % 3}", "--policy.dropout=0.5")
        )
        assert found == pytest.approx(expected, rel=1e-6)
    with torch.no_grad():
        parts = [run.prepare(run.dataset.batch(HELD_OUT[k : k + 5])) for k in (0, 5, 10)]
        naive = sum(run.policy(part)[0].item() * len(part["index"]) for part in parts) / 13
    assert naive != pytest.approx(expected, rel=1e-4), "this data would not show a difference"


def test_processes_look_at_parts_and_agree(opened):
    """Three processes for four batches: each gets two, two of which are fillers that count nothing."""
    whole = validate(opened("--batch_size=4"))

    class Together(World):
        """Adds up in lockstep with the others."""

        def add_up(self, value):
            sums.setdefault(self.rank, []).append(value.clone())
            turn = len(sums[self.rank])
            barrier.wait(20)
            total = sum(sums[rank][turn - 1] for rank in range(3))
            barrier.wait(20)
            return total

    sums, barrier, rows, seen = {}, threading.Barrier(3), {}, {}

    def work(run, rank):
        run.world = Together(rank, 3, 0, torch.device("cpu"))
        seen[rank] = [
            b["index"][b.get("loss_weight", torch.ones(len(b["index"]))) > 0].tolist()
            for b in held_out_batches(run)
        ]
        rows[rank] = validate(run)

    runs = [opened("--batch_size=4", "--num_workers=0") for _ in range(3)]
    threads = [threading.Thread(target=work, args=(run, rank)) for rank, run in enumerate(runs)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [len(seen[rank]) for rank in range(3)] == [2, 2, 2]
    assert sorted(sum((sum(seen[rank], []) for rank in range(3)), [])) == HELD_OUT
    for rank in range(3):
        assert rows[rank] == pytest.approx(whole, rel=1e-6)


def test_every_task_has_a_loss_of_its_own(opened):
    run = opened("--batch_size=4")
    row = validate(run)
    assert set(row) == {"eval/loss", "eval/loss_of_task/pull", "eval/loss_of_task/push"}
    for name, items in (("pull", HELD_OUT[:2]), ("push", HELD_OUT[2:])):
        batch = run.prepare(run.dataset.batch(items))
        with torch.no_grad():
            _, info = run.policy(batch)
        assert row[f"eval/loss_of_task/{name}"] == pytest.approx(info["item_losses"].mean().item(), rel=1e-5)


def test_every_dataset_has_a_loss_of_its_own(flags, tmp_path):
    for name in "ab":
        make_dataset(tmp_path / name, episodes=2, scale=1 if name == "a" else 10)
    words = ["--dataset.repo_id=[me/a,me/b]", f"--dataset.root=[{tmp_path / 'a'},{tmp_path / 'b'}]"]
    words += ["--dataset.eval_split=0.4", "--eval_steps=2", "--steps=2"]
    train(flags(tmp_path / "run", *words))
    row = next(row for row in read_metrics(tmp_path / "run" / METRICS_FILE) if "eval/loss" in row)
    losses = [row[f"eval/loss_of_dataset/me/{name}"] for name in "ab"]
    assert min(losses) < row["eval/loss"] < max(losses)
    assert not any("loss_of_task" in name for name in row)  # both have the same one


def test_it_moves_no_random_numbers_and_finds_the_same_twice(opened):
    run = opened("--batch_size=4")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = validate(run)
    assert torch.equal(torch.rand(2), expected)
    assert validate(run) == first
    assert run.meter.read() == {}


def test_some_frames_are_the_same_every_time(opened):
    run = opened("--batch_size=4", "--max_eval_samples=6")
    seen = [sum((b["index"].tolist() for b in held_out_batches(run)), []) for _ in range(2)]
    assert seen[0] == seen[1] and len(set(seen[0])) == 6 and set(seen[0]) < set(HELD_OUT)


@pytest.mark.parametrize("num_threads", [0, 3])
def test_reading_ahead_keeps_the_order(num_threads):
    names = set()

    def read(wanted):
        names.add(threading.current_thread().name.split("_")[0])
        return {"index": list(wanted)}

    jobs = [[k] for k in range(20)]
    found = [batch["index"] for batch in read_ahead(read, jobs, num_threads=num_threads, ahead=4)]
    assert found == jobs and names == ({"validation"} if num_threads else {"MainThread"})


def test_an_error_while_reading_is_raised():
    def read(wanted):
        raise OSError("cannot be read")

    with pytest.raises(OSError, match="cannot be read"):
        list(read_ahead(read, [[1], [2]], num_threads=2, ahead=1))
