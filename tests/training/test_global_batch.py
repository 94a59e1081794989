"""What --batch_size counts: frames per process, or of a whole step, whatever the number of processes."""

import pytest

from lerobot.core.aliases import TRAIN_ALIASES
from lerobot.core.config import encode
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse
from lerobot.training.config import TrainConfig, complete
from lerobot.training.global_batch import per_process, with_size


def parsed(*more: str) -> TrainConfig:
    words = ["--dataset.repo_id=me/a", "--policy.type=act", *more]
    return parse(TrainConfig, words, program="test", aliases=TRAIN_ALIASES, complete=complete)


def test_it_counts_per_process_unless_told_otherwise():
    cfg = parsed("--batch_size=10")
    assert per_process(cfg, num_processes=4) is cfg


def test_a_global_size_is_cut_into_equal_parts():
    cfg = parsed("--batch_size=48", "--batch_size_is=global", "--gradient_accumulation_steps=3")
    cut = per_process(cfg, num_processes=4)
    assert (cut.batch_size, cut.batch_size_is, cut.global_batch_size) == (4, "per_process", 48)
    assert per_process(cut, num_processes=4) is cut


@pytest.mark.parametrize(("size", "nearest"), [(49, 48), (59, 60), (5, 12), (54, 48)])
def test_one_that_cannot_be_cut_is_answered_with_the_nearest(size, nearest):
    cfg = parsed(f"--batch_size={size}", "--batch_size_is=global", "--gradient_accumulation_steps=3")
    with pytest.raises(ConfigError, match=rf"Type: --batch_size={nearest}$"):
        per_process(cfg, num_processes=4)


def test_auto_finds_a_size_per_process_from_which_that_of_a_step_follows():
    cfg = per_process(parsed("--batch_size=auto", "--batch_size_is=global"), num_processes=4)
    assert cfg.auto_batch_size and cfg.global_batch_size is None
    found = with_size(cfg, 7, num_processes=4)
    assert (found.batch_size, found.global_batch_size, found.auto_batch_size) == (7, 28, False)
    assert with_size(parsed("--batch_size=auto"), 7, num_processes=4).global_batch_size is None


def test_a_saved_config_keeps_the_step_as_large_with_other_processes():
    saved = encode(per_process(parsed("--batch_size=48", "--batch_size_is=global"), num_processes=4))
    assert saved["batch_size"] == 12 and "batch_size_is" not in saved  # what other installations read
    again = complete(saved, {})
    assert (again["batch_size"], again["batch_size_is"]) == (48, "global")
    other = complete(saved, {"batch_size": 5})
    assert (other["batch_size"], other.get("batch_size_is", "per_process")) == (5, "per_process")
    assert "global_batch_size" not in again and "global_batch_size" not in other
