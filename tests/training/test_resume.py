"""Interrupted and resumed equals uninterrupted, to the bit: weights, optimizer, random numbers, history."""

import contextlib
import json
import logging
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.scripts.train import train
from lerobot.training import loop
from lerobot.training.logs.metrics import METRICS_FILE, Meter, read_metrics
from tests.fakes.hub import FakeHub

EXACT = (
    "step",
    "epoch",
    "loss",
    "l1_loss",
    "kld_loss",
    "grad_norm",
    "lr",
    "eval/loss",
)  # the others are times
RANDOM = ["--policy.dropout=0.1", "--dataset.image_transforms.enable=true", "--policy.use_vae=true"]


class StopAfter(threading.Event):
    """A request to stop that comes during the n-th step of this process."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def is_set(self):
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def interrupted(monkeypatch):
    """Run a command that is asked to stop during its n-th step."""

    def run(words, *, steps):
        with monkeypatch.context() as patched:
            patched.setattr(loop, "stop_requests", lambda: contextlib.nullcontext(StopAfter(steps)))
            return train(words)

    return run


def assert_same(one, other):
    """Two checkpoints hold the same run, and the histories beside them are the same."""
    names = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("*.safetensors")) != []
    for name in names:
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    for name in ("training_step.json", "scheduler_state.json", "optimizer_param_groups.json"):
        files = [folder / keys.TRAINING_STATE_FOLDER / name for folder in (one, other)]
        assert [file.exists() for file in files] in ([True, True], [False, False])
        assert not files[0].exists() or files[0].read_text() == files[1].read_text()
    extra = [
        json.loads((f / keys.TRAINING_STATE_FOLDER / "extra_state.json").read_text()) for f in (one, other)
    ]
    assert extra[0]["sampler"] == extra[1]["sampler"]
    histories = [
        [{key: row[key] for key in EXACT if key in row} for row in read_metrics(f.parents[1] / METRICS_FILE)]
        for f in (one, other)
    ]
    assert histories[0] == histories[1] != []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["--lr_scheduler=true", "--eval_steps=2", "--dataset.eval_split=0.3"], ["--num_workers=0"]),
        (["--gradient_accumulation_steps=2", "--batch_size=3"], ["--num_workers=3", "--prefetch_factor=1"]),
        (["--dataset.streaming=true"], ["--num_workers=2"]),
        (["--optimizer.type=sgd", "--optimizer.momentum=0.9"], ["--loader_workers=processes"]),
    ],
    ids=["schedule and validation", "accumulation", "streaming", "momentum and processes"],
)
def test_several_interruptions_change_nothing(flags, tmp_path, interrupted, words, more):
    words = [*RANDOM, *words, "--steps=7", "--save_freq=0"]  # a log row is of 2 steps; stops are within
    whole = train(flags(tmp_path / "whole", *words))
    interrupted(flags(tmp_path / "parts", *words), steps=1)
    interrupted([f"--resume={tmp_path / 'parts'}", *more], steps=2)
    interrupted([f"--resume={tmp_path / 'parts'}"], steps=2)
    parts = train([f"--resume={tmp_path / 'parts'}", *more])
    assert sorted(path.name for path in parts.parent.glob("0*")) == ["000001", "000003", "000005", "000007"]
    assert_same(whole, parts)


def test_after_a_kill_later_rows_are_written_again(flags, tmp_path):
    words = [*RANDOM, "--steps=6", "--save_freq=3", "--log_freq=1"]
    whole = train(flags(tmp_path / "whole", *words))
    killed = tmp_path / "killed"
    shutil.copytree(
        tmp_path / "whole", killed, symlinks=True
    )  # rows to step 6 and half of one, saved at step 3
    shutil.rmtree(killed / "checkpoints/000006")
    (killed / "checkpoints/last").unlink()
    (killed / "checkpoints/last").symlink_to("000003")
    with (killed / METRICS_FILE).open("a") as file:
        file.write('{"step": 7, "lo')
    assert_same(whole, train([f"--resume={killed}"]))


def test_a_resumed_run_remembers_where_its_weights_came_from(flags, tmp_path, interrupted):
    first = train(flags(tmp_path / "first", "--steps=1"))
    words = [word for word in flags(tmp_path / "tuned", "--save_freq=0") if not word.startswith("--policy.")]
    interrupted([*words, f"--policy.path={first}", "--policy.device=cpu"], steps=2)
    tuned = train([f"--resume={tmp_path / 'tuned'}"])
    for name in ("config.json", "train_config.json"):
        tree = json.loads((tuned / "pretrained_model" / name).read_text())
        assert tree.get("policy", tree)["pretrained_path"] == str(first)
    assert tree["resume"] is False and tree["checkpoint_path"] is None  # it would resume whenever it is read


# ------------------------------------------------------------------------------------------------ forms
@pytest.fixture(scope="module")
def saved(tmp_path_factory, small_dataset):
    """A run that has taken 2 steps; tests continue copies of it."""
    from tests.training.conftest import TINY_ACT

    run = tmp_path_factory.mktemp("saved") / "run"
    words = ["--dataset.repo_id=local/small", f"--dataset.root={small_dataset}", f"--output_dir={run}"]
    train([*words, *TINY_ACT, "--steps=2", "--batch_size=4", "--num_workers=0", "--log_freq=1"])
    return run


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run", symlinks=True)


@pytest.mark.parametrize(
    "form",
    [
        "--resume={run}",
        "--resume={run}/checkpoints/last",
        "--resume={run}/checkpoints/000002",
        "--resume={run}/checkpoints/000002/pretrained_model",
        "--resume=true --output_dir={run}",
        "--resume=true --config_path={run}/checkpoints/last/pretrained_model/train_config.json",
        "--resume=true --config_path={run}/checkpoints/last/pretrained_model",
        "--resume=true --config_path={run}/checkpoints/last",
        "--resume --config_path={run}",
        "--resume=true --config={run}/mine.json",
    ],
)
def test_every_way_to_name_the_run(run, form):
    (run / "mine.json").write_text(json.dumps({"output_dir": str(run), "log_freq": 3}))
    assert train([*form.format(run=run).split(), "--steps=3"]) == run / "checkpoints/000003"


def test_without_links_the_same_commands_work(run):
    (run / "checkpoints/last").unlink()
    (run / "checkpoints/last").write_text("000002")  # as on Windows
    config = run / "checkpoints/last/pretrained_model/train_config.json"
    assert train([f"--config_path={config}", "--resume=true", "--steps=3"]).name == "000003"


def test_flags_go_on_top_and_what_changed_is_said_in_one_line(run, caplog):
    with caplog.at_level(logging.INFO):
        last = train(
            [f"--resume={run}", "--steps=3", "--batch_size=2", "--policy.optimizer_lr=1e-4", "--seed=1000"]
        )
    line = next(message for message in caplog.messages if message.startswith("Resuming"))
    assert f"{run}/checkpoints/000002; changed: " in line
    changes = line.partition("changed: ")[2].split(", ")
    assert sorted(changes) == [
        "batch_size=2 (was 4)", "policy.optimizer_lr=1e-4 (was 0.001)", "steps=3 (was 2)",
    ]  # fmt: skip
    saved = json.loads((last / "pretrained_model/train_config.json").read_text())
    assert read_metrics(run / METRICS_FILE)[-1]["lr"] == 1e-4
    assert saved["batch_size"] == 2 and saved["optimizer"]["lr"] == 1e-4
    assert json.loads((last / "training_state/optimizer_param_groups.json").read_text())[0]["lr"] == 1e-4


def test_a_changed_learning_rate_applies_to_the_rest_of_a_schedule(flags, tmp_path, interrupted):
    words = ["--lr_scheduler=constant_with_warmup", "--scheduler.num_warmup_steps=8", "--log_freq=1"]
    interrupted(flags(tmp_path / "run", *words, "--steps=5"), steps=3)
    train([f"--resume={tmp_path / 'run'}", "--policy.optimizer_lr=2e-3", "--optimizer.weight_decay=0.5"])
    rates = [row["lr"] for row in read_metrics(tmp_path / "run" / METRICS_FILE)]
    assert rates == pytest.approx([0, 1e-3 / 8, 2e-3 / 8, 6e-3 / 8, 8e-3 / 8])
    groups = tmp_path / "run/checkpoints/last/training_state/optimizer_param_groups.json"
    assert json.loads(groups.read_text())[0]["weight_decay"] == 0.5


@pytest.mark.parametrize("form", ["--resume={there}", "--resume=true --output_dir={there}"])
def test_a_folder_without_a_run_is_refused(tmp_path, form):
    for there in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            ConfigError, match=f"{there} holds no checkpoint to continue from. Expected a run"
        ):
            train(form.format(there=there).split())


def test_a_run_on_the_hub_goes_on_here(run, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    files = {
        f"checkpoints/{step}/{path.relative_to(run / 'checkpoints/000002').as_posix()}": path.read_bytes()
        for step in ("000001", "000002")
        for path in (run / "checkpoints/000002").rglob("*")
        if path.is_file()
    }
    with FakeHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("model", "me/run", files)
        here = tmp_path / "here"
        last = train(["--config_path=me/run", "--resume=true", f"--output_dir={here}", "--steps=3"])
        assert last == here / "checkpoints/000003"
        assert not any("000001" in name for name in hub.served)
        hub.add("model", "me/policy", {"train_config.json": b"{}", "config.json": b"{}"})
        with pytest.raises(
            ConfigError, match=r"me/policy: .* no checkpoints/ to resume .* --policy.path=me/policy"
        ):
            train(["--config_path=me/policy", "--resume=true"])


# ------------------------------------------------------------------------------------------------ releases
@pytest.mark.parametrize("release", ["0.6.1", "0.5", "0.4"])
def test_checkpoints_of_other_releases_are_continued(run, release):
    """Theirs lack our files, and the older they are the more keys."""
    folder = run / "checkpoints/000002"
    (folder / "manifest.json").unlink()
    state, config = folder / "training_state", folder / "pretrained_model/train_config.json"
    for name in ("extra_state.json", "rng_state_exact.safetensors"):
        (state / name).unlink()
    tree = json.loads(config.read_text())
    groups = json.loads((state / "optimizer_param_groups.json").read_text())
    if release != "0.6.1":
        (state / "training_step.json").write_text('{"step": 2}')
        for key in ("eval_steps", "max_eval_samples", "prefetch_factor", "persistent_workers", "job",
                    "dataloader_multiprocessing_context", "sample_weighting", "reward_model"):  # fmt: skip
            tree.pop(key)
        tree["eval_freq"] = tree.pop("env_eval_freq")
        tree |= {"use_rabc": False, "rabc_progress_path": None}
    if release == "0.4":
        for key in ("cudnn_deterministic", "peft", "tolerance_s"):
            tree.pop(key)
        for group in groups:
            group.pop("decoupled_weight_decay", None)  # torch of those days
    config.write_text(json.dumps(tree))
    (state / "optimizer_param_groups.json").write_text(json.dumps(groups))
    whole = train([f"--resume={run}", "--steps=3"])
    assert [row["step"] for row in read_metrics(run / METRICS_FILE)] == [1, 2, 3]
    assert json.loads((whole / "training_state/training_step.json").read_text())["step"] == 3


def test_parts_that_only_one_side_has_are_said_once(run, caplog):
    path = run / "checkpoints/000002/training_state/extra_state.json"
    extra = json.loads(path.read_text())
    path.write_text(json.dumps(extra | {"scaler": {"scale": 1.0}, "curriculum": {}}))
    (run / "checkpoints/000002/manifest.json").unlink()
    train([f"--resume={run}", "--steps=3"])
    said = [message for message in caplog.messages if "are not used" in message]
    assert len(said) == 1 and "its curriculum, scaler are not used" in said[0]


def test_a_meter_goes_on_to_the_bit():
    whole, first, second = Meter(), Meter(), Meter()
    values = torch.rand(9)
    for value in values:
        whole.add({"loss": value})
    for value in values[:4]:
        first.add({"loss": value})
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for value in values[4:]:
        second.add({"loss": value})
    assert whole.read() == second.read()
