"""Whole runs: what they leave behind, that they learn, and that a resumed run takes the very same steps."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from lerobot.datasets import LeRobotDataset
from lerobot.policies.act.policy import ACTPolicy
from lerobot.scripts.eval import evaluate
from lerobot.scripts.train import train
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics

PRETRAINED = {
    "config.json",
    "model.safetensors",
    "train_config.json",
    "policy_preprocessor.json",
    "policy_preprocessor_step_3_normalizer_processor.safetensors",
    "policy_postprocessor.json",
    "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
}


def weights(run, step="last"):
    return load_file(run / "checkpoints" / step / "pretrained_model/model.safetensors")


def assert_same_run(one, other):
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    states = [
        load_file(run / "checkpoints/last/training_state/optimizer_state.safetensors") for run in (one, other)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    rows = [[row["loss"] for row in read_metrics(run / METRICS_FILE)] for run in (one, other)]
    assert rows[0] == rows[1]


def test_a_run_leaves_checkpoints_metrics_and_a_report(flags, tmp_path):
    last = train(flags(tmp_path / "run"))
    run = tmp_path / "run"
    assert last == run / "checkpoints/000006"
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["000003", "000006", "last"]
    assert (run / "checkpoints/last").resolve() == last.resolve()
    assert {p.name for p in (last / "pretrained_model").iterdir()} >= PRETRAINED
    rows = read_metrics(run / METRICS_FILE)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"loss", "l1_loss", "kld_loss", "grad_norm", "lr", "epoch", "samples_per_s"} <= set(rows[0])
    assert list((run / "tensorboard").iterdir())
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())
    assert saved["steps"] == 6 and saved["optimizer"]["lr"] == 1e-3 and "task" not in saved


def test_it_learns(flags, tmp_path):
    train(flags(tmp_path / "run", "--steps=40", "--log_freq=5", "--policy.use_vae=false", "--save_freq=0"))
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / METRICS_FILE)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(flags, tmp_path, workers):
    train(flags(tmp_path / "whole", "--steps=8", "--policy.dropout=0.1"))
    train(flags(tmp_path / "parts", "--steps=5", "--policy.dropout=0.1", "--save_freq=5"))
    config = tmp_path / "parts/checkpoints/last/pretrained_model/train_config.json"
    train(
        [f"--config_path={config}", "--resume=true", "--steps=8", f"--num_workers={workers}", "--save_freq=3"]
    )
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)
    states = [tmp_path / run / "checkpoints/last/training_state" for run in ("whole", "parts")]
    for name in ("optimizer_state.safetensors", "rng_state.safetensors"):
        one, other = (load_file(folder / name) for folder in states)
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_resuming_by_output_dir_and_moving_the_run(flags, tmp_path):
    train(flags(tmp_path / "run", "--steps=3"))
    (tmp_path / "run").rename(tmp_path / "moved")
    last = train(["--resume=true", f"--output_dir={tmp_path / 'moved'}", "--steps=4"])
    assert last == tmp_path / "moved/checkpoints/000004"


def test_evaluations_do_not_change_the_run(flags, tmp_path):
    train(flags(tmp_path / "plain", "--dataset.eval_split=0.3"))
    train(flags(tmp_path / "validated", "--dataset.eval_split=0.3", "--eval_steps=2"))
    a, b = weights(tmp_path / "plain"), weights(tmp_path / "validated")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [r["step"] for r in read_metrics(tmp_path / "validated" / METRICS_FILE) if "eval/loss" in r] == [
        2,
        4,
        6,
    ]


def test_fine_tuning_starts_from_the_weights_and_takes_the_new_statistics(flags, tmp_path):
    train(flags(tmp_path / "first"))
    flags_without_type = [f for f in flags(tmp_path / "second", "--steps=1") if not f.startswith("--policy.")]
    train(
        [
            *flags_without_type,
            f"--policy.path={tmp_path / 'first'}",
            "--policy.optimizer_lr=0",
            "--policy.device=cpu",
            "--policy.optimizer_lr_backbone=0",
            "--policy.optimizer_weight_decay=0",
        ]
    )
    a, b = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_trained_policy_acts_on_raw_observations(flags, tmp_path, small_dataset):
    last = train(flags(tmp_path / "run"))
    policy = ACTPolicy.from_pretrained(last)
    item = LeRobotDataset("local/small", root=small_dataset)[0]
    action = policy.select_action(item["observation"])
    assert action.shape[-1] == 3 and torch.isfinite(action).all()
    policy.reset()
    assert torch.allclose(
        policy.select_action({k: v for k, v in item.items() if k.startswith("obs")}), action
    )


def test_accumulated_micro_batches_and_other_options_run(flags, tmp_path):
    options = ["--gradient_accumulation_steps=2", "--mixed_precision=true", "--grad_checkpointing=true"]
    options += [
        "--lr_scheduler=true",
        "--task=put it in",
        "--policy.input_shapes.observation.images.top=[3,40,48]",
    ]
    last = train(flags(tmp_path / "run", *options))
    config = json.loads((last / "pretrained_model/config.json").read_text())
    assert config["input_features"]["observation.images.top"]["shape"] == [3, 40, 48]
    pre = json.loads((last / "pretrained_model/policy_preprocessor.json").read_text())
    assert "resize_images_processor" in [step["registry_name"] for step in pre["steps"]]
    assert read_metrics(tmp_path / "run" / METRICS_FILE)[-1]["epoch"] == pytest.approx(6 * 8 / 36)


def test_epochs_instead_of_steps(flags, tmp_path):
    last = train(flags(tmp_path / "run", "--policy.num_epochs=1", "--batch_size=16"))
    assert last.name == "000003"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_says_how_to_go_on(flags, tmp_path, number):
    words = flags(tmp_path / "run", "--steps=100000", "--save_freq=0", "--log_freq=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "lerobot.scripts.train", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    metrics, deadline = tmp_path / "run" / METRICS_FILE, time.monotonic() + 60
    while not metrics.exists() or not metrics.read_text():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    command = next(line for line in said.splitlines() if "--resume=true" in line).split()[1:]
    step = int(
        json.loads((tmp_path / "run/checkpoints/last/training_state/training_step.json").read_text())["step"]
    )
    assert train([*command, f"--steps={step + 1}"]).name == f"{step + 1:06d}"


def test_the_command_it_suggests_next_works_as_printed(flags, tmp_path, capsys):
    train(flags(tmp_path / "run", "--steps=1"))
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("next"))
    words = shlex.split(line)[2:]
    result = evaluate([*words, "--policy.device=cpu", f"--output_dir={tmp_path / 'eval'}"])
    assert result.overall["n_frames"] == 36
