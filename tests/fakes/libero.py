"""Puts the stand-in for LIBERO, with a folder of suites, where `import libero` finds it."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

PACKAGE = Path(__file__).parent / "libero_package"
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
NUM_STATES = 5


@contextmanager
def installed(folder: Path, *, words: str = "") -> Iterator[Path]:
    """The LIBERO_CONFIG_PATH of a stand-in: five recorded states per task, `words` in its task files."""
    for suite in SUITES:
        for kind in ("bddl", "init"):
            (folder / kind / suite).mkdir(parents=True)
        for i in range(10):
            states = np.linspace([i, 0, 0], [i, 0.1, 0.1], NUM_STATES)
            (folder / "bddl" / suite / f"{suite}_lift_{i}.bddl").write_text(words)
            torch.save(states, folder / "init" / suite / f"{suite}_lift_{i}.pruned_init")
    config = folder / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text(
        yaml.safe_dump({"bddl_files": str(folder / "bddl"), "init_states": str(folder / "init")})
    )
    real = _taken_out()
    sys.modules.update(_robosuite())
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(PACKAGE))
            patch.setenv("LIBERO_CONFIG_PATH", str(config.parent))
            yield config.parent
    finally:
        _taken_out()
        sys.modules.update(real)


def _taken_out() -> dict:
    """The modules of both packages that are loaded; they no longer are afterwards."""
    names = [name for name in sys.modules if name.split(".")[0] in ("libero", "robosuite")]
    return {name: sys.modules.pop(name) for name in names}


def _robosuite() -> dict[str, types.ModuleType]:
    """The only thing of robosuite that is asked for: the error of a scene without room."""
    names = ("robosuite", "robosuite.utils", "robosuite.utils.errors")
    modules = {name: types.ModuleType(name) for name in names}
    modules[names[-1]].RandomizationError = type("RandomizationError", (Exception,), {})
    return modules
