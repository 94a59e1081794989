"""The guides' configuration files and lists of flags: read as they stand, and trained with."""

import json

import pytest

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.flags import parse
from lerobot.scripts.train import train
from lerobot.training.config import TrainConfig, complete
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from tests.guides.blocks import block, flags, lines
from tests.guides.conftest import SHORT, SMALL, on_this_machine

SECTIONS = ("dataset_section", "training_section", "output_section", "wandb_section")


def config(*words: str) -> TrainConfig:
    return parse(TrainConfig, list(words), program="lerobot-train", aliases=TRAIN_ALIASES, complete=complete)


def all_sections() -> dict:
    return {name: value for part in SECTIONS for name, value in json.loads(block(part)).items()}


@pytest.fixture
def at_home(place, monkeypatch, tmp_path):
    """This process as the reader's, in an empty working folder."""
    for name in ("HF_LEROBOT_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, place.env[name])
    monkeypatch.chdir(tmp_path)
    return place


def train_with(*words: str):
    base = ["--dataset.repo_id=me/your_dataset", "--policy.type=act", "--policy.device=cpu"]
    return train([*base, "--output_dir=run", *words])


@pytest.mark.parametrize("flag", ["--config", "--config_path"])
def test_the_act_file_says_what_it_says(tmp_path, flag):
    path = tmp_path / "training_config.json"
    path.write_text(block("act_config"))
    cfg = config(f"{flag}={path}")
    assert (cfg.batch_size, cfg.steps, str(cfg.output_dir)) == (32, 20000, "outputs/train/act_experiment")
    assert (cfg.policy.device, cfg.policy.optimizer_lr, cfg.optimizer.lr) == ("cuda", 1e-5, 1e-5)
    assert (cfg.policy.chunk_size, cfg.policy.kl_weight, cfg.policy.use_vae) == (100, 10.0, True)
    assert (cfg.dataset.repo_id, cfg.dataset.video_backend) == ("user/dataset_name", "pyav")
    assert (cfg.wandb.enable, cfg.wandb.project, cfg.job_name) == (True, "lerobot_act", "act_experiment")


def test_the_basic_file_says_what_it_says(tmp_path):
    (tmp_path / "config.json").write_text(block("basics_config"))
    cfg = config(f"--config_path={tmp_path / 'config.json'}")
    assert (cfg.batch_size, cfg.steps, cfg.policy.n_heads) == (8, 100000, 8)
    assert cfg.policy.optimizer_lr == cfg.optimizer.lr == 1e-4


def test_the_sections_together(tmp_path):
    (tmp_path / "all.json").write_text(json.dumps(all_sections()))
    cfg = config(f"--config={tmp_path / 'all.json'}", "--policy.type=act")
    assert (cfg.num_workers, cfg.pin_memory, cfg.persistent_workers) == (4, True, True)
    assert (cfg.save_freq, cfg.eval_freq, cfg.log_freq) == (1000, 2000, 100)
    assert (cfg.dataset.download_videos, cfg.dataset.episodes, cfg.dataset.root) == (True, None, None)
    assert (cfg.wandb.entity, cfg.wandb.tags) == ("your_username", ["act", "manipulation"])
    assert cfg.wandb.notes == "Training ACT on custom dataset"


def test_sectioned_flat_and_yaml_files_are_the_same_run(tmp_path):
    tree = json.loads(block("act_config"))
    flat = {name: value for name, value in tree.items() if name not in ("training", "output")}
    flat |= {name: value for name, value in tree["training"].items() if name != "device"} | tree["output"]
    flat["policy"] = {**flat["policy"], "device": "cuda"}
    for name, text in {"sectioned.json": tree, "flat.json": flat, "flat.yaml": flat}.items():
        (tmp_path / name).write_text(json.dumps(text))  # JSON is YAML too
    read = [config(f"--config_path={path}") for path in sorted(tmp_path.iterdir())]
    for cfg in read:
        cfg.config_path = None
    assert read[0] == read[1] == read[2]


@pytest.mark.slow
def test_memory_flags(at_home):
    last = train_with(*SMALL, *flags("basics_memory_flags"), "--batch_size=1")
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())
    assert saved["gradient_accumulation_steps"] == 4 and saved["grad_checkpointing"] is True
    policy = json.loads((last / "pretrained_model/config.json").read_text())
    assert policy["input_features"]["observation.images.top"]["shape"] == [3, 240, 320]


@pytest.mark.slow
def test_memory_flags_of_the_training_guide(at_home):
    last = train_with(*SMALL, *flags("memory_flags"), "--batch_size=2")
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())
    assert saved["mixed_precision"] is True and saved["gradient_accumulation_steps"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["basics_loading_flags", "speed_flags"])
def test_loading_flags(at_home, name):
    last = train_with(*SMALL, *flags(name))
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())
    assert saved["num_workers"] == 8


@pytest.mark.slow
def test_convergence_flags(at_home):
    last = train_with(*SMALL, *flags("convergence_flags"), "--steps=3")
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())
    assert saved["optimizer"]["lr"] == 5e-6 and saved["scheduler"]["name"] == "cosine"
    rates = [row["lr"] for row in read_metrics(last.parents[1] / METRICS_FILE)]
    assert 0 <= rates[0] < rates[1] < rates[2] < 5e-6  # warming up


@pytest.mark.slow
def test_act_flags_at_full_size(at_home, tmp_path):
    train_with(*flags("act_flags"), *SHORT, "--steps=1", "--save_checkpoint=false")
    (row,) = read_metrics(tmp_path / "run" / METRICS_FILE)
    assert row["lr"] == 1e-5 and {"l1_loss", "kld_loss"} <= set(row)


@pytest.mark.slow
def test_diffusion_flags(at_home):
    others = ("--policy.action_dim", "--policy.num_epochs")  # another robot's, and a thousand epochs
    said = [flag for flag in flags("diffusion_flags") if not flag.startswith(others)]
    small = [*SHORT, "--policy.down_dims=[8,16]", "--policy.device=cpu", "--steps=1"]
    last = train(
        ["--dataset.repo_id=me/your_dataset", "--policy.type=diffusion", "--output_dir=run", *said, *small]
    )
    policy = json.loads((last / "pretrained_model/config.json").read_text())
    assert (policy["horizon"], policy["n_action_steps"], policy["num_inference_steps"]) == (16, 8, 10)
    assert policy["spatial_softmax_num_keypoints"] == 256 and policy["vision_backbone"] == "resnet18"


def test_diffusion_flags_one_at_a_time():
    """As somebody types them who reads the list: each fits the defaults of the rest."""
    base = ["--dataset.repo_id=me/your_dataset", "--policy.type=diffusion"]
    for flag in flags("diffusion_flags"):
        assert config(*base, flag).policy.type == "diffusion"


@pytest.mark.slow
def test_the_act_file_trains_and_resumes(place):
    there = place.at("config")
    there.write("training_config.json", "act_config")
    short = [*SHORT, "--steps=1", "--batch_size=1"]
    there.type(lines("start_training")[0], *short)
    (resume,) = lines("resume_training")
    there.type(resume, *short, "--steps=2")
    run = there.folder / "outputs/train/act_experiment"
    assert [row["step"] for row in read_metrics(run / METRICS_FILE)] == [1, 2]
    assert (run / "checkpoints/last").resolve().name == "000002"
    assert len(list(run.glob("wandb/offline-run-*"))) == 2


@pytest.mark.slow
def test_the_basic_file_trains(place):
    there = place.at("basic_config")
    there.write("config.json", "basics_config")
    (line,) = lines("basics_config_path")
    there.type(line, *SHORT, "--steps=1", "--save_checkpoint=false", "--output_dir=run")
    (row,) = read_metrics(there.folder / "run" / METRICS_FILE)
    assert row["lr"] == 1e-4


@pytest.mark.slow
def test_all_sections_train(place):
    there = place.at("sections")
    (there.folder / "all.json").write_text(on_this_machine(json.dumps(all_sections())))
    there.type("lerobot-train --config=all.json --policy.type=act", *SMALL)
    run = there.folder / "outputs/train/experiment_name"
    assert (run / "checkpoints/last").is_dir() and list(run.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_debugging(place):
    there = place.at("debug")
    there.write("training_config.json", "act_config")
    more = [*SMALL, "--wandb.enable=false"]
    first, second = lines("debug")
    words = "DEBUG lerobot.core.flags: The whole configuration: "
    assert words in there.type(first, *more, "--output_dir=one")
    assert words not in there.type(second, *more, "--output_dir=two")
    assert all((there.folder / run / "checkpoints/last").is_dir() for run in ("one", "two"))


def test_a_file_sets_the_logging_level_too(tmp_path, capsys):
    (tmp_path / "config.json").write_text(
        json.dumps(json.loads(block("basics_config")) | {"log_level": "DEBUG"})
    )
    config(f"--config={tmp_path / 'config.json'}")
    assert "The whole configuration" in capsys.readouterr().err
    config(f"--config={tmp_path / 'config.json'}", "--log_level=INFO")
    assert "The whole configuration" not in capsys.readouterr().err
