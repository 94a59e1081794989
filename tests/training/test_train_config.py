"""What follows from what on a training command line: presets under files under flags."""

import json

import pytest

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import encode
from lerobot.core.flags import parse
from lerobot.optim.optimizers import AdamWConfig, SGDConfig
from lerobot.training.config import TrainConfig, complete

BASE = ("--dataset.repo_id=me/x", "--policy.type=act")


def read(*words: str) -> TrainConfig:
    return parse(
        TrainConfig, [*BASE, *words], program="lerobot-train", aliases=TRAIN_ALIASES, complete=complete
    )


@pytest.fixture
def saved(tmp_path):
    """A run's own file."""
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(encode(read("--policy.optimizer_lr=3e-5"))))
    return path


def test_the_policys_preset_and_single_fields_on_top():
    assert read().optimizer == AdamWConfig(lr=1e-5, weight_decay=1e-4)
    assert read("--optimizer.lr=2e-3").optimizer == AdamWConfig(lr=2e-3, weight_decay=1e-4)
    assert read("--grad_clip_norm=3").optimizer.grad_clip_norm == 3


def test_another_type_replaces_the_preset_whole(saved):
    assert read("--optimizer.type=sgd", "--optimizer.lr=0.1").optimizer == SGDConfig(lr=0.1)
    assert read("--optimizer.lr=0.1", "--optimizer.type=sgd").optimizer == SGDConfig(lr=0.1)
    assert read(f"--config_path={saved}", "--optimizer.type=sgd").optimizer == SGDConfig()


def test_another_type_in_a_file_too(tmp_path):
    (tmp_path / "mine.yaml").write_text("optimizer: {type: sgd, momentum: 0.5}")
    words = [f"--config={tmp_path / 'mine.yaml'}", "--optimizer.lr=0.2"]
    assert read(*words).optimizer == SGDConfig(momentum=0.5, lr=0.2)


def test_a_policys_rate_on_top_of_a_saved_file(saved):
    assert read(f"--config_path={saved}").optimizer.lr == 3e-5
    assert read(f"--config_path={saved}", "--policy.optimizer_lr=7e-5").optimizer.lr == 7e-5


def test_without_the_preset_the_optimizer_is_all_given():
    words = ["--use_policy_training_preset=false", "--optimizer.type=sgd"]
    assert read(*words).optimizer == SGDConfig()


def test_settings_of_a_release_that_counts_micro_batches(saved, caplog):
    tree = json.loads(saved.read_text()) | {
        "parallelism": {"dp_replicate": 1, "dp_shard": 2},
        "accelerator": {
            "mixed_precision": "bf16",
            "gradient_accumulation": {"steps": 4},
            "ddp": {"static_graph": True},
        },
        "steps": 1001,
        "save_freq": 400,
        "eval_steps": 0,
    }
    saved.write_text(json.dumps(tree))
    cfg = read(f"--config_path={saved}")
    assert (cfg.parallelism, cfg.mixed_precision, cfg.gradient_accumulation_steps) == ("fsdp", "bf16", 4)
    assert (cfg.steps, cfg.save_freq, cfg.eval_steps) == (251, 100, 0)
    (warning,) = [r.message for r in caplog.records if "not used" in r.message]
    assert warning.endswith("accelerator")
    tree["parallelism"] = {"dp_replicate": 2, "dp_shard": 1}
    saved.write_text(json.dumps(tree))
    assert read(f"--config_path={saved}").parallelism == "ddp"
