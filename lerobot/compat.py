"""Old import paths in one table: code written against other LeRobot releases finds our modules under them."""

import importlib
import importlib.abc
import importlib.util
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

from lerobot.core.lazy import forward

# Old module (a pattern for its whole name) -> ours. The first match wins.
MOVED: tuple[tuple[str, str], ...] = (
    (r"lerobot\.configs\.types", "lerobot.core.types"),
    (r"lerobot\.configs\.policies", "lerobot.policies.config"),
    (r"lerobot\.configs\.train", "lerobot.training.config"),
    (r"lerobot\.configs\.eval", "lerobot.evaluation.config"),
    (r"lerobot\.lerobot_types", "lerobot.core.types"),
    (r"lerobot\.types", "lerobot.processor.step"),
    (r"lerobot\.policies\.factory", "lerobot.policies.build"),
    (r"lerobot\.policies\.pretrained", "lerobot.policies.policy"),
    (r"lerobot\.policies\.(\w+)\.configuration_\1", r"lerobot.policies.\1.config"),
    (r"lerobot\.policies\.(\w+)\.modeling_\1", r"lerobot.policies.\1.policy"),
    (r"lerobot\.datasets\.lerobot_dataset", "lerobot.datasets.dataset"),
    (r"lerobot\.datasets\.dataset_metadata", "lerobot.datasets.metadata"),
    (r"lerobot\.datasets\.streaming_dataset", "lerobot.datasets.streaming"),
    (r"lerobot\.datasets\.compute_stats", "lerobot.datasets.stats"),
    (r"lerobot\.datasets\.dataset_tools", "lerobot.datasets.edit"),
    (r"lerobot\.datasets\.video_utils", "lerobot.datasets.video"),
    (r"lerobot\.transforms(\.transforms)?", "lerobot.datasets.transforms"),
    (r"lerobot\.datasets\.(v21|v30)\.convert_dataset_\w+", "lerobot.scripts.convert_dataset_v21_to_v30"),
    (r"lerobot\.processor\.core", "lerobot.processor.step"),
    (r"lerobot\.processor\.(normalize|batch|device|rename|observation)_processor", r"lerobot.processor.\1"),
    (r"lerobot\.envs\.configs", "lerobot.envs.base"),
    (r"lerobot\.scripts\.lerobot_(\w+)", r"lerobot.scripts.\1"),
)

# Old packages that are only names now -> where each attribute lives.
EMPTIED: dict[str, dict[str, str]] = {
    "lerobot.configs": {
        "FeatureType": "lerobot.core.types",
        "NormalizationMode": "lerobot.core.types",
        "PipelineFeatureType": "lerobot.core.types",
        "PolicyFeature": "lerobot.core.types",
        "PreTrainedConfig": "lerobot.policies.config",
    },
    "lerobot.datasets.v21": {"convert_dataset": "lerobot.scripts.convert_dataset_v21_to_v30"},
    "lerobot.datasets.v30": {"convert_dataset": "lerobot.scripts.convert_dataset_v21_to_v30"},
}


def install() -> None:
    """Make the old paths importable; costs one entry in `sys.meta_path`."""
    if not any(isinstance(finder, _OldPathFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldPathFinder())


def new_name(old: str) -> str | None:
    """Our module for an old one, or None when the name is not an old one."""
    for pattern, ours in MOVED:
        match = re.fullmatch(pattern, old)
        if match:
            return match.expand(ours)
    return None


class _OldPathFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("lerobot."):
            return None
        if fullname in EMPTIED:
            return ModuleSpec(fullname, _EmptiedPackage(EMPTIED[fullname]), is_package=True)
        ours = new_name(fullname)
        real = importlib.util.find_spec(ours) if ours else None
        if real is None:
            return None
        return ModuleSpec(fullname, _SameModule(real), origin=real.origin)


class _SameModule(importlib.abc.Loader):
    """Loads nothing: the old name becomes a second name of our module."""

    def __init__(self, real: ModuleSpec) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(self.real.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.real  # the import system has just put the old name there

    def get_code(self, fullname: str) -> CodeType | None:
        """What `python -m OLD_NAME` runs."""
        return self.real.loader.get_code(self.real.name)  # type: ignore[union-attr]


class _EmptiedPackage(importlib.abc.Loader):
    """A package that only forwards attributes."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = forward(module.__name__, self.attributes)  # type: ignore[method-assign]
