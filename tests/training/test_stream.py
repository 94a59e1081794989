"""`--dataset.streaming=true`: an epoch sees every frame, processes share it, a resumed run goes on."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.errors import ConfigError
from lerobot.core.flags import read_flags, tree_of
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.distributed.world import World
from lerobot.scripts.train import train
from lerobot.training.checkpoints.state import restore_state
from lerobot.training.config import TrainConfig, complete
from lerobot.training.evaluations.validation import validation_loss
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.run import start
from lerobot.training.sampling.data import Position
from lerobot.training.sampling.stream import StreamLoader

ROOT = Path(__file__).parents[2]
STREAMING = "--dataset.streaming=true"
SIZE = 36  # frames of the small dataset


def opened(words, *, rank=0, size=1):
    tree = tree_of(read_flags(words), aliases=TRAIN_ALIASES, complete=complete)
    return start(
        decode(TrainConfig, tree), World(rank=rank, size=size, local_rank=0, device=torch.device("cpu"))
    )


def loader(root, *, batch_size=4, at=None, **how):
    dataset = StreamingLeRobotDataset("local/small", root=root, buffer_size=8, max_num_shards=3, **how)
    made = StreamLoader(dataset, batch_size=batch_size, prefetch=1)
    if at is not None:
        made.start = at
    return made


def first(stream, count):
    batches = iter(stream)
    taken = [next(batches)["index"].tolist() for _ in range(count)]
    batches.close()
    return taken


# ------------------------------------------------------------------------------------------------- runs
@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_epoch_of_a_real_run_sees_every_frame(flags, tmp_path, num_workers):
    words = flags(
        tmp_path / "run", STREAMING, "--num_epochs=1", f"--num_workers={num_workers}", "--log_freq=3"
    )
    run = opened(words)
    seen = []
    for (batch,) in run.batches():
        assert batch["observation.images.top"].dtype == torch.float32 and len(batch["task"]) == len(
            batch["index"]
        )
        seen += batch["index"].tolist()
        run.step += 1
    assert run.cfg.steps == 9 and sorted(seen) == list(range(SIZE)) and seen != sorted(seen)
    last = train(words)
    rows = read_metrics(last.parents[1] / METRICS_FILE)
    assert [row["step"] for row in rows] == [3, 6, 9] and rows[-1]["epoch"] == 1.0
    assert all(0 < row["loss"] < 100 for row in rows)


@pytest.mark.slow
def test_the_command_says_that_it_streams(flags, tmp_path):
    command = [sys.executable, "-m", "lerobot.scripts.train"]
    done = subprocess.run(
        [*command, *flags(tmp_path / "run", STREAMING, "--steps=2", "--dataset.buffer_size=20")],
        cwd=ROOT, env=os.environ, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mixed in a buffer of 20 frames" in done.stdout + done.stderr


def test_a_resumed_run_takes_the_steps_it_would_have_taken(flags, tmp_path):
    whole = train(flags(tmp_path / "whole", STREAMING, "--steps=8", "--save_freq=8"))
    part = train(flags(tmp_path / "part", STREAMING, "--steps=3", "--save_freq=3"))
    config = part / "pretrained_model/train_config.json"
    resumed = train([f"--config_path={config}", "--resume=true", "--steps=8"])
    one, two = (load_file(folder / "pretrained_model/model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_another_number_of_processes_begins_the_epoch_anew_and_says_so(flags, tmp_path, caplog):
    saved = train(flags(tmp_path / "run", STREAMING, "--steps=3", "--save_freq=3"))
    config = saved / "pretrained_model/train_config.json"
    words = [f"--config_path={config}", "--resume=true", "--steps=6"]
    same = opened(words)
    restore_state(same)
    assert (same.loader.start.epoch, same.loader.start.offset) == (0, 12)
    run = opened(words)
    run.loader.num_ranks = 2
    with caplog.at_level(logging.WARNING):
        restore_state(run)
    assert (run.loader.start.epoch, run.loader.start.offset) == (0, 0)
    assert "saved by 1 processes and goes on with 2" in caplog.text


def test_held_out_episodes_are_streamed_for_the_validation_loss(flags, tmp_path):
    more = ["--dataset.eval_split=0.3", "--eval_steps=3", "--policy.use_vae=false"]
    rows = read_metrics(train(flags(tmp_path / "run", STREAMING, *more)).parents[1] / METRICS_FILE)
    assert [row["step"] for row in rows if "eval/loss" in row] == [3, 6]
    streamed = opened(flags(tmp_path / "a", STREAMING, *more))
    whole = opened(flags(tmp_path / "b", *more))
    assert validation_loss(streamed) == pytest.approx(validation_loss(whole), rel=1e-5)
    seen = set()
    for (batch,) in streamed.batches():
        seen |= set(batch["index"].tolist())
        streamed.step += 1
    assert seen == set(range(24))  # the last of the three episodes is held out


def test_some_held_out_frames_are_the_same_every_time(flags, tmp_path):
    more = ["--dataset.eval_split=0.3", "--eval_steps=3", "--policy.use_vae=false", "--max_eval_samples=6"]
    run = opened(flags(tmp_path / "a", STREAMING, *more))
    assert validation_loss(run) == validation_loss(run)
    whole = opened(flags(tmp_path / "b", STREAMING, *more[:3]))
    assert validation_loss(run) != validation_loss(whole)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset.cache=ram"], "streaming=true and cache"),
        (["--dataset.repo_id=[a,b]", "--dataset.root=null"], "streaming=true and several datasets"),
        (["--loader_workers=processes"], "leave out --loader_workers=processes"),
        (["--dataset.buffer_size=0"], "buffer_size=0: expected at least 1"),
        (["--dataset.episodes=[9]"], "episode 9 does not exist"),
    ],
)
def test_what_does_not_stream_is_refused(flags, tmp_path, words, said):
    with pytest.raises((ConfigError, ValueError), match=said):
        opened(flags(tmp_path / "run", STREAMING, *words))
    assert not (tmp_path / "run").exists()


def test_more_processes_than_frames_are_refused(flags, tmp_path):
    with pytest.raises(ConfigError, match="12 frames are left to train on, for 20 processes"):
        opened(flags(tmp_path / "run", STREAMING, "--dataset.episodes=[1]"), size=20)


# ----------------------------------------------------------------------------------------------- loader
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
def test_processes_stay_in_step_and_miss_no_frame(small_dataset, num_ranks, batch_size):
    per_epoch = -(-SIZE // (batch_size * num_ranks))
    epochs = [set(), set()]
    for rank in range(num_ranks):
        stream = loader(small_dataset, batch_size=batch_size, rank=rank, num_ranks=num_ranks)
        batches = first(stream, 2 * per_epoch)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        for k in range(2):
            frames = sum(batches[k * per_epoch : (k + 1) * per_epoch], [])
            assert len(set(frames)) == len(stream.dataset)
            assert not epochs[k] & set(frames)
            epochs[k] |= set(frames)
        assert stream.position(2 * per_epoch) == Position(seed=42, epoch=2, frames_per_epoch=SIZE)
    assert epochs == [set(range(SIZE))] * 2


@pytest.mark.parametrize("done", [0, 1, 4, 8, 9, 13])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_loader_started_later_goes_on(small_dataset, done, num_ranks):
    for rank in range(num_ranks):
        how = {"rank": rank, "num_ranks": num_ranks}
        whole = loader(small_dataset, **how)
        assert (
            first(loader(small_dataset, at=whole.position(done), **how), 6) == first(whole, done + 6)[done:]
        )


def test_errors_reach_the_training_loop(small_dataset, tmp_path):
    root = Path(shutil.copytree(small_dataset, tmp_path / "broken"))
    next(root.rglob("*.mp4")).write_bytes(b"no video")
    with pytest.raises(ValueError, match="file-000.mp4 is not a video"):
        first(loader(root), 1)


DISTRIBUTED = """
import json, sys
from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.flags import parse
from lerobot.distributed.world import joined
from lerobot.training.config import TrainConfig, complete
from lerobot.training.run import start
import torch

def main():  # nothing of the run outlives it: gloo's thread must not touch a tensor while Python ends
    cfg = parse(TrainConfig, sys.argv[2:], program="epoch", aliases=TRAIN_ALIASES, complete=complete)
    with joined(torch.device("cpu")) as world:
        run = start(cfg, world)
        seen = []
        for (batch,) in run.batches():
            seen += batch["index"].tolist()
            run.step += 1
        parts = world.gather(seen)
        if world.is_main:
            open(sys.argv[1], "w").write(json.dumps(parts))

main()
"""


@pytest.mark.slow
def test_two_processes_share_an_epoch(flags, tmp_path):
    (tmp_path / "epoch.py").write_text(DISTRIBUTED)
    words = flags(tmp_path / "run", STREAMING, "--num_epochs=1", "--batch_size=3")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(tmp_path / "epoch.py"), str(tmp_path / "seen.json"), *words],
        cwd=ROOT, env=env, text=True, capture_output=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = json.loads((tmp_path / "seen.json").read_text())
    assert len(one) == len(two) == SIZE / 2 and sorted(one + two) == list(range(SIZE))
