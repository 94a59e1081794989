"""What a person does wrong: one clear message, an exit status, nothing left behind, and never a traceback."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.scripts.edit_dataset import edit_dataset
from lerobot.scripts.eval import main as eval_main
from lerobot.scripts.train import main as train_main
from lerobot.scripts.train import train
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from tests.training.conftest import TINY_ACT, make_dataset

FULL = (*TINY_ACT, "--steps=2", "--batch_size=4", "--num_workers=0", "--log_freq=1", "--save_freq=1")


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    """Run a command as a shell does; gives its exit status and what it wrote to standard error."""

    monkeypatch.chdir(tmp_path)

    def run(main, words) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [main.__module__, *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        text = capsys.readouterr().err
        assert "Traceback" not in text
        starts = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(starts) == 1, text
        return left.value.code, text[text.index(starts[0]) :]

    return run


@pytest.fixture
def refused(said):
    """The message of a `lerobot-train` that is refused as a user's mistake."""

    def run(*words: str) -> str:
        status, text = said(train_main, words)
        assert status == 2, text
        return text

    return run


@pytest.fixture
def words(small_dataset, tmp_path):
    """Flags of a run that works, into `tmp_path/run`."""
    data = ["--dataset.repo_id=local/small", f"--dataset.root={small_dataset}"]
    return [*data, f"--output_dir={tmp_path / 'run'}", *FULL]


@pytest.fixture(scope="module")
def trained(small_dataset, tmp_path_factory):
    """The folder of a run of two steps; tests do not change it."""
    folder = tmp_path_factory.mktemp("mistakes") / "run"
    data = ["--dataset.repo_id=local/small", f"--dataset.root={small_dataset}"]
    train([*data, f"--output_dir={folder}", *FULL])
    return folder


# ---------------------------------------------------------------------------------- data
def test_no_dataset_of_that_name(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    text = refused("--dataset.repo_id=me/nothing", "--policy.type=act")
    assert "'me/nothing' was not found" in text and f"{tmp_path / 'home/me/nothing'} does not exist" in text
    assert "HF_HUB_OFFLINE is set" in text and "--dataset.root=FOLDER" in text


def test_no_dataset_in_that_folder(refused, tmp_path):
    text = refused("--dataset.repo_id=me/nothing", f"--dataset.root={tmp_path}", "--policy.type=act")
    assert f"{tmp_path} holds no meta/info.json" in text


def test_no_dataset_named(refused):
    assert refused("--policy.type=act") == "error: --dataset.repo_id must be given.\n"


def test_a_dataset_without_actions(refused, words, tmp_path):
    root = make_dataset(tmp_path / "silent", action=False, episodes=1)
    text = refused(*words, f"--dataset.root={root}")
    assert "no actions" in text and "It has: observation.state, observation.images.top" in text
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_cameras(refused, words, tmp_path):
    root = make_dataset(tmp_path / "blind", camera=False, episodes=1)
    assert "ACT needs a camera" in refused(*words, f"--dataset.root={root}")


def test_a_dataset_without_episodes(refused, words, tmp_path):
    root = make_dataset(tmp_path / "empty", episodes=0)
    text = refused(*words, f"--dataset.root={root}")
    assert f"{root} has no episodes yet" in text and "lerobot-record" in text


def test_statistics_of_another_shape(refused, words, tmp_path):
    root = make_dataset(tmp_path / "odd", episodes=1)
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats["action"]["mean"] = [0.0, 1.0]
    path.write_text(json.dumps(stats))
    text = refused(*words, f"--dataset.root={root}")
    assert f"{path}: mean of 'action' has shape [2], expected [3]" in text and "recompute_stats" in text
    command = shlex.split(text.split("Type: ")[1])[1:]
    edit_dataset(["--repo_id=me/odd", *command])  # what it says to type helps
    assert np.shape(json.loads(path.read_text())["action"]["mean"]) == (3,)


def test_episodes_that_are_not_there(refused, words):
    text = refused(*words, "--dataset.episodes=[0,99]")
    assert "episode 99 does not exist" in text and "3 episodes (0 to 2)" in text


# ---------------------------------------------------------------------------------- flags
@pytest.mark.parametrize(
    ("flag", "helps"),
    [
        ("--policy.type=atc", "Did you mean 'act'?"),
        ("--batch_sise=3", "Did you mean 'batch_size'?"),
        ("--policy.chunk_sizes=3", "Did you mean 'chunk_size'?"),
        ("--chunk_size=3", "Did you mean --policy.chunk_size?"),
        ("--batch_size=abc", "--batch_size=abc: expected a whole number, got 'abc'."),
        ("--batch_size=2.5", "expected a whole number, got '2.5'."),
        ("--batch_size=0", "--batch_size=0: expected at least 1."),
        ("--eval.recording=true", "evaluations during training leave none"),
        ("--policy.use_vae=maybe", "expected true or false, got 'maybe'."),
        ("--policy.n_heads=3", "dim_model=16 must be a multiple of n_heads=3"),
        ("--log_level=LOUD", "--log_level=LOUD: expected one of DEBUG, INFO, WARNING, ERROR."),
        ("--policy.lr=1e-4", "--policy.lr=1e-4 and --policy.optimizer_lr=1e-3 disagree"),
        ("--mixed_precision=half", "expected one of no, fp16, bf16 or true or false, got 'half'."),
        ("--policy.action_dim=7", "--policy.action_dim=7: the dataset's actions have size 3."),
        ("--policy.input_shapes.front=[3,8,8]", "Cameras: observation.images.top [3, 32, 32]."),
        ("train", "'train' is not a flag."),
    ],
)
def test_flags_that_are_wrong(refused, words, tmp_path, flag, helps):
    assert helps in refused(*words, flag)
    assert not (tmp_path / "run").exists()


def test_a_file_with_a_typo(refused, words, tmp_path):
    (tmp_path / "config.json").write_text('{"polcy": {"type": "act"}}')
    assert "--polcy is unknown. Did you mean 'policy'?" in refused(
        *words, f"--config={tmp_path / 'config.json'}"
    )


def test_a_file_that_is_not_json(refused, words, tmp_path):
    (tmp_path / "config.json").write_text('{"policy": ')
    assert f"{tmp_path / 'config.json'} is not valid JSON" in refused(
        *words, f"--config={tmp_path / 'config.json'}"
    )


def test_a_file_that_is_not_there(refused, words, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    text = refused(*words, f"--config_path={tmp_path / 'konfig.json'}")
    assert "there is no such file" in text and f"Did you mean '{tmp_path / 'config.json'}'?" in text
    assert "Nor is there a folder nowhere" in refused(*words, "--config_path=nowhere/config.json")


def test_two_files(refused, words, tmp_path):
    text = refused(*words, "--config_path=a.json", "--config=b.json")
    assert "--config_path=a.json and --config=b.json disagree" in text


# ---------------------------------------------------------------------------------- machine
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there(refused, words, trained, said):
    text = refused(*words, "--policy.device=cuda")
    assert "'cuda' was asked for" in text and "Type: --policy.device=cpu" in text
    status, text = said(eval_main, [f"--policy.path={trained}", "--env.type=pusht", "--policy.device=cuda"])
    assert status == 2 and "Type: --policy.device=cpu" in text


def test_a_device_that_does_not_exist(refused, words):
    assert "no kind of device called 'gpu'" in refused(*words, "--policy.device=gpu")


def test_fp16_on_a_cpu(refused, words, tmp_path):
    text = refused(*words, "--mixed_precision=fp16")
    assert "--mixed_precision=fp16 needs CUDA, this is cpu" in text and not (tmp_path / "run").exists()


def test_a_package_that_is_not_installed(refused, words, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    text = refused(*words, "--wandb.enable=true")
    assert "'wandb' is not installed. Type: pip install 'lerobot[wandb]'" in text
    assert not (tmp_path / "run").exists()  # the same command works once it is installed


# ---------------------------------------------------------------------------------- folders
def test_a_run_that_exists(refused, words, trained):
    before = sorted(trained.rglob("*"))
    text = refused(*words, f"--output_dir={trained}")
    assert f"lerobot-train --resume=true --output_dir={trained}" in text
    assert sorted(trained.rglob("*")) == before


def test_a_folder_that_holds_something_else(refused, words, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("mine")
    text = refused(*words)
    assert "holds no checkpoint to continue from" in text and "--resume" not in text


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_folder_that_is_a_file(refused, words, tmp_path, below):
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'} is a file" in refused(*words, f"--output_dir={tmp_path / 'file' / below}")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc, where nobody may write")
def test_a_folder_that_cannot_be_written(refused, words):
    text = refused(*words, "--output_dir=/proc/nothing/run")
    assert "--output_dir=/proc/nothing/run" in text and "Give another" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_folder_of_somebody_else(refused, words, tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o555)
    text = refused(*words, f"--output_dir={tmp_path / 'theirs/run'}")
    assert f"you may not write in {tmp_path / 'theirs'}" in text


# ---------------------------------------------------------------------------------- checkpoints
def test_resuming_what_was_never_saved(refused, words, tmp_path):
    text = refused(*words, "--resume=true")
    assert f"--resume=true: {tmp_path / 'run'} holds no checkpoint to continue from" in text
    assert "give --output_dir=RUN" in refused("--resume=true")


def test_resuming_what_is_finished(refused, trained):
    text = refused("--resume=true", f"--output_dir={trained}")
    assert "has taken all its 2 steps. To train longer, type: --steps=4" in text


def test_a_checkpoint_of_another_policy(refused, words, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained / "checkpoints/last/pretrained_model", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"type": "diffusion"}))
    assert "'diffusion'" in refused(*words, f"--policy.path={other}")
    (other / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "type"}))
    assert "not the config of a LeRobot policy" in refused(*words, f"--policy.path={other}")


def test_no_checkpoint_there(refused, words, tmp_path):
    text = refused(*words, f"--policy.path={tmp_path / 'none'}")
    assert f"There is no checkpoint at {tmp_path / 'none'}. Looked for:" in text


def test_cameras_of_another_size(refused, said, words, trained, tmp_path):
    root = make_dataset(tmp_path / "large", episodes=1, size=40)
    start = [f"--dataset.root={root}", f"--policy.path={trained}"]
    text = refused(*[w for w in words if not w.startswith("--policy.")], "--policy.device=cpu", *start)
    assert "observation.images.top" in text and "[3, 40, 40]" in text and "[3, 32, 32]" in text
    assert not (tmp_path / "run").exists()
    status, text = said(eval_main, ["--dataset.repo_id=local/large", *start])
    assert status == 2 and "[3, 40, 40]" in text and "[3, 32, 32]" in text


def test_a_damaged_checkpoint(refused, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    weights = tmp_path / "run/checkpoints/last/pretrained_model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert str(weights.name) in refused("--resume=true", f"--output_dir={tmp_path / 'run'}", "--steps=3")


def test_a_config_of_a_newer_release(trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    folder = tmp_path / "run/checkpoints/last/pretrained_model"
    for name in ("train_config.json", "config.json"):
        tree = json.loads((folder / name).read_text()) | {"from_the_future": {"really": True}}
        (folder / name).write_text(json.dumps(tree))
    (folder.parent / "manifest.json").unlink(missing_ok=True)
    last = train(["--resume=true", f"--output_dir={tmp_path / 'run'}", "--steps=3"])
    assert last.name == "000003"
    told = [
        r.message for r in caplog.records if "from_the_future" in r.message and "train_config" in r.message
    ]
    assert len(told) == 1


# ---------------------------------------------------------------------------------- while it runs
def spoiled(root):
    """The dataset with one recorded action that is no number, which its statistics know nothing of."""
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    actions = table["action"].to_pylist()
    actions[5][1] = float("nan")
    column = pa.array(actions, table.schema.field("action").type)
    table = table.set_column(table.schema.get_field_index("action"), table.schema.field("action"), column)
    pq.write_table(table, path)
    return root


def test_a_loss_that_is_no_number(said, words, tmp_path):
    root = spoiled(make_dataset(tmp_path / "spoiled"))
    status, text = said(train_main, [*words, f"--dataset.root={root}", "--steps=9"])
    assert status == 1 and "The loss became" in text and "look for NaN in the data" in text


def test_weights_that_are_no_numbers_are_not_saved(said, words, tmp_path):
    """An update may overflow though loss and gradient were finite; a save comes before the next loss."""
    ruin = ["--optimizer.type=sgd", "--optimizer.lr=3e38", "--log_freq=100", "--save_freq=1"]
    status, text = said(train_main, [*words, *ruin])
    assert status == 1 and "The weights became NaN or infinite before step 1." in text
    assert not (tmp_path / "run/checkpoints").exists()
    assert read_metrics(tmp_path / "run" / METRICS_FILE) == []


@pytest.mark.slow
def test_the_shell_sees_the_status_and_one_message(words):
    command = [sys.executable, "-m", "lerobot.scripts.train", *words, "--policy.type=atc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: --policy.type=atc")
