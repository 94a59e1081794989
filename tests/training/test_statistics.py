"""Whose statistics a fine-tuned policy is scaled with: a flag chooses, the header says, none is missing."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lerobot.core.errors import ConfigError, MissingStatsError
from lerobot.policies.build import make_pre_post_processors
from lerobot.policies.config import PreTrainedConfig
from lerobot.scripts.train import train
from tests.training.conftest import TINY_ACT, make_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trained(flags, tmp_path):
    train(flags(tmp_path / "first", "--steps=1"))
    return tmp_path / "first"


@pytest.fixture
def louder(tmp_path):
    return make_dataset(tmp_path / "louder", scale=3.0)


def state_mean(run):
    folder = run / "checkpoints/last/pretrained_model"
    before, _ = make_pre_post_processors(PreTrainedConfig.from_pretrained(folder), folder)
    (step,) = [step for step in before.steps if hasattr(step, "stats")]
    return step.stats["observation.state"]["mean"]


def tune(trained, data, folder, *more):
    words = [f"--dataset.root={data}", "--dataset.repo_id=local/loud", "--policy.device=cpu", "--steps=1"]
    return train([*words, f"--policy.path={trained}", f"--output_dir={folder}", "--num_workers=0", *more])


def test_the_new_datas_by_default_and_the_checkpoints_when_asked(trained, louder, tmp_path, capsys):
    before = state_mean(trained)
    tune(trained, louder, tmp_path / "new")
    said = " ".join(capsys.readouterr().err.split())
    assert "those of local/loud (--statistics=checkpoint keeps those the policy was trained with)" in said
    torch.testing.assert_close(state_mean(tmp_path / "new"), before * 3)
    tune(trained, louder, tmp_path / "kept", "--statistics=checkpoint")
    assert f"those of {trained}" in " ".join(capsys.readouterr().err.split())
    assert torch.equal(state_mean(tmp_path / "kept"), before)


def test_a_resumed_run_keeps_its_own(trained, louder, tmp_path):
    tune(trained, louder, tmp_path / "kept", "--statistics=checkpoint")
    train(["--resume=true", f"--output_dir={tmp_path / 'kept'}", "--steps=2"])
    assert torch.equal(state_mean(tmp_path / "kept"), state_mean(trained))


def test_choosing_the_checkpoints_needs_one(flags, tmp_path):
    with pytest.raises(ConfigError, match="--policy.path=CHECKPOINT"):
        train(flags(tmp_path / "run", "--statistics=checkpoint"))


def without_quantiles(root):
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    for own in stats.values():
        own.pop("q01", None)
    path.write_text(json.dumps(stats))
    return root


@pytest.mark.slow
def test_missing_ones_are_named_with_what_to_type_before_anything_is_written(trained, louder, tmp_path):
    root = without_quantiles(louder)
    modes = "--policy.normalization_mapping={VISUAL: MEAN_STD, STATE: QUANTILES, ACTION: MEAN_STD}"
    with pytest.raises(MissingStatsError) as raised:
        tune(trained, root, tmp_path / "run", modes)
    text = str(raised.value)
    assert "observation.state is scaled by QUANTILES, which needs q01 and q99" in text
    assert "found: count, max, mean, min" in text and "action is scaled" not in text
    (command,) = re.findall(r"type: (python -m .*? --overwrite)", text)
    assert command.endswith(f"--repo-id=local/loud --root={root} --overwrite")
    assert "--statistics=checkpoint" in text
    assert not (tmp_path / "run").exists()
    words = ["--dataset.repo_id=local/loud", f"--dataset.root={root}", *TINY_ACT, modes, "--steps=1"]
    with pytest.raises(MissingStatsError) as raised:
        train([*words, f"--output_dir={tmp_path / 'run'}"])
    assert "--statistics" not in str(raised.value)  # a new policy has no others
    subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=ROOT, check=True, capture_output=True)
    tune(trained, root, tmp_path / "run", modes)  # what it said to type did help
