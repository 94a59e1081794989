"""Policy type -> policy class: `act/config.py` registers the name, `act/policy.py` holds the class.

Third-party packages may call the two modules `configuration_x` and `modeling_x`.
"""

import importlib
from typing import Any

from lerobot.core.errors import ConfigError
from lerobot.policies.config import PreTrainedConfig


def get_policy_class(name: str) -> type[Any]:
    """The class of `--policy.type=name`.

    Raises:
        ConfigError: no such policy; the message lists the known ones.
    """
    config_class = PreTrainedConfig.get_choice_class(name)
    module_name = sibling(config_class, "policy", "modeling")
    module = importlib.import_module(module_name)
    for found in vars(module).values():
        if isinstance(found, type) and getattr(found, "config_class", None) is config_class:
            return found
    raise ConfigError(f"{module_name} holds no class whose config_class is {config_class.__name__}.")


def sibling(config_class: type, ours: str, theirs: str) -> str:
    """The module beside a config's: `act.config` -> `act.{ours}`, `configuration_x` -> `{theirs}_x`."""
    package, _, module = config_class.__module__.rpartition(".")
    name = ours if module == "config" else module.replace("configuration", theirs)
    return f"{package}.{name}" if package else name
