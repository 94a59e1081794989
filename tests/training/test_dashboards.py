"""W&B and Trackio as people use them: offline, resumed, without network or login, failing in mid-run."""

import json
import logging
import sqlite3
import struct
import subprocess
import sys

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from lerobot.core.errors import ConfigError, MissingExtraError, TrainingError
from lerobot.scripts.train import train
from lerobot.training.logs import boards
from lerobot.training.logs.boards import TAG_LENGTH, artifact_name, latest_run_id
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.run import Run

OFFLINE = ("--wandb.enable=true", "--wandb.mode=offline", "--wandb.project=arms", "--wandb.notes=first try")


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path, monkeypatch):
    """No key from the environment or the home folder, and a server that is not there."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))


def records(path):
    """What an offline run holds: W&B's records, in a log of blocks as LevelDB writes them."""
    data, place, parts, found = path.read_bytes(), 7, b"", []  # after the file's header
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # a block's rest, too short for a header
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def offline_files(run):
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.mark.slow
def test_an_offline_run_holds_settings_numbers_and_goes_on_when_resumed(flags, tmp_path):
    run = tmp_path / "run"
    train(
        flags(run, *OFFLINE, "--steps=4", "--wandb.tags=[mine]", "--dataset.eval_split=0.3", "--eval_steps=2")
    )
    (file,) = offline_files(run)
    found = records(file)
    (about,) = [record.run for record in found if record.HasField("run")][:1]
    assert (about.project, about.notes, about.display_name) == ("arms", "first try", "act")
    assert list(about.tags) == ["policy:act", "seed:1000", "dataset:local/small", "mine"]
    assert about.run_group == "policy:act-seed:1000-dataset:local/small"
    rows = []
    for record in found:
        if record.HasField("history"):
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    assert [row["_step"] for row in rows] == [2, 4]
    assert {"train/loss", "train/lr", "train/grad_norm", "eval/loss"} <= set(rows[0])
    logged = [row["loss"] for row in read_metrics(run / METRICS_FILE) if "loss" in row]
    assert [row["train/loss"] for row in rows] == pytest.approx(logged)
    saved = json.loads((run / "checkpoints/last/pretrained_model/train_config.json").read_text())
    assert saved["wandb"]["run_id"] == about.run_id == latest_run_id(run)

    train(["--resume=true", f"--output_dir={run}", "--steps=6"])
    assert len(offline_files(run)) == 2 and {file.stem for file in offline_files(run)} == {
        f"run-{about.run_id}"
    }


def test_a_run_whose_config_names_none_is_found_by_the_latest_run(flags, tmp_path):
    run = tmp_path / "run"
    train(flags(run, *OFFLINE, "--steps=3"))
    name = latest_run_id(run)
    config = run / "checkpoints/last/pretrained_model/train_config.json"
    tree = json.loads(config.read_text())
    tree["wandb"]["run_id"] = None  # as other releases may leave it
    config.write_text(json.dumps(tree))
    (run / "checkpoints/last/manifest.json").unlink()  # nor do they write one
    train(["--resume=true", f"--output_dir={run}", "--steps=4"])
    assert {file.stem for file in offline_files(run)} == {f"run-{name}"}


def test_disabled_leaves_nothing(flags, tmp_path):
    train(flags(tmp_path / "run", "--wandb.enable=true", "--wandb.mode=disabled", "--steps=1"))
    assert not (tmp_path / "run/wandb").exists() and (tmp_path / "run" / METRICS_FILE).exists()


def test_without_a_login_it_is_said_before_training(flags, tmp_path):
    with pytest.raises(ConfigError, match=r"wandb login.*--wandb\.mode=offline"):
        train(flags(tmp_path / "run", "--wandb.enable=true"))
    assert not (tmp_path / "run").exists()  # the same command can be typed again


@pytest.mark.slow
def test_without_network_it_is_said_before_training(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(boards, "INIT_TIMEOUT_S", 1.0)
    with pytest.raises(TrainingError, match=r"(?s)does not answer.*--wandb\.mode=offline"):
        train(flags(tmp_path / "run", "--wandb.enable=true"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_failure_in_mid_run_ends_no_training(flags, tmp_path, monkeypatch, caplog):
    log = wandb.Run.log

    def fail(self, *args, step=None, **kwargs):
        if step == 4:
            raise ConnectionResetError("the service\nis gone")
        return log(self, *args, step=step, **kwargs)

    monkeypatch.setattr(wandb.Run, "log", fail)
    with caplog.at_level(logging.WARNING):
        train(flags(tmp_path / "run", *OFFLINE))
    said = [record.message for record in caplog.records if "Weights & Biases" in record.message]
    assert said == [
        "Weights & Biases failed and is given up for this run: the service is gone. metrics.jsonl goes on."
    ]
    assert [row["step"] for row in read_metrics(tmp_path / "run" / METRICS_FILE)] == [2, 4, 6]


@pytest.mark.slow
def test_checkpoints_become_artifacts_unless_that_is_off(flags, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(wandb.Run, "log_artifact", lambda self, artifact: logged.append(artifact))
    train(flags(tmp_path / "run", *OFFLINE))
    name = "policy_act-seed_1000-dataset_local_small"
    assert [artifact.name for artifact in logged] == [f"{name}-000003", f"{name}-000006"]
    assert {artifact.type for artifact in logged} == {"model"}
    assert list(logged[0].manifest.entries) == ["model.safetensors"]
    logged.clear()
    train(flags(tmp_path / "other", *OFFLINE, "--wandb.disable_artifact=true"))
    assert not logged


def test_names_of_artifacts_fit():
    name = artifact_name(["policy:act", "dataset:me/" + "x" * 200], "000100")
    assert len(name) == 128 and name.startswith("policy_act-dataset_me_x") and name.endswith("x-000100")
    assert TAG_LENGTH == 64


def test_an_error_that_ends_the_run_marks_it_failed(flags, tmp_path, monkeypatch):
    codes = []
    finish = wandb.Run.finish

    def note(self, exit_code=None, **kwargs):
        codes.append(exit_code)
        return finish(self, exit_code=exit_code, **kwargs)

    monkeypatch.setattr(wandb.Run, "finish", note)
    monkeypatch.setattr(Run, "log", lambda self, more=None: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(flags(tmp_path / "run", *OFFLINE))
    assert codes == [1]


# ---------------------------------------------------------------------------------------------------- Trackio
TRACKIO = """
import sys
from lerobot.scripts.train import train
from lerobot.training.logs.tracking import Tracker
train(sys.argv[1:])
"""


@pytest.mark.slow
def test_trackio_keeps_a_run_and_goes_on_with_it(flags, tmp_path, monkeypatch):
    place = tmp_path / "trackio"
    monkeypatch.setenv("TRACKIO_DIR", str(place))  # read when trackio is imported, so in a process of its own
    run = tmp_path / "run"

    def type_in(*words):
        done = subprocess.run([sys.executable, "-c", TRACKIO, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    said = type_in(
        *flags(run, "--trackio.enable=true", "--trackio.project=arms", "--steps=4", "--save_freq=2")
    )
    assert "trackio show --project arms" in said
    name = json.loads((run / "checkpoints/last/pretrained_model/train_config.json").read_text())["trackio"]
    type_in("--resume=true", f"--output_dir={run}", "--steps=6")
    with sqlite3.connect(place / "arms.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [row[1] for row in rows] == [2, 4, 6]
    assert {row[0] for row in rows} == {name["run_name"]} and name["run_name"].startswith("act_")
    logged = [row["loss"] for row in read_metrics(run / METRICS_FILE)]
    assert [json.loads(row[2])["train/loss"] for row in rows] == pytest.approx(logged)


def test_a_space_without_a_login_is_said_before_training(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    # Without a login, or, where another test has left one in the Hub's library, without network.
    with pytest.raises((ConfigError, TrainingError), match=r"--trackio\.enable=true: "):
        train(flags(tmp_path / "run", "--trackio.enable=true", "--trackio.space_id=me/board"))
    assert not (tmp_path / "run").exists()


def test_trackio_that_is_not_installed(flags, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[trackio\]'"):
        train(flags(tmp_path / "run", "--trackio.enable=true"))
