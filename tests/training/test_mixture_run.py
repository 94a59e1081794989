"""Runs on several datasets: shares, renamed cameras, statistics per dataset, held-out episodes."""

import json

import numpy as np
import pytest
import torch

from lerobot.core.errors import ConfigError, DatasetError, FeatureMismatchError
from lerobot.datasets import LeRobotDataset
from lerobot.distributed.world import World
from lerobot.policies.build import make_pre_post_processors
from lerobot.scripts.train import train
from lerobot.training.config import load_train_config
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.run import start
from lerobot.training.transfer import to_device
from tests.training.conftest import TINY_ACT, make_dataset


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two datasets; the second one's joints move ten times as far."""
    base = tmp_path_factory.mktemp("two")
    make_dataset(base / "a", episodes=2)
    make_dataset(base / "b", episodes=3, scale=10)
    return base


@pytest.fixture
def flags(two):
    def make(output_dir, *more):
        words = ["--dataset.repo_id=[me/a,me/b]", f"--dataset.root=[{two / 'a'},{two / 'b'}]"]
        words += [f"--output_dir={output_dir}", *TINY_ACT, "--batch_size=4", "--num_workers=2", "--steps=4"]
        return [*words, "--log_freq=2", "--save_freq=2", *more]

    return make


def test_a_mixture_trains_and_resumes(flags, tmp_path):
    train(flags(tmp_path / "whole", "--dataset.weights=[0.5,0.5]", "--steps=6"))
    train(flags(tmp_path / "parts", "--dataset.weights=[0.5,0.5]", "--steps=3"))
    config = tmp_path / "parts/checkpoints/last/pretrained_model/train_config.json"
    train([f"--config_path={config}", "--resume=true", "--steps=6"])
    rows = [
        [(r["step"], r["loss"]) for r in read_metrics(tmp_path / n / METRICS_FILE)]
        for n in ("whole", "parts")
    ]
    assert dict(rows[0])[6] == dict(rows[1])[6]
    saved = json.loads(config.read_text())["dataset"]
    assert saved["repo_id"] == ["me/a", "me/b"] and saved["weights"] == [0.5, 0.5]


def test_what_was_drawn_from_each_dataset_is_logged(flags, tmp_path):
    more = ["--dataset.weights=[0.3,0.7]", "--policy.use_vae=false", "--policy.dropout=0", "--log_freq=5"]
    train(flags(tmp_path / "whole", *more, "--steps=15"))
    train(flags(tmp_path / "parts", *more, "--steps=7", "--save_freq=7"))
    config = tmp_path / "parts/checkpoints/last/pretrained_model/train_config.json"
    train([f"--config_path={config}", "--resume=true", "--steps=15"])
    whole, parts = (read_metrics(tmp_path / name / METRICS_FILE)[-1] for name in ("whole", "parts"))
    assert (
        whole["mixture/me/a/frames"] == 18 and whole["mixture/me/b/frames"] == 42
    )  # 15 steps of 4: an epoch
    mean = 0.3 * whole["mixture/me/a/loss"] + 0.7 * whole["mixture/me/b/loss"]
    assert mean == pytest.approx(whole["loss"], rel=0.5)
    for name in whole:
        if name.startswith("mixture/"):
            assert parts[name] == whole[name]


def test_each_dataset_can_have_its_own_statistics(flags, two, tmp_path):
    last = train(flags(tmp_path / "run", "--dataset.stats=per_dataset"))
    cfg = load_train_config(last / "pretrained_model/train_config.json")
    cfg.output_dir = tmp_path / "again"
    run = start(cfg, World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))
    batch = run.dataset.batch(range(len(run.dataset)))
    ready = run.prepare(to_device(batch, torch.device("cpu")))
    for part in (0, 1):  # every dataset by itself has mean 0 and spread 1
        states = ready["observation.state"][batch["dataset_index"] == part]
        assert states.mean(0).abs().max() < 1e-4 and (states.std(0, correction=0) - 1).abs().max() < 1e-3
    stored = last / "pretrained_model/per_dataset/me__b"
    before, after = make_pre_post_processors(cfg.policy, stored)
    want = LeRobotDataset("me/b", root=two / "b").meta.stats["action"]
    assert np.allclose(after(torch.zeros(1, 3)).numpy(), want["mean"], atol=1e-5)


def test_cameras_get_common_names(flags, tmp_path):
    top, front = "observation.images.top", "observation.images.front"
    names = f"{{me/a: {{{top}: {front}}}, me/b: {{{top}: {front}}}}}"
    last = train(flags(tmp_path / "run", f"--dataset.feature_map={names}", "--steps=2"))
    cfg = load_train_config(last / "pretrained_model/train_config.json")
    assert front in cfg.policy.input_features and top not in cfg.policy.input_features


def test_datasets_that_do_not_fit_are_refused_before_anything_is_written(flags, two, tmp_path):
    make_dataset(tmp_path / "c", episodes=2, camera=False)
    words = flags(tmp_path / "run")
    words[:2] = ["--dataset.repo_id=[me/a,me/c]", f"--dataset.root=[{two / 'a'},{tmp_path / 'c'}]"]
    with pytest.raises(FeatureMismatchError, match=r"observation\.images\.top: not in me/c"):
        train(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--dataset.weights=[1]", "2 numbers"),
        ("--dataset.weights=[1,0]", "greater than 0"),
        ("--dataset.repo_id=[me/a,me/a]", "each once"),
        ("--dataset.episodes=[0]", "choose by tasks"),
        ("--dataset.feature_map={me/c: {a: b}}", "me/c"),
    ],
)
def test_mistakes_are_named(flags, tmp_path, flag, said):
    with pytest.raises(ConfigError, match=said):
        train(flags(tmp_path / "run", flag))


def test_held_out_episodes_of_both(flags, tmp_path):
    train(
        flags(tmp_path / "run", "--dataset.eval_split=0.4", "--eval_steps=2", "--dataset.eval_split_seed=1")
    )
    assert "eval/loss" in (tmp_path / "run" / METRICS_FILE).read_text()


def test_loader_processes_give_the_same_losses(flags, tmp_path):
    train(flags(tmp_path / "threads"))
    train(flags(tmp_path / "processes", "--loader_workers=processes"))
    rows = [[r["loss"] for r in read_metrics(tmp_path / n / METRICS_FILE)] for n in ("threads", "processes")]
    assert rows[0] == rows[1] and len(rows[0]) == 2


def test_pictures_of_two_sizes_are_brought_to_one(flags, two, tmp_path):
    make_dataset(tmp_path / "c", episodes=2, size=48)
    words = flags(tmp_path / "run", "--steps=2")
    words[:2] = ["--dataset.repo_id=[me/a,me/c]", f"--dataset.root=[{two / 'a'},{tmp_path / 'c'}]"]
    with pytest.raises(
        FeatureMismatchError, match=r"me/a has a camera \[3, 32, 32\]; me/c has a camera \[3, 48, 48\]"
    ):
        train(words)
    last = train([*words, "--policy.input_shapes.observation.images.top=[3,32,40]"])
    cfg = load_train_config(last / "pretrained_model/train_config.json")
    assert cfg.policy.input_features["observation.images.top"].shape == (3, 32, 40)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cached_run_takes_the_same_steps(flags, tmp_path, cache):
    """Two passes over the data and a bit, the second and third from the cache."""
    more = ["--steps=36", "--log_freq=12", "--save_freq=0"]
    train(flags(tmp_path / "plain", *more))
    train(flags(tmp_path / "cached", *more, f"--dataset.cache={cache}"))
    rows = [[r["loss"] for r in read_metrics(tmp_path / n / METRICS_FILE)] for n in ("plain", "cached")]
    assert rows[0] == rows[1] and len(rows[0]) == 3


def test_episodes_are_chosen_by_task(flags, tmp_path):
    with pytest.raises(DatasetError, match="pick"):
        train(flags(tmp_path / "run", "--dataset.tasks=[\"pick: the 'red' cub # yes\"]"))
