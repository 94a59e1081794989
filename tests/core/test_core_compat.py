"""Code written against other LeRobot releases finds our modules under the paths it knows."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lerobot import compat
from lerobot.policies.config import PreTrainedConfig

ROOT = Path(__file__).parents[2]


def old_names() -> list[tuple[str, str]]:
    """(old, new) for every entry of the table, each of its groups filled with what it may stand for."""
    found = []
    for pattern, _ in compat.MOVED:
        group = re.search(r"\(([^)]+)\)", pattern)
        words = group[1].split("|") if group else [""]
        if words == [r"\w+"]:
            words = ["act"] if "policies" in pattern else ["train", "eval"]
        for word in words:
            plain = pattern.replace(group[0], word) if group else pattern
            old = plain.replace(r"\1", word).replace(r"\.", ".")
            found.append((old, str(compat.new_name(old))))
    return found


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


THERE = [(old, new) for old, new in old_names() if is_there(new)]


def test_the_table_leads_somewhere():
    assert len(THERE) >= 12
    assert ("lerobot.configs.types", "lerobot.core.types") in THERE
    assert ("lerobot.policies.act.modeling_act", "lerobot.policies.act.policy") in THERE
    assert ("lerobot.scripts.lerobot_train", "lerobot.scripts.train") in THERE


@pytest.mark.parametrize(("old", "new"), THERE, ids=[old for old, _ in THERE])
def test_an_old_name_is_the_same_module(old, new):
    assert importlib.import_module(old) is importlib.import_module(new)
    assert importlib.import_module(new).__spec__.name == new


@pytest.mark.parametrize("policy", PreTrainedConfig.get_known_choices())
def test_every_policy_under_its_old_file_names(policy):
    for old, new in (("configuration", "config"), ("modeling", "policy")):
        module = importlib.import_module(f"lerobot.policies.{policy}.{old}_{policy}")
        assert module is importlib.import_module(f"lerobot.policies.{policy}.{new}")


def test_from_imports_as_people_write_them():
    from lerobot.configs import FeatureType, PreTrainedConfig as FromPackage  # noqa: I001
    from lerobot.configs.policies import PreTrainedConfig as FromModule
    from lerobot.configs.types import FeatureType as FromTypes
    from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.lerobot_dataset import LeRobotDataset as Old
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.factory import make_policy, make_pre_post_processors
    from lerobot.scripts.lerobot_train import train

    assert FromPackage is FromModule is PreTrainedConfig
    assert FeatureType is FromTypes
    assert Old is LeRobotDataset
    assert issubclass(ACTConfig, PreTrainedConfig)
    assert all(map(callable, (make_policy, make_pre_post_processors, train)))


@pytest.mark.parametrize("name", ["lerobot.scripts.lerobot_train", "lerobot.scripts.train"])
def test_python_m_with_both_names(name):
    done = subprocess.run([sys.executable, "-m", name, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: lerobot-train")


def test_the_file_itself_from_the_repo_root():
    done = subprocess.run(
        [sys.executable, "lerobot/scripts/train.py", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: lerobot-train")


@pytest.mark.parametrize(
    "name", ["lerobot.nothing", "lerobot.policies.act.modeling_vqbet", "lerobot.configs.nothing"]
)
def test_what_never_was_is_still_missing(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_an_emptied_package_has_only_what_it_had():
    import lerobot.configs

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lerobot.configs.nothing


def test_installing_twice_is_installing_once():
    before = list(sys.meta_path)
    compat.install()
    assert sys.meta_path == before
