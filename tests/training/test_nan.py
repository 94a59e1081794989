"""A loss or gradient that is no number: the step is not made, and its batch is kept to look at again."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lerobot.core.errors import CheckpointError, TrainingError
from lerobot.distributed.world import World
from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training.gauges.guard import Guard
from lerobot.training.gauges.nan import reproduce
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from tests.training.conftest import make_dataset
from tests.training.test_mistakes import spoiled

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def spoiled_dataset(tmp_path_factory):
    """Frame 5 has an action that is no number; frames 2 to 5 bring it along in their chunks of four."""
    return spoiled(make_dataset(tmp_path_factory.mktemp("data") / "spoiled"))


def step_of(weight: nn.Parameter, guard: Guard, number: int, *, loss: float = 1.0, grad: float = 1.0):
    weight.grad = torch.full_like(weight, grad)
    guard.expect(number, [])
    return guard.step(loss=torch.tensor(loss), grad_norm=weight.grad.norm())


def guarded(kind, *, on_nan: str, is_late: bool) -> tuple[nn.Parameter, Guard]:
    weight = nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.1, fused=is_late)
    return weight, Guard(optimizer, world=ALONE, on_nan=on_nan, is_late=is_late)


BAD = [{"loss": NAN}, {"grad": INF}, {"grad": NAN}, {"loss": INF, "grad": 0.0}]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_bad_step_moves_neither_weights_nor_state(kind, bad, is_late):
    """Also by a fused optimizer, which is told on the device."""
    (weight, guard), (plain, other) = (guarded(kind, on_nan="skip", is_late=is_late) for _ in range(2))
    for number in (1, 2):
        step_of(weight, guard, number)
        step_of(plain, other, number)
    step_of(weight, guard, 3, **bad)
    step_of(weight, guard, 4)
    step_of(plain, other, 4)
    assert torch.equal(weight, plain) and torch.isfinite(weight).all()


def test_flags_are_read_two_steps_late_and_all_of_them_in_the_end():
    weight, guard = guarded(torch.optim.AdamW, on_nan="skip", is_late=True)
    found = [step_of(weight, guard, n, loss=NAN if n in (2, 4, 5) else 1.0) for n in range(1, 6)]
    assert [[one.step for one in late] for late in found] == [[], [], [], [2], []]
    assert [one.step for one in guard.settle()] == [4, 5] and guard.settle() == []


def test_to_stop_means_that_later_steps_are_not_made_either():
    """The weights are those before the bad step when the host hears of it."""
    weight, guard = guarded(torch.optim.AdamW, on_nan="stop", is_late=True)
    step_of(weight, guard, 1)
    before = weight.detach().clone()
    found = [step_of(weight, guard, n, loss=NAN if n == 2 else 1.0) for n in range(2, 5)]
    assert [one.step for one in found[-1]] == [2] and not any(found[:-1])
    assert torch.equal(weight, before) and guard.settle() == []


class Overflows:
    """A loss scaler that overflows in every step."""

    def __init__(self) -> None:
        self.factor, self.updates = 8.0, 0

    def step(self, optimizer) -> None:
        """Leaves the step out, as one does whose gradients are infinite."""

    def update(self) -> None:
        self.factor, self.updates = self.factor / 2, self.updates + 1

    def get_scale(self) -> float:
        return self.factor


@pytest.mark.parametrize(("loss", "num_bad"), [(1.0, 0), (NAN, 1)])
def test_an_overflow_of_float16_is_no_bad_step_but_a_loss_is(loss, num_bad):
    weight, guard = guarded(torch.optim.SGD, on_nan="stop", is_late=False)
    guard.scaler = Overflows()
    assert len(step_of(weight, guard, 1, loss=loss, grad=INF)) == num_bad
    assert guard.scaler.updates == 1  # in either case: the scaler looks at new gradients next time
    assert guard.overflowed == (num_bad == 0)


# ---------------------------------------------------------------------------------- whole runs
def test_stop_keeps_what_shows_it_again(flags, tmp_path, spoiled_dataset):
    words = flags(tmp_path / "run", f"--dataset.root={spoiled_dataset}", "--policy.dropout=0.1", "--steps=9")
    with pytest.raises(TrainingError, match="The loss became nan in step") as said:
        train(words)
    (about_path,) = (tmp_path / "run/nan").glob("*.json")
    about = json.loads(about_path.read_text())
    named = {frame for frame in about["frames"][0] if 2 <= frame <= 5}
    assert named and all(str(frame) in about["causes"][0] for frame in named)
    assert "'action' is NaN or infinite" in str(said.value) and "--on_nan=skip" in str(said.value)
    weights = load_file(about_path.with_suffix("") / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    before = torch.get_rng_state()
    text = reproduce(about_path)
    torch.set_rng_state(before)
    assert "loss nan" in text and "gradients are no numbers" in text
    assert "first module that gives no numbers: model.vae_encoder_action_input_proj" in text


@pytest.mark.slow
def test_the_printed_command_repeats_the_step(flags, tmp_path, spoiled_dataset):
    words = flags(tmp_path / "run", f"--dataset.root={spoiled_dataset}", "--steps=9")
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.train", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = next(line for line in done.stderr.splitlines() if "To see it again:" in line)
    command = shlex.split(line.partition("again:")[2])
    again = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "loss nan" in again.stdout


def test_skip_goes_on_and_counts(flags, tmp_path, spoiled_dataset, caplog):
    words = flags(tmp_path / "run", f"--dataset.root={spoiled_dataset}", "--steps=12", "--on_nan=skip")
    train(words)
    rows = read_metrics(tmp_path / "run" / METRICS_FILE)
    bad = [record for record in caplog.records if "so that step was not made" in record.message]
    assert rows[-1]["skipped_steps"] == len(bad) > 0
    assert all(abs(row["loss"]) < INF for row in rows if "loss" in row)
    weights = load_file(tmp_path / "run/checkpoints/last/pretrained_model/model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    files = list((tmp_path / "run/nan").iterdir())
    assert not any(path.is_dir() for path in files)  # batches alone
    with pytest.raises(CheckpointError, match=r"no weights|missing|holds|is no"):
        reproduce(tmp_path / "run/nan/step_000099.json")


def test_a_gradient_that_is_infinite_though_the_loss_is_not(flags, tmp_path, monkeypatch):
    """The slope of a square root at zero."""
    forward, calls = ACTPolicy.forward, []

    def steep(self, batch, **how):
        loss, info = forward(self, batch, **how)
        calls.append(1)
        zero = (loss - loss.detach()) if len(calls) == 3 else loss.detach() * 0
        return loss + zero.sqrt() if len(calls) == 3 else loss, info

    monkeypatch.setattr(ACTPolicy, "forward", steep)
    with pytest.raises(TrainingError, match=r"The gradient became (infinite|NaN) in step 3"):
        train(flags(tmp_path / "run"))
    assert (tmp_path / "run/nan/step_000003.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_stop_together(flags, tmp_path, spoiled_dataset):
    """Only one of them has the bad frame; none waits for the other for ever."""
    words = flags(tmp_path / "run", f"--dataset.root={spoiled_dataset}", "--steps=9", "--batch_size=2")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "lerobot.scripts.train", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 1 and done.stderr.count("error: The loss became nan") == 1, done.stderr
    assert "'action' is NaN or infinite in the item" in done.stderr
