"""`--help` is the configs' own comments, and costs no torch."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lerobot.core.flags import parse
from lerobot.core.help import describe, field_comments
from lerobot.policies.act.config import ACTConfig
from lerobot.training.config import TrainConfig

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(path.stem for path in (ROOT / "lerobot" / "scripts").glob("[a-z]*.py"))
NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "mujoco", "av", "pyarrow"):
            raise AssertionError(name + " was imported for --help")
sys.meta_path.insert(0, Refuse())
from lerobot.scripts.{command} import main
main()
"""


@dataclass(kw_only=True)
class Base:
    """A base."""

    old: int = 1  # from the base


@dataclass(kw_only=True)
class Child(Base):
    """What it is for.

    More that --help leaves out.
    """

    # above the field,
    # in two lines
    above: int = 2
    same: dict[str, int] = field(default_factory=lambda: {"a": 1})  # behind a long default
    wrapped: tuple[int, ...] = (
        1,  # inside the brackets
        2,
    )
    needed: str  # must be given
    # --- a heading
    bare: float = 0.5


def help_of(command: str, *flags: str) -> subprocess.CompletedProcess:
    code = NO_TORCH.format(command=command)
    words = [sys.executable, "-c", code, *flags, "--help"]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=os.environ)


def test_comments_of_fields():
    comments = field_comments(Child)
    assert comments["old"] == "from the base"
    assert comments["above"] == "above the field, in two lines"
    assert comments["same"] == "behind a long default"
    assert comments["wrapped"] == "inside the brackets"
    assert comments["needed"] == "must be given"
    assert "bare" not in comments


def test_rows():
    text = describe(Child, {}, program="thing")
    assert text.startswith("usage: thing ")
    assert "What it is for." in text
    assert "More that" not in text
    assert "--needed (required)" in text
    assert "--above=2" in text
    assert "--same={'a': 1}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_loads_no_torch(command):
    done = help_of(command)
    assert done.returncode == 0, done.stderr
    usage = done.stdout.splitlines()[0]
    installed = f"usage: lerobot-{command.replace('_', '-')} "
    assert usage.startswith(
        (installed, f"usage: python -m lerobot.scripts.{command} ", f"usage: {command}.py ")
    )


def test_help_of_a_policy_lists_its_own_flags():
    done = help_of("train", "--policy.type=act")
    assert done.returncode == 0, done.stderr
    for name in ("chunk_size", "kl_weight", "optimizer_lr_backbone"):
        assert f"--policy.{name}=" in done.stdout
    assert "--policy.chunk_size" not in help_of("train").stdout


def test_every_field_of_training_has_a_comment_and_a_row(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(TrainConfig, ["--help", "--policy.type=act"], program="lerobot-train")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for cls, prefix in ((TrainConfig, ""), (ACTConfig, "policy.")):
        comments = field_comments(cls)
        for name in (known.name for known in dataclasses.fields(cls)):
            assert comments.get(name), f"{cls.__name__}.{name} has no comment"
            assert f"--{prefix}{name}" in text or f"\n{prefix}{name}:" in text


def test_help_of_an_unknown_type_says_the_known_ones():
    done = help_of("train", "--policy.type=atc")
    assert "Did you mean 'act'?" in done.stdout
