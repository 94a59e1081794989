"""LIBERO-plus: the suites of LIBERO with changed cameras, light, words and layouts (Fei et al. 2025).

Its package takes the place of LIBERO's: same modules, same suites, more tasks.
"""

from dataclasses import dataclass

from lerobot.envs.base import EnvConfig
from lerobot.envs.libero import LiberoEnvConfig


@EnvConfig.register_subclass("libero_plus")
@dataclass(kw_only=True)
class LiberoPlusEnvConfig(LiberoEnvConfig):
    """LIBERO-plus; its package is installed from its repository in place of hf-libero."""

    # A suite, or several with commas: libero_spatial, libero_object, libero_goal, libero_10.
    task: str | None = "libero_spatial"
    # Whether the package installed is LIBERO-plus, whose suites have the same names and more tasks.
    is_libero_plus: bool = True
