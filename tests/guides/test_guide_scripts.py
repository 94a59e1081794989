"""The guides' Python scripts, unchanged but for the device, and what their snippets promise."""

import ast
import json
import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lerobot.datasets import LeRobotDataset
from lerobot.policies.act.config import ACTConfig
from lerobot.policies.act.policy import ACTPolicy
from lerobot.policies.config import PreTrainedConfig
from lerobot.scripts.lerobot_train import train
from lerobot.training.sampling.curriculum import stage_name, stage_of
from lerobot.training.sections import CurriculumConfig
from tests.guides.blocks import block
from tests.guides.conftest import SMALL


@pytest.fixture
def at_home(place, monkeypatch):
    """This process as the reader's: their datasets, their working folder."""
    monkeypatch.setenv("HF_LEROBOT_HOME", str(place.home))
    monkeypatch.chdir(place.folder)
    return place


@pytest.mark.slow
def test_the_training_script_and_the_evaluation_script(place, guides_hub):
    there = place.at("scripts")
    words = ["--dataset=me/your_dataset", "--output-dir=outputs/train/custom", "--job-name=custom"]
    said = there.script(
        "act_script", *words, "--steps=1", "--batch-size=1", "--use-vae", "--learning-rate=2e-5"
    )
    assert "Training completed successfully" in said
    folder = there.folder / "outputs/train/custom/checkpoints/last/pretrained_model"
    config = json.loads((folder / "config.json").read_text())
    asked = {"dim_model": 512, "chunk_size": 100, "optimizer_lr": 2e-5, "use_vae": True, "repo_id": "custom"}
    assert {name: config[name] for name in asked} == asked
    assert sum(value.numel() for value in load_file(folder / "model.safetensors").values()) > 50e6
    assert ("model", "me/custom") in guides_hub.repos  # the job's name, below the account
    said = there.script(
        "eval_script", f"--policy-path={folder.parent}", "--dataset=me/test_dataset", "--num-episodes=1"
    )
    assert "Average Reward: 0.000" in said and "Episodes Evaluated: 1" in said


@pytest.mark.slow
def test_checking_a_dataset(place):
    said = place.script("check_dataset")
    assert "  Episodes: 2\n  Frames: 24\n  FPS: 10\n" in said
    keys = ast.literal_eval(said.split("Sample frame keys: ")[1])
    assert {"observation.state", "observation.images.top", "action", "task"} <= set(keys)


def test_windows_of_time(at_home):
    parts = re.split(r"\n\s*\n", block("dataset_windows"))
    assert len(parts) == 4 and "StreamingLeRobotDataset" in parts[2]
    names: dict = {}
    exec("\n".join(parts[:3]), names)
    streamed = list(names["dataset"])
    assert sorted(int(item["index"]) for item in streamed) == list(range(24))
    exec("\n".join([parts[0], parts[3]]), names)
    single = LeRobotDataset("lerobot/aloha_static_coffee")
    for item in streamed:
        assert torch.equal(item["observation.image"], single[int(item["index"])]["observation.image"])
    item = names["dataset"][11]
    assert item["observation.image"].shape == (4, 3, 32, 32) and item["action"].shape == (3, 6)
    assert item["observation.image_is_pad"].tolist() == [False] * 4
    assert item["action_is_pad"].tolist() == [False, True, True]  # the episode's last frame


def test_a_dataset_made_from_the_guides_info(tmp_path):
    info = json.loads(block("info_json"))
    dataset = LeRobotDataset.create(
        "me/so101", info["fps"], info["features"], root=tmp_path / "so101", robot_type=info["robot_type"]
    )
    dataset.finalize()
    written = json.loads((tmp_path / "so101/meta/info.json").read_text())
    for key in ("codebase_version", "robot_type", "fps"):
        assert written[key] == info[key]
    for name, feature in info["features"].items():
        assert written["features"][name]["dtype"] == feature["dtype"]
        assert written["features"][name]["shape"] == feature["shape"]


def test_a_frame_has_a_nested_view_and_meta_knows_where_episodes_lie(at_home):
    dataset = LeRobotDataset("me/test_dataset")
    frame = dataset[3]
    assert torch.equal(frame["observation"]["state"], frame["observation.state"])
    assert torch.equal(frame["observation"]["images"]["top"], frame["observation.images.top"])
    rows = [dataset.meta.episodes[i] for i in range(2)]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 12), (12, 24)]
    assert dataset.meta.stats["action"]["mean"].shape == (6,) and len(dataset.meta.tasks) == 1


@pytest.mark.slow
def test_the_search_with_our_training_in_its_gap(at_home):
    """The block says `# ... training code ...` where it trains, and leaves the loss to the reader."""
    pytest.importorskip("optuna")
    runs = []

    def losses(learning_rate, batch_size, chunk_size):
        words = ["--dataset.repo_id=me/your_dataset", "--dataset.eval_split=0.5", "--policy.type=act", *SMALL]
        words += ["--eval_steps=1", "--policy.device=cpu", f"--output_dir=outputs/search/{len(runs)}"]
        words += [f"--policy.optimizer_lr={learning_rate}", f"--batch_size={batch_size}"]
        checkpoint = train([*words, f"--policy.chunk_size={chunk_size}"])
        runs.append((checkpoint, chunk_size))
        lines = (checkpoint.parents[1] / "metrics.jsonl").read_text().splitlines()
        return [row["eval/loss"] for row in map(json.loads, lines) if "eval/loss" in row]

    code = block("search").replace("n_trials=50", "n_trials=2")
    gap = "# ... training code ..."
    assert code.count(gap) == 1
    names: dict = {"losses": losses}
    exec(code.replace(gap, "validation_loss = losses(learning_rate, batch_size, chunk_size)[-1]"), names)
    study = names["study"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2 and study.best_value > 0
    for (checkpoint, chunk_size), trial in zip(runs, study.trials, strict=True):
        config = json.loads((checkpoint / "pretrained_model/config.json").read_text())
        assert config["chunk_size"] == chunk_size == trial.params["chunk_size"]
        assert config["optimizer_lr"] == trial.params["learning_rate"]


def test_freezing_the_backbone():
    policy = ACTPolicy(ACTConfig.tiny())
    names: dict = {"model": policy.model}
    exec(block("basics_freeze"), names)
    frozen = {id(value) for value in policy.parameters() if not value.requires_grad}
    assert frozen == {id(value) for value in policy.model.vision_backbone.parameters()} and frozen
    groups = policy.config.get_optimizer_preset().build(policy.get_optim_params()).param_groups
    assert not frozen & {id(value) for group in groups for value in group["params"]}


@pytest.mark.parametrize("use_vae", [True, False])
def test_the_guides_loss_is_ours(use_vae):
    config = ACTConfig.tiny()
    config.use_vae = use_vae
    policy = ACTPolicy(config).train()  # dropout is 0 in `tiny`
    T, A = config.chunk_size, 2
    batch = {
        "observation.state": torch.randn(3, 3),
        "observation.images.top": torch.rand(3, 3, 32, 32),
        "action": torch.randn(3, T, A),
        "action_is_pad": torch.zeros(3, T, dtype=torch.bool),
    }
    names: dict = {"F": F}
    exec(block("act_loss"), names)
    planned, mean, log_variance = [], None, None
    policy.model.register_forward_hook(lambda module, given, plan: planned.append(plan))
    loss, parts = policy(batch)
    if use_vae:
        state = batch["observation.state"]
        mean, log_variance = policy.model.encode_style(batch["action"], batch["action_is_pad"], state)
    total, l1, kld = names["compute_act_loss"](
        planned[0], batch["action"], mean, log_variance, use_vae=use_vae, kl_weight=config.kl_weight
    )
    torch.testing.assert_close(loss, total)
    torch.testing.assert_close(torch.as_tensor(parts["l1_loss"]), l1.detach())
    assert (kld is not None) == use_vae and ("kld_loss" in parts) == use_vae


@pytest.mark.parametrize("steps", [1, 7, 10, 1000, 99_999])
def test_the_guides_curriculum_is_our_default(steps):
    names: dict = {}
    exec(block("curriculum"), names)
    settings = CurriculumConfig(difficulty="length")
    for step in range(0, steps, max(1, steps // 1000)):
        stage = stage_of(step, steps, thresholds=settings.thresholds)
        assert names["curriculum_learning_schedule"](step, steps) == stage_name(stage, 3)


CONFIGS = [
    {},
    {"chunk_size": 50, "n_action_steps": 50, "optimizer_lr": 5e-6, "use_vae": False},
    {"temporal_ensemble_coeff": 0.01, "n_action_steps": 1, "tags": ["a: b", "yes"], "device": "cpu"},
    {"repo_id": "me/act", "pretrained_backbone_weights": None, "kl_weight": 1e-7, "license": "null and void"},
]


@pytest.mark.parametrize("fields", CONFIGS)
def test_a_configs_dict_as_flags_gives_the_config_back(fields, at_home, monkeypatch):
    config = ACTConfig(**fields)
    words = [f"--policy.{key}={value}" for key, value in config.__dict__.items() if value is not None]
    seen = []
    monkeypatch.setattr("lerobot.training.loop.train", seen.append)
    train(["--dataset.repo_id=me/your_dataset", "--policy.type=act", *words])
    if config.pretrained_backbone_weights is None:  # None is not spelled by the script, so the default holds
        config.pretrained_backbone_weights = ACTConfig().pretrained_backbone_weights
    assert seen[0].policy == config


@pytest.mark.parametrize("old", ["lerobot.policies.act.configuration_act", "lerobot.policies.act.config"])
def test_paths_of_imports(old):
    import importlib

    assert importlib.import_module(old).ACTConfig is ACTConfig
    assert importlib.import_module("lerobot.policies.act.modeling_act").ACTPolicy is ACTPolicy
    assert importlib.import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset is LeRobotDataset
    factory = importlib.import_module("lerobot.policies.factory")
    assert callable(factory.make_policy) and callable(factory.make_pre_post_processors)
    assert PreTrainedConfig.get_choice_class("act") is ACTConfig
