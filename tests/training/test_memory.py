"""Memory told before the first step: measured without a trace, near the truth; and when it runs out."""

import json
import os
import random
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lerobot.core import keys
from lerobot.core.errors import ConfigError, TrainingError
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.train import train
from lerobot.training.gauges import capacity, preflight
from lerobot.training.gauges.memory import Activations, measure_activations, repeated, state_bytes
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from tests.training.conftest import make_dataset

ROOT = Path(__file__).parents[2]
MIB = 1024**2


def item() -> dict:
    return {
        keys.STATE: torch.rand(1, 3),
        keys.IMAGES_PREFIX + "top": torch.rand(1, 3, 32, 32),
        keys.ACTION: torch.rand(1, 4, 2),
        keys.ACTION + keys.PAD_SUFFIX: torch.zeros(1, 4, dtype=torch.bool),
        "task": ["pick"],
    }


class WithBuffers(nn.Module):
    """A policy whose forward pass moves buffers, draws random numbers and keeps a known amount."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1000)

    def forward(self, batch):
        random.random()
        np.random.random()
        noisy = self.norm(batch["x"]) + torch.randn_like(batch["x"])  # (B, 1000)
        return noisy.exp().sum(), {}


def test_measuring_leaves_no_trace():
    policy = WithBuffers().eval()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    batch = {"x": torch.rand(1, 1000)}
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    measure_activations(policy, batch)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2]) and not policy.training
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_what_is_counted_is_what_autograd_keeps():
    """The input of the norm, and the result of the exponential: 1000 float32 each."""
    found = measure_activations(WithBuffers(), {"x": torch.rand(1, 1000)})
    assert (
        found.per_item == 8000 and found.largest == 4000 and found.fixed == 8000
    )  # mean and 1/std of the norm
    assert found.of(10) == 8000 + 10 * 12_000


@pytest.mark.slow  # torch loads much at the first use of it
def test_recomputed_layers_keep_less():
    policy = ACTPolicy(ACTConfig.tiny())
    plain = measure_activations(policy, item())
    policy.enable_grad_checkpointing()
    assert measure_activations(policy, item()).per_item < plain.per_item


def test_a_repeated_item_is_a_batch():
    batch = repeated(item(), 3)
    assert batch["action"].shape == (3, 4, 2) and batch["task"] == ["pick"] * 3
    assert torch.equal(batch["action"][0], batch["action"][2])


@pytest.mark.parametrize(
    ("kind", "more", "bytes_each"),
    [("AdamW", {}, 8), ("AdamW", {"fused": True}, 8), ("AdamW", {"amsgrad": True}, 12), ("SGD", {}, 0)]
    + [("SGD", {"momentum": 0.9}, 4)],
)
def test_the_state_of_an_optimizer_is_known_before_its_first_step(kind, more, bytes_each):
    weight = nn.Parameter(torch.ones(50_000))
    optimizer = getattr(torch.optim, kind)([weight], lr=0.1, **more)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # puts itself in the place of `step`
    assert state_bytes(optimizer) == 50_000 * bytes_each
    assert not optimizer.state and (weight == 1).all()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert state_bytes(optimizer) == pytest.approx(50_000 * bytes_each, abs=8)


PREDICT = """
import json, sys
import torch
from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.flags import parse
from lerobot.distributed.world import World
from lerobot.training.gauges.capacity import peak_bytes
from lerobot.training.config import TrainConfig, complete
from lerobot.training.gauges.preflight import preflight
from lerobot.training.run import start
from lerobot.training.step import update

cfg = parse(TrainConfig, sys.argv[1:], program="predict", aliases=TRAIN_ALIASES, complete=complete)
run = start(cfg, World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))
found = preflight(run, is_measured=True)
for group in run.batches():
    update(run, group)
    run.step += 1
print(json.dumps({"predicted": found.total, "used": peak_bytes(torch.device("cpu"))}))
"""


def predict(words: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["tiny", "published"])
def test_what_is_told_is_near_what_is_used(which, flags, tmp_path):
    root = make_dataset(tmp_path / "data", episodes=1, size=192)
    words = flags(tmp_path / "run", f"--dataset.root={root}", "--steps=2", "--batch_size=8")
    if which == "published":
        kept = ("--policy.type", "--policy.device", "--policy.pretrained_backbone_weights")
        words = [word for word in words if not word.startswith("--policy.") or word.startswith(kept)]
    found = predict(words)
    assert found["predicted"] == pytest.approx(found["used"], rel=0.2)


# ---------------------------------------------------------------------------------- auto
def free_memory(monkeypatch, size: int) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda device: size)


def test_auto_takes_all_frames_where_they_fit_and_is_saved_as_a_number(flags, tmp_path):
    words = [word for word in flags(tmp_path / "auto", "--steps=2") if not word.startswith("--batch_size")]
    last = train([*words, "--batch_size=auto"])
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())
    assert saved["batch_size"] == 36 and "auto_batch_size" not in saved
    train([word.replace("/auto", "/plain") for word in words] + ["--batch_size=36"])
    rows = [[row["loss"] for row in read_metrics(tmp_path / run / METRICS_FILE)] for run in ("auto", "plain")]
    assert rows[0] == rows[1]  # finding it has moved nothing


def test_auto_follows_the_memory_and_sets_the_steps_of_an_epoch(flags, tmp_path, monkeypatch, caplog):
    words = [word for word in flags(tmp_path / "run") if not word.startswith(("--batch_size", "--steps"))]
    monkeypatch.setattr(preflight, "used_bytes", lambda device: 500 * MIB)
    monkeypatch.setattr(preflight, "state_bytes", lambda optimizer: 0)
    monkeypatch.setattr(preflight, "batch_bytes", lambda cfg, device: 2 * MIB)
    monkeypatch.setattr("lerobot.training.gauges.batch_size.batch_bytes", lambda cfg, device: 2 * MIB)
    monkeypatch.setattr(
        "lerobot.training.gauges.batch_size.measured",
        lambda run: Activations(fixed=0.0, per_item=7 * MIB, largest=1 * MIB),
    )
    free_memory(monkeypatch, 250 * MIB)  # 0.8 of 750 MiB, less 500 and gradients of 19, over 10 each
    last = train([*words, "--batch_size=auto", "--num_epochs=2", "--lr_scheduler=true"])
    size = json.loads((last / "pretrained_model/train_config.json").read_text())["batch_size"]
    assert size == 8 and last.name == "000010"  # 2 epochs of 36 frames
    assert any("--batch_size=auto: 8 items" in record.message for record in caplog.records)


def test_auto_where_not_even_one_item_fits(flags, tmp_path, monkeypatch):
    free_memory(monkeypatch, 0)
    words = [word for word in flags(tmp_path / "run") if not word.startswith("--batch_size")]
    with pytest.raises(TrainingError, match=r"one item needs .* Try --mixed_precision"):
        train([*words, "--batch_size=auto"])


def test_a_batch_size_that_is_no_number(flags, tmp_path):
    with pytest.raises(ConfigError, match="batch_size=many"):
        train(flags(tmp_path / "run", "--batch_size=many"))


# ---------------------------------------------------------------------------------- too little
def test_the_header_warns_with_flags_and_their_effect(flags, tmp_path, monkeypatch, capsys):
    free_memory(monkeypatch, 0)
    train(flags(tmp_path / "run", "--steps=1", "--save_checkpoint=false"))
    said = capsys.readouterr().err
    assert "this does not fit" in said and "activations" in said


def run_short_of_memory(words: list[str], *, spare: int) -> subprocess.CompletedProcess:
    """A training with so many bytes of addresses beyond what Python and torch take: `ulimit -v`."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))"
    probe = "import torch, lerobot.training.loop; print(open('/proc/self/statm').read().split()[0])"
    pages = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True
    )
    size = int(pages.stdout) * resource.getpagesize() + spare
    start = f"{limit.format(size)}; from lerobot.scripts.train import main; main()"
    env = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return subprocess.run(
        [sys.executable, "-c", start, *words], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux to limit memory")
def test_memory_that_runs_out_is_one_message_and_the_checkpoint_stays(flags, tmp_path):
    root = make_dataset(tmp_path / "data", size=256)
    train(flags(tmp_path / "run", f"--dataset.root={root}", "--steps=2", "--batch_size=2", "--num_workers=0"))
    before = (tmp_path / "run/checkpoints/last").resolve()
    words = ["--resume=true", f"--output_dir={tmp_path / 'run'}", "--steps=9", "--batch_size=36"]
    done = run_short_of_memory(words, spare=500 * MIB)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    said = done.stderr[done.stderr.index("error: ") :]
    assert "is used up" in said and "step 3" in said and "GiB" in said
    tried = [line.strip() for line in said.splitlines() if line.strip().startswith("--")]
    assert len(tried) == 3 and all("less" in line for line in tried)
    assert f"{before} is unharmed" in said
    command = next(line for line in said.splitlines() if "Go on from it" in line).partition("it: ")[2]
    go_on = [*shlex.split(command)[1:-1], "--steps=3", "--batch_size=2"]
    assert train(go_on).name == "000003"


def test_a_policy_that_does_not_fit_at_all(flags, tmp_path, monkeypatch):
    def no_room(*args, **how):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("lerobot.training.run.make_policy", no_room)
    with pytest.raises(TrainingError, match="does not fit into the memory of cpu with .* --parallelism=fsdp"):
        train(flags(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."
        ),
    ],
)
def test_all_ways_of_saying_it_are_understood(error):
    assert capacity.is_shortage(error)


def test_what_may_mean_it_is_believed_where_memory_is_scarce(monkeypatch):
    error = RuntimeError("could not create a primitive")  # all that oneDNN says
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 10 * MIB)
    assert capacity.is_shortage(error)
    monkeypatch.setattr(capacity, "free_bytes", lambda device: 10_000 * MIB)
    assert not capacity.is_shortage(error)


def test_other_errors_pass(flags, tmp_path, monkeypatch):
    assert not capacity.is_shortage(RuntimeError("shapes do not fit"))
    monkeypatch.setattr(
        ACTPolicy, "forward", lambda self, batch, **how: (_ for _ in ()).throw(ValueError("x"))
    )
    with pytest.raises(ValueError, match="^x$"):
        train(flags(tmp_path / "run"))


def test_sizes_are_readable_and_the_machine_says_what_it_has():
    said = [capacity.readable_bytes(size) for size in (2048, 18 * MIB, 3.14 * 1024 * MIB)]
    assert said == ["2 KiB", "18 MiB", "3.1 GiB"]
    device = torch.device("cpu")
    used, peak, free, total = (
        getattr(capacity, f"{name}_bytes")(device) for name in ("used", "peak", "free", "total")
    )
    assert 0 < used <= peak * 1.01 and free > 0 and total == pytest.approx(used + free, rel=0.05)
