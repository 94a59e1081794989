"""Members are found by listing a folder; plug-ins by the names of installed distributions, dashes or not."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lerobot.core.errors import ConfigError
from lerobot.core.registry import Choice, family_noun
from lerobot.envs.base import EnvConfig
from lerobot.optim.optimizers import OptimizerConfig
from lerobot.policies.config import PreTrainedConfig

ROOT = Path(__file__).parents[2]

PLUGIN = '''
from dataclasses import dataclass
from lerobot.policies.config import PreTrainedConfig

@PreTrainedConfig.register_subclass("{name}")
@dataclass(kw_only=True)
class PluginConfig(PreTrainedConfig):
    """A policy from elsewhere."""

    patience: int = 3  # how long it waits
'''


def install(folder: Path, distribution: str, text: str) -> None:
    """A distribution as pip leaves it behind: its module and its metadata."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")


def run(folder: Path, code: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


@pytest.mark.parametrize("distribution", ["lerobot_policy_patient", "lerobot-policy-patient"])
def test_a_plugin_is_a_type_of_every_command(tmp_path, distribution):
    install(tmp_path, distribution, PLUGIN.format(name="patient"))
    code = "from lerobot.scripts.train import main; import sys; sys.argv[1:] = {!r}; main()"
    done = run(tmp_path, code.format(["--policy.type=patient", "--help"]))
    assert "--policy.patience=3" in done.stdout, done.stderr
    (line,) = [row for row in run(tmp_path, code.format(["--help"])).stdout.splitlines() if "act, " in row]
    assert "patient" in line


def test_a_broken_plugin_is_told_and_left_out(tmp_path):
    install(tmp_path, "lerobot_policy_broken", "raise RuntimeError('no such device')")
    code = "from lerobot.policies.config import PreTrainedConfig as C; print(C.get_known_choices())"
    done = run(tmp_path, code)
    assert done.returncode == 0
    assert "'act'" in done.stdout
    assert "lerobot_policy_broken could not be imported" in done.stderr
    assert "no such device" in done.stderr


def test_other_distributions_are_not_imported(tmp_path):
    install(tmp_path, "lerobot_robot_thing", "raise SystemExit('imported')")
    install(tmp_path, "some_lerobot_policy_thing", "raise SystemExit('imported')")
    code = "from lerobot.policies.config import PreTrainedConfig as C; print(C.get_known_choices())"
    assert run(tmp_path, code).returncode == 0


def test_the_folder_is_the_list():
    folders = {path.parent.name for path in (ROOT / "lerobot" / "policies").glob("*/config.py")}
    assert folders and folders <= set(PreTrainedConfig.get_known_choices())
    modules = {path.stem for path in (ROOT / "lerobot" / "envs").glob("*.py")} - {"__init__", "base"}
    assert modules and modules <= set(EnvConfig.get_known_choices())


def test_choosing_imports_that_member_and_no_other():
    code = """
import sys
from lerobot.envs.base import EnvConfig
EnvConfig.get_choice_class("so101")
print(sorted(name for name in sys.modules if name.startswith("lerobot.envs.")))
"""
    assert run(ROOT, code).stdout.strip() == "['lerobot.envs.base', 'lerobot.envs.so101']"


def test_a_family_in_one_module():
    assert "adamw" in OptimizerConfig.get_known_choices()
    assert OptimizerConfig.get_choice_name(OptimizerConfig.get_choice_class("adamw")) == "adamw"


def test_an_unknown_member_suggests_the_nearest():
    with pytest.raises(
        ConfigError, match="There is no policy called 'atc'. Known: .*act.* Did you mean 'act'"
    ):
        PreTrainedConfig.get_choice_class("atc")


def test_nouns():
    assert family_noun(PreTrainedConfig) == "policy"
    assert family_noun(EnvConfig) == "env"
    assert family_noun(OptimizerConfig) == "optimizer"


class Shape(Choice, package="", aliases={"ball": "sphere"}):
    """A family made here."""


def test_registering():
    @Shape.register_subclass("sphere")
    @dataclass
    class Sphere(Shape):
        radius: float = 1.0

    assert Shape.get_choice_class("ball") is Sphere
    assert Sphere().type == "sphere"
    with pytest.raises(ConfigError, match="'sphere' is registered twice"):

        @Shape.register_subclass("sphere")
        class Other(Shape):
            pass

    class Nameless(Shape):
        pass

    with pytest.raises(ConfigError, match="Nameless is not registered"):
        _ = Nameless().type


def test_families_do_not_share_members():
    class One(Choice, package=""):
        pass

    class Two(Choice, package=""):
        pass

    @One.register_subclass("x")
    class X(One):
        pass

    assert One.get_known_choices() == ["x"]
    assert Two.get_known_choices() == []
