"""Several processes train together: each frame counts once, steps are those of one with the large batch."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from lerobot.core import keys
from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.errors import LostConnectionError
from lerobot.core.flags import parse
from lerobot.distributed.world import joined
from lerobot.evaluation.config import EvalConfig
from lerobot.scripts.convert_dcp import convert_dcp
from lerobot.scripts.train import main, train
from lerobot.training.checkpoints.shards import acting_policy
from lerobot.training.config import TrainConfig, complete
from lerobot.training.evaluations.validation import evaluate_here, validation_loss
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.run import Run, start
from lerobot.training.step import update
from lerobot.training.transfer import to_device
from tests.fakes.processes import server, together
from tests.fakes.walk import WalkConfig, Walker, pipelines
from tests.training.conftest import TINY_ACT, make_dataset

pytestmark = pytest.mark.slow
FRAMES = 35
THRICE = "--gradient_accumulation_steps=3"
STILL = ["--policy.use_vae=false", "--policy.dropout=0"]  # nothing random: the same whoever computes it


@pytest.fixture(scope="module")
def odd_datasets(tmp_path_factory):
    """Two datasets of 35 and 21 frames, which no number of processes divides."""
    base = tmp_path_factory.mktemp("odd")
    make_dataset(base / "a", episodes=5, length=7)
    make_dataset(base / "b", episodes=3, length=7, scale=3)
    return base


@pytest.fixture
def odd_flags(odd_datasets):
    def make(output_dir, *more):
        words = [
            "--dataset.repo_id=me/a",
            f"--dataset.root={odd_datasets / 'a'}",
            *TINY_ACT,
            "--num_workers=1",
        ]
        return [*words, f"--output_dir={output_dir}", "--log_freq=1", "--save_freq=0", *more]

    return make


def quietly(words) -> None:
    """A run of this process, by what the command does once flags are understood."""
    train(words)


def config_of(words) -> TrainConfig:
    return parse(TrainConfig, words, program="test", aliases=TRAIN_ALIASES, complete=complete)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints/last/pretrained_model/model.safetensors")


def rows(run: Path, name: str = "loss") -> list[float]:
    return [row[name] for row in read_metrics(run / METRICS_FILE) if name in row]


# ------------------------------------------------------------------------------- the frames of an epoch
def counted_frames(cases: list[tuple[list[str], int]]) -> list[list[list[int]]]:
    """Frames that count in the loss, per case and batch of this process, as the policy gets them."""
    with joined(torch.device("cpu")) as world:
        return [counted(start(config_of(words), world), num_batches) for words, num_batches in cases]


def counted(run: Run, num_batches: int) -> list[list[int]]:
    found = []
    for group in islice(run.batches(), num_batches):
        for batch in group:
            weight = batch.get(keys.LOSS_WEIGHT, torch.ones(len(batch[keys.INDEX])))
            found.append(batch[keys.INDEX][weight > 0].tolist())
        run.step += 1
    return found


@pytest.mark.parametrize(("count", "size"), [(2, 17), (3, 11), (4, 8)])  # last batches of 1, 2 and 3 frames
def test_every_epoch_is_partitioned(odd_flags, odd_datasets, tmp_path, count, size):
    first = odd_flags(tmp_path / "run", f"--batch_size={size}", "--steps=1000")
    mixed = [
        "--dataset.repo_id=[me/a,me/b]",
        f"--dataset.root=[{odd_datasets / 'a'},{odd_datasets / 'b'}]",
        "--dataset.episodes=null",
        "--batch_size=5",
    ]
    per_epoch = -(-56 // (5 * count))
    cases = [
        (first, 4),  # two epochs of two batches
        ([*first, "--dataset.streaming=true", "--dataset.buffer_size=10"], 4),
        ([*first, *mixed], per_epoch),
    ]
    parts = together(count, counted_frames, cases)
    plain, streamed, mixture = ([part[case] for part in parts] for case in range(3))
    for found in (plain, streamed):
        for epoch in (slice(0, 2), slice(2, 4)):
            frames = [frame for part in found for batch in part[epoch] for frame in batch]
            assert sorted(frames) == list(range(FRAMES))
    assert min(len(part[1]) for part in plain) == 0  # somebody had nothing but a filler
    frames = sorted(frame for part in mixture for batch in part for frame in batch)
    assert frames == list(range(56))


# ----------------------------------------------------------------------------------------- the same steps
@pytest.mark.parametrize(
    ("count", "alone", "shared"),
    [
        (2, ["--batch_size=16"], ["--batch_size=8"]),  # the last batch is of 2 and 1 frames
        (3, ["--batch_size=33"], ["--batch_size=11"]),  # ... of 1 and 1, and a filler
        (2, ["--batch_size=16"], ["--batch_size=16", "--batch_size_is=global"]),
        (2, ["--batch_size=6", THRICE], ["--batch_size=3", THRICE]),
        (2, ["--batch_size=16"], ["--batch_size=8", "--parallelism=fsdp"]),
    ],
    ids=["uneven", "filler", "global", "accumulated", "shards"],
)  # fmt: skip
def test_the_steps_are_those_of_one_process(odd_flags, tmp_path, count, alone, shared):
    how = [*STILL, "--steps=4"]  # padded chunks, Adam, and an epoch that ends
    train(odd_flags(tmp_path / "one", *how, *alone))
    together(count, quietly, odd_flags(tmp_path / "all", *how, *shared))
    assert rows(tmp_path / "all") == pytest.approx(rows(tmp_path / "one"), rel=1e-4)
    assert rows(tmp_path / "all", "grad_norm") == pytest.approx(rows(tmp_path / "one", "grad_norm"), rel=1e-3)
    assert rows(tmp_path / "all", "epoch") == rows(tmp_path / "one", "epoch")
    a, b = weights(tmp_path / "one"), weights(tmp_path / "all")
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=2e-4)


def wrappers_at_the_end(words) -> int:
    """How many wrappers still hold the group of processes when it is dissolved."""
    found, dissolve = [], dist.destroy_process_group

    def counted():
        found.append(sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects()))
        dissolve()

    dist.destroy_process_group = counted
    train(words)
    return found[0]


def test_nothing_holds_the_group_of_processes_when_it_is_dissolved(odd_flags, tmp_path):
    """Else Python frees the group, waiting for its thread, which waits for Python: one run in twelve hung."""
    words = odd_flags(tmp_path / "all", *STILL, "--steps=1", "--batch_size=8")
    assert together(2, wrappers_at_the_end, words) == [0, 0]


def test_shards_go_on_with_any_number_of_processes(odd_flags, tmp_path):
    how = [*STILL, "--batch_size=8", "--batch_size_is=global"]
    train(odd_flags(tmp_path / "one", *how, "--steps=4"))
    together(2, quietly, odd_flags(tmp_path / "cut", *how, "--parallelism=fsdp", "--steps=2"))
    checkpoint = tmp_path / "cut/checkpoints/last"
    assert sorted(path.name for path in (checkpoint / "training_state/optimizer_0").iterdir()) == [
        ".metadata", "__0_0.distcp", "__1_0.distcp"
    ]  # fmt: skip
    assert not (checkpoint / "training_state/optimizer_state.safetensors").exists()
    gathered = (checkpoint / "pretrained_model/model.safetensors").read_bytes()
    (checkpoint / "pretrained_model/model.safetensors").unlink()
    convert_dcp([f"--checkpoint_dir={checkpoint}", "--delete_dcp=true"])
    assert (checkpoint / "pretrained_model/model.safetensors").read_bytes() == gathered
    assert not (checkpoint / "pretrained_model/pytorch_model_fsdp_0").exists()
    again = ["--resume=true", f"--output_dir={tmp_path / 'cut'}"]
    together(2, quietly, [*again, "--steps=3"])
    train([*again, "--steps=4"])  # in one piece
    assert rows(tmp_path / "cut") == pytest.approx(rows(tmp_path / "one"), rel=1e-4)


def test_a_run_in_one_piece_goes_on_in_shards(odd_flags, tmp_path):
    how = [*STILL, "--batch_size=8", "--batch_size_is=global"]
    train(odd_flags(tmp_path / "one", *how, "--steps=4"))
    train(odd_flags(tmp_path / "cut", *how, "--steps=2"))
    again = ["--resume=true", f"--output_dir={tmp_path / 'cut'}", "--parallelism=fsdp", "--steps=4"]
    together(2, quietly, again)
    assert rows(tmp_path / "cut") == pytest.approx(rows(tmp_path / "one"), rel=1e-4)


def test_shards_compute_in_half_precision(odd_flags, tmp_path):
    how = [*STILL, "--steps=3", "--batch_size=8", "--batch_size_is=global"]
    train(odd_flags(tmp_path / "one", *how))
    together(2, quietly, odd_flags(tmp_path / "half", *how, "--parallelism=fsdp", "--mixed_precision=bf16"))
    assert rows(tmp_path / "half") == pytest.approx(rows(tmp_path / "one"), rel=0.05)
    assert rows(tmp_path / "half") != rows(tmp_path / "one")
    assert {value.dtype for value in weights(tmp_path / "half").values()} == {torch.float32}


def test_resumed_together_they_go_on_as_if_nothing_had_happened(odd_flags, tmp_path):
    words = [
        "--policy.dropout=0.1",
        "--batch_size=9",
    ]  # random numbers differ per process; two batches an epoch
    together(2, quietly, odd_flags(tmp_path / "whole", *words, "--steps=4"))
    together(2, quietly, odd_flags(tmp_path / "parts", *words, "--steps=1"))
    together(2, quietly, ["--resume=true", f"--output_dir={tmp_path / 'parts'}", "--steps=4"])
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert len(rows(tmp_path / "whole")) == 4 and rows(tmp_path / "whole") == rows(tmp_path / "parts")


# ----------------------------------------------------------------------------------------- when one fails
def lose_one(words: list[str]) -> str:
    """What the first process says when the second one is gone after a step."""
    try:
        with joined(torch.device("cpu")) as world:
            run = start(config_of(words), world)
            for group in run.batches():
                update(run, group)
                run.step += 1
                if not world.is_main:
                    return "gone"
    except LostConnectionError as error:
        return str(error)
    return "never noticed"


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_a_process_that_is_gone_ends_the_others(odd_flags, tmp_path, parallelism):
    words = odd_flags(
        tmp_path / "run", *STILL, "--batch_size=4", "--steps=50", f"--parallelism={parallelism}"
    )
    first, second = together(2, lose_one, words)
    assert second == "gone" and "lost the connection to another process" in first


def command(words: list[str], said: Path) -> None:
    """A process of its own in which a person types lerobot-train."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["lerobot-train", *words]
    main()


def typed(words: list[str], run: Path, said: Path, *, rows_before: int = 0) -> Any:
    """The process of that command, once its run has taken a step."""
    process = server().Process(target=command, args=(words, said))
    process.start()
    deadline = time.monotonic() + 90
    while len(read_metrics(run / METRICS_FILE)) <= rows_before:
        assert time.monotonic() < deadline and process.is_alive(), said.read_text()
        time.sleep(0.05)
    return process


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="no pgrep to find a process's children with")
def test_the_command_starts_stops_and_mourns_its_processes(odd_flags, tmp_path):
    run, said = tmp_path / "run", tmp_path / "said"
    words = odd_flags(run, "--batch_size=4", "--steps=100000", "--num_processes=2")
    process = typed(words, run, said)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    text = said.read_text()
    assert process.exitcode == 0, text
    assert text.count("Stopping after this step") == text.count("--resume=true") == 1
    assert text.count("8 frames a step") == 1 and "error" not in text
    step = json.loads((run / "checkpoints/last/training_state/training_step.json").read_text())
    assert step == {"step": step["step"], "num_processes": 2, "batch_size": 4}

    again = [f"--resume={run}", "--num_processes=2"]
    process = typed(again, run, tmp_path / "again", rows_before=step["step"])
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(max(map(int, found.stdout.split())), signal.SIGKILL)
    process.join(45)
    text = (tmp_path / "again").read_text()
    assert process.exitcode == 1, text
    assert text.count("error:") == 1 and "ended by SIGKILL" in text and "Traceback" not in text


def act_in_shards(words: list[str]) -> list:
    """The chunk that a policy in shards plans, put together for acting."""
    with joined(torch.device("cpu")) as world:
        run = start(config_of(words), world)
        policy = acting_policy(run)
        assert (policy is run.policy) == (world.size == 1)
        batch = run.prepare(to_device(run.dataset.batch([0, 1]), world.device))
        return policy.predict_action_chunk(batch).tolist()


# ----------------------------------------------------------------------------------------- how good it is
def test_a_policy_in_shards_acts_in_one_piece(odd_flags, tmp_path):
    words = odd_flags(tmp_path / "run", *STILL, "--steps=1", "--parallelism=fsdp")
    alone = act_in_shards(words)
    for found in together(2, act_in_shards, words):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(alone))


def losses(cases: list[list[str]]) -> list[float]:
    with joined(torch.device("cpu")) as world:
        return [validation_loss(start(config_of(words), world)) for words in cases]


def test_a_validation_loss_is_that_of_one_process(odd_flags, tmp_path):
    words = odd_flags(
        tmp_path / "run", *STILL, "--dataset.eval_split=0.4", "--batch_size=4", "--steps=1"
    )  # 14 frames
    cases = [
        words,
        [*words, "--parallelism=fsdp"],
        [*words, "--max_eval_samples=5"],
        [*words, "--dataset.streaming=true"],
    ]
    alone = losses(cases)
    assert alone[0] == alone[1] == alone[3] != alone[2]
    assert together(3, losses, cases) == [pytest.approx(alone, rel=1e-6)] * 3


def rolled_out(policy: Walker) -> list[dict]:
    with joined(torch.device("cpu")) as world:
        run = SimpleNamespace(
            cfg=SimpleNamespace(
                env=WalkConfig(), seed=1000, steps=1, rename_map={}, task=None,
                eval=EvalConfig(n_episodes=5, batch_size=1, max_videos=0),
            ),
            world=world, policy=policy, evaluated_policy=policy, processors=pipelines(policy.config),
            output_dir=Path(), step=1, console=SimpleNamespace(console=Console(quiet=True)),
            untimed=lambda name: nullcontext(),
        )  # fmt: skip
        return [vars(episode) for episode in evaluate_here(run).episodes]


def test_episodes_are_shared_and_are_those_of_one_process():
    alone = rolled_out(Walker())
    assert [episode["seed"] for episode in alone] == [1000, 1001, 1002, 1003, 1004]
    assert together(2, rolled_out, Walker()) == [alone, alone]
