"""Names -> classes: config families whose member is chosen by `type`, found by listing a folder.

    class EnvConfig(Choice, package="lerobot.envs"): ...       one module or sub-package per member
    @EnvConfig.register_subclass("pusht")                      in lerobot/envs/pusht.py
    class PushTEnvConfig(EnvConfig): ...
    EnvConfig.get_choice_class("pusht")                        imports that one module and nothing else

Installed distributions named `lerobot_policy_*`, `lerobot_robot_*` and so on (dashes too) are found as well.
"""

import importlib
import importlib.util
import logging
import re
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

from lerobot.core.errors import ConfigError, suggest

logger = logging.getLogger(__name__)


class Choice:
    """Base of a config family; `package` names the folder (or the one module) that holds its members.

    `config_module` is the module inside a member's sub-package that registers it ("config" for policies),
    `plugins` the beginning of the names of third-party distributions that add members.
    """

    _package: ClassVar[str] = ""
    _config_module: ClassVar[str | None] = None
    _plugins: ClassVar[str | None] = None
    _members: ClassVar[dict[str, type]]
    _aliases: ClassVar[dict[str, str]] = {}

    def __init_subclass__(
        cls,
        *,
        package: str | None = None,
        config_module: str | None = None,
        plugins: str | None = None,
        aliases: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init_subclass__(**more)
        if package is not None:
            cls._package, cls._config_module, cls._plugins = package, config_module, plugins
            cls._members, cls._aliases = {}, aliases or {}

    @classmethod
    def register_subclass(cls, name: str) -> Any:
        """Decorator: the class becomes the member called `name`."""

        def register(member: type) -> type:
            taken = cls._members.get(name)
            if taken is not None and f"{taken.__module__}.{taken.__qualname__}" != (
                f"{member.__module__}.{member.__qualname__}"
            ):
                raise ConfigError(
                    f"{name!r} is registered twice: by {taken.__module__} and by {member.__module__}."
                )
            cls._members[name] = member
            return member

        return register

    @classmethod
    def get_known_choices(cls) -> list[str]:
        """Names that can be chosen, sorted; nothing is imported for it but plug-ins."""
        _import_plugins(cls)
        return sorted({*_folder_members(cls), *cls._members})

    @classmethod
    def get_choice_class(cls, name: str) -> type[Self]:
        """The member called `name` (or known under that alias).

        Raises:
            ConfigError: no such member; the message lists the known ones.
        """
        name = cls._aliases.get(name, name)
        if name not in cls._members:
            folder = _folder_members(cls)
            if name in folder:
                importlib.import_module(folder[name])
            elif not folder and cls._package:
                importlib.import_module(cls._package)
        if name not in cls._members:
            _import_plugins(cls)
        if name not in cls._members:
            known = cls.get_known_choices()
            raise ConfigError(
                f"There is no {family_noun(cls)} called {name!r}. "
                f"Known: {', '.join(known)}.{suggest(name, known)}"
            )
        return cls._members[name]

    @classmethod
    def get_choice_name(cls, member: type) -> str:
        """The registered name of a member."""
        for base in cls.__mro__:
            for name, known in base.__dict__.get("_members", {}).items():
                if known is member:
                    return name
        raise ConfigError(f"{member.__name__} is not registered; decorate it with register_subclass(...).")

    @property
    def type(self) -> str:
        """The registered name of this config; the first key of its file."""
        return self.get_choice_name(type(self))


def family_noun(cls: type[Choice]) -> str:
    """'policy' for lerobot.policies, 'env' for lerobot.envs: what a person calls a member."""
    room = cls._package.split(".")[-1] or cls.__name__.lower()
    return room[:-3] + "y" if room.endswith("ies") else room.removesuffix("s")


def is_family(annotation: Any) -> bool:
    """Whether the class is the root of a config family (its members carry a `type`)."""
    return (
        isinstance(annotation, type) and issubclass(annotation, Choice) and "_members" in annotation.__dict__
    )


def _folder_members(cls: type[Choice]) -> dict[str, str]:
    """Member name -> module to import, from the folder listing; empty for a family in a single module."""
    spec = importlib.util.find_spec(cls._package) if cls._package else None
    if spec is None or not spec.submodule_search_locations:
        return {}
    found = {}
    for folder in map(Path, spec.submodule_search_locations):
        for path in sorted(folder.iterdir()):
            if cls._config_module and (path / f"{cls._config_module}.py").is_file():
                found[path.name] = f"{cls._package}.{path.name}.{cls._config_module}"
            elif (
                not cls._config_module
                and path.suffix == ".py"
                and path.stem != "base"
                and path.stem[0] != "_"
            ):
                found[path.stem] = f"{cls._package}.{path.stem}"
    return found


def _import_plugins(cls: type[Choice]) -> None:
    """Import each installed distribution whose name begins with the family's plug-in prefix, once."""
    if cls._plugins is None or cls.__dict__.get("_plugins_imported"):
        return
    cls._plugins_imported = True  # type: ignore[attr-defined]
    for module in sorted(_installed_distributions()):
        if not module.startswith(cls._plugins):
            continue
        try:
            importlib.import_module(module)
        except Exception:  # a broken plug-in must not stop everybody else's commands
            logger.exception("The plug-in %s could not be imported and is left out.", module)


def _installed_distributions() -> set[str]:
    """Their names, spelled as modules are: from the names of their folders, since to read all takes 0.1 s."""
    names = set()
    for folder in map(Path, sys.path):
        if folder.is_dir():
            names |= {path.name for pattern in ("*.dist-info", "*.egg-info") for path in folder.glob(pattern)}
    return {re.sub(r"[-.]+", "_", re.split(r"-\d|\.egg|\.dist", name)[0]).lower() for name in names}
