"""What docs/config.md says is so."""

import re
from pathlib import Path

import pytest

from lerobot.core.aliases import EVAL_ALIASES, TRAIN_ALIASES
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse
from lerobot.training.config import TrainConfig, complete

PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")


def test_its_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(code, "config.md", "exec"), {"__name__": "config_md"})


def test_its_table_of_spellings_is_whole():
    table = PAGE.split("## Other spellings")[1].split("\n## ")[0]
    for alias in {*TRAIN_ALIASES, *EVAL_ALIASES}:
        if (
            "*" not in alias.old and alias.old != "policy.visual_features"
        ):  # of a policy that has its own page
            assert f"`{alias.old}`" in table or f"`--{alias.old}`" in table, f"{alias.old} is missing"
            assert f"`--{alias.new}`" in table, f"{alias.new} is missing"


def test_its_mistakes_read_as_it_says():
    said = [line for line in PAGE.splitlines() if line.startswith("error: ")]
    flags = ["--batch_sise=1", "--chunk_size=1", "--policy.type=atc", "--batch_size=abc"]
    assert len(said) == len(flags)
    for flag, line in zip(flags, said, strict=True):
        with pytest.raises(ConfigError) as raised:
            parse(
                TrainConfig,
                ["--dataset.repo_id=a/b", "--policy.type=act", flag],
                program="lerobot-train",
                aliases=TRAIN_ALIASES,
                complete=complete,
            )
        beginning = line.removeprefix("error: ").split("The keys here")[0].split("Known:")[0].strip()
        assert str(raised.value).startswith(beginning)
