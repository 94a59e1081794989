"""`--lr_scheduler` and `--scheduler.*`: every schedule by its name alone, with what it needs filled in."""

import subprocess
import sys

import pytest

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse
from lerobot.optim.schedulers import LRSchedulerConfig
from lerobot.scripts.train import train
from lerobot.training.config import TrainConfig, complete
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.schedule import choose_schedule

SMOLVLA = {
    "type": "cosine_decay_with_warmup",
    "num_warmup_steps": 1000,
    "num_decay_steps": 30000,
    "peak_lr": 1e-4,
    "decay_lr": 2.5e-6,
}


def config(*words: str) -> TrainConfig:
    words = ("--dataset.repo_id=me/data", "--policy.type=act", *words)
    return parse(TrainConfig, words, program="lerobot-train", aliases=TRAIN_ALIASES, complete=complete)


def choose(wanted, *, preset=None, **given):
    return choose_schedule(wanted, preset=preset, given=given, steps=2000, lr="1e-3")


@pytest.mark.parametrize("name", LRSchedulerConfig.get_known_choices())
def test_every_schedule_goes_by_its_name_alone(name):
    cfg = config(f"--lr_scheduler={name}", "--steps=2000", "--optimizer.lr=1e-3")
    assert cfg.scheduler.type == name
    factor = cfg.scheduler.factor(2000)
    warmup = cfg.scheduler.num_warmup_steps  # a tenth of the run, or the default
    assert warmup == (1000 if name == "constant_with_warmup" else 200)
    assert factor(0) < 0.01 and factor(warmup) > 0.95


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant"])
def test_shapes_of_the_diffusers_library_too(name):
    cfg = config(f"--lr_scheduler={name}")
    assert (cfg.scheduler.type, cfg.scheduler.name) == ("diffuser", name)


def test_what_is_needed_comes_from_steps_and_learning_rate():
    assert choose("cosine_decay_with_warmup") == {
        "type": "cosine_decay_with_warmup",
        "num_warmup_steps": 200,
        "num_decay_steps": 2000,
        "peak_lr": 1e-3,
        "decay_lr": 1e-4,
    }


def test_or_from_the_policys_own_schedule():
    assert choose("cosine_decay_with_warmup", preset=SMOLVLA) == SMOLVLA
    other = choose("cosine_annealing_with_warmup", preset=SMOLVLA)
    assert other == {"type": "cosine_annealing_with_warmup", "num_warmup_steps": 1000}


def test_given_fields_come_first():
    assert (
        choose("cosine_annealing_with_warmup", preset=SMOLVLA, num_warmup_steps="7")["num_warmup_steps"]
        == "7"
    )
    assert choose(None, preset=SMOLVLA, decay_lr="0") == SMOLVLA | {"decay_lr": "0"}
    assert choose(None, type="constant_with_warmup") == {"type": "constant_with_warmup"}
    cfg = config("--lr_scheduler=constant_with_warmup", "--scheduler.num_warmup_steps=3")
    assert cfg.scheduler.num_warmup_steps == 3
    assert (
        config("--scheduler={type: constant_with_warmup, num_warmup_steps: 4}").scheduler.num_warmup_steps
        == 4
    )
    without = config(
        "--use_policy_training_preset=false", "--optimizer.type=sgd", "--lr_scheduler=linear", "--steps=50"
    )
    assert without.scheduler.num_warmup_steps == 5


def test_true_and_false():
    assert choose("true", preset=SMOLVLA) == SMOLVLA
    assert choose("true")["name"] == "cosine" and choose("true", num_warmup_steps=3)["num_warmup_steps"] == 3
    assert choose("false", preset=SMOLVLA) is None and choose(None) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr_scheduler=cosin"], "--lr_scheduler=cosin is unknown. Did you mean 'cosine'"),
        (["--scheduler.num_warmup_steps=3"], "has no learning-rate schedule to change. Choose one as well"),
        (["--lr_scheduler=linear", "--scheduler.type=vqbet"], "give one of them"),
        (["--lr_scheduler=linear", "--scheduler.num_warmup_step=3"], "Did you mean 'num_warmup_steps'"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(ConfigError) as error:
        config(*words)
    assert message in str(error.value)


def test_a_kind_of_the_same_optimizer_keeps_the_policys_numbers():
    optimizer = config("--optimizer.type=adamw_8bit", "--policy.optimizer_lr=3e-5").optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("adamw_8bit", 3e-5, 1e-4)
    assert config("--optimizer.type=sgd").optimizer.lr == 1e-3  # another one has its own


def test_it_is_chosen_without_torch():
    code = "import sys, lerobot.training.schedule; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_a_run_follows_its_schedule_and_goes_on_with_it(flags, tmp_path):
    words = ["--lr_scheduler=linear", "--scheduler.num_warmup_steps=2", "--log_freq=1"]
    train(flags(tmp_path / "run", *words, "--steps=6", "--save_freq=3"))
    rates = [row["lr"] for row in read_metrics(tmp_path / "run" / METRICS_FILE)]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])
    config_path = tmp_path / "run/checkpoints/000003/pretrained_model/train_config.json"
    train([f"--config_path={config_path}", "--resume=true"])
    rows = read_metrics(tmp_path / "run" / METRICS_FILE)
    assert [row["lr"] for row in rows] == pytest.approx(rates)
