"""Where the order of frames goes on in a resumed run: from its checkpoint, whatever changed since."""

import json
import logging

import pytest
import torch

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import decode
from lerobot.core.flags import read_flags, tree_of
from lerobot.distributed.world import World
from lerobot.scripts.train import train
from lerobot.training.checkpoints.state import restore_state
from lerobot.training.config import TrainConfig, complete
from lerobot.training.run import start
from tests.training.conftest import make_dataset


@pytest.fixture
def saved(flags, tmp_path):
    """A run that stopped after 3 of 6 steps of 4 frames."""
    return train(flags(tmp_path / "run", "--steps=3", "--save_freq=3"))


def resumed(checkpoint, *more, rank=0, size=1):
    words = [
        f"--config_path={checkpoint / 'pretrained_model/train_config.json'}",
        "--resume=true",
        "--steps=6",
    ]
    tree = tree_of(read_flags([*words, *more]), aliases=TRAIN_ALIASES, complete=complete)
    run = start(decode(TrainConfig, tree), World(rank=rank, size=1, local_rank=0, device=torch.device("cpu")))
    run.loader.rank, run.loader.num_ranks = rank, size
    restore_state(run)
    return run


def order_of(run, count):
    batches = run.loader.index_batches()
    return sum((next(batches) for _ in range(count)), [])


def extra_state(checkpoint):
    return checkpoint / "training_state/extra_state.json"


def test_a_checkpoint_holds_how_far_the_order_was_followed(saved):
    state = json.loads(extra_state(saved).read_text())["sampler"]
    assert state == {"seed": 1000, "epoch": 0, "offset": 12, "frames_per_epoch": 36}


def test_another_batch_size_or_number_of_processes_goes_on_with_the_same_frames(saved):
    expected = order_of(resumed(saved), 6)  # the 24 frames that are left of the epoch
    assert len(set(expected)) == 24
    assert order_of(resumed(saved, "--batch_size=6"), 4) == expected
    ranks = [order_of(resumed(saved, "--batch_size=2", rank=r, size=3), 4) for r in range(3)]
    assert sorted(sum(ranks, [])) == sorted(expected)


def test_another_seed_does_not_change_the_order_and_says_so(saved, caplog):
    expected = order_of(resumed(saved), 3)
    with caplog.at_level(logging.WARNING):
        assert order_of(resumed(saved, "--seed=5"), 3) == expected
    assert "first seed, 1000" in caplog.text


def test_data_that_grew_begins_a_new_epoch_and_says_so(saved, tmp_path, caplog):
    grown = make_dataset(tmp_path / "grown", episodes=4)
    with caplog.at_level(logging.WARNING):
        run = resumed(saved, f"--dataset.root={grown}")
    assert (run.loader.start.epoch, run.loader.start.offset) == (1, 0)
    assert "48 frames per epoch and had 36" in caplog.text


def test_a_checkpoint_of_another_release_goes_on_by_its_step(saved):
    expected = order_of(resumed(saved), 3)
    manifest = saved / "manifest.json"
    extra_state(saved).unlink()
    manifest.unlink()
    assert order_of(resumed(saved), 3) == expected
