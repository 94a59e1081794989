"""`--dataset.image_transforms` in runs: other pictures, and the same ones however the run is run."""

import json
import shutil

import pytest
import torch

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse
from lerobot.scripts.train import train
from lerobot.training.augmentation import Augmentation
from lerobot.training.config import TrainConfig, complete, load_train_config
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics

ON = ["--dataset.image_transforms.enable=true", "--log_freq=1"]


def losses(run):
    return [row["loss"] for row in read_metrics(run / METRICS_FILE)]


@pytest.mark.slow
def test_workers_and_a_resume_change_nothing(flags, tmp_path):
    """Nine steps of 4 are one epoch of the 36 frames: the second half of the run is in the second epoch."""
    more = [*ON, "--steps=12", "--save_freq=10"]
    train(flags(tmp_path / "none", *more, "--num_workers=0"))
    train(flags(tmp_path / "threads", *more, "--num_workers=3"))
    assert losses(tmp_path / "none") == losses(tmp_path / "threads")
    shutil.copytree(tmp_path / "none", tmp_path / "again", symlinks=True)
    saved = tmp_path / "again/checkpoints/000010/pretrained_model/train_config.json"
    train([f"--config_path={saved}", "--resume=true"])
    assert losses(tmp_path / "again") == losses(tmp_path / "none")
    train(flags(tmp_path / "plain", "--log_freq=1", "--num_workers=0"))
    assert losses(tmp_path / "plain")[0] != losses(tmp_path / "none")[0]


def test_the_config_is_stored_as_other_installations_store_it(flags, tmp_path):
    tfs = "--dataset.image_transforms.tfs={far: {weight: 2.0, type: GaussianBlur, kwargs: {kernel_size: 3}}}"
    last = train(flags(tmp_path / "run", *ON, "--steps=1", tfs))
    path = last / "pretrained_model/train_config.json"
    assert json.loads(path.read_text())["dataset"]["image_transforms"] == {
        "enable": True,
        "max_num_transforms": 3,
        "random_order": False,
        "tfs": {"far": {"weight": 2.0, "type": "GaussianBlur", "kwargs": {"kernel_size": 3}}},
    }
    assert load_train_config(path).dataset.image_transforms.tfs["far"].weight == 2.0


class Cameras:
    """What an augmentation asks a dataset's metadata."""

    def __init__(self, colour, depth):
        self.camera_keys, self.depth_keys = colour + depth, depth


def run_config(flags, folder):
    return parse(TrainConfig, flags(folder, *ON), program="test", aliases=TRAIN_ALIASES, complete=complete)


def test_a_dataset_without_colour_cameras_is_refused(flags, tmp_path):
    with pytest.raises(ConfigError, match="no colour camera"):
        Augmentation(run_config(flags, tmp_path / "run"), Cameras([], ["observation.images.depth"]))


def test_depth_and_batches_that_are_not_numbered_stay(flags, tmp_path):
    """Validation batches never were numbered, and see pictures as they are."""
    cameras = Cameras(["observation.images.top"], ["observation.images.depth"])
    augmentation = Augmentation(run_config(flags, tmp_path / "run"), cameras)
    assert augmentation.cameras == ["observation.images.top"]
    batch = {"observation.images.top": torch.rand(2, 3, 8, 8)}
    assert augmentation(batch) is batch
