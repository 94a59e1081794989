"""Whether what is searched are settings of a training run, and whether every value has the setting's type."""

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from lerobot.core.config import convert, fields_of, is_member, section_class, type_hints, unknown_key
from lerobot.core.errors import ConfigError
from lerobot.core.registry import family_noun, is_family
from lerobot.core.text import Text
from lerobot.search.space import Choices, Domain, Interval
from lerobot.training.config import TrainConfig

Space = Mapping[str, Domain]


def check_space(space: Space, tree: Mapping[str, Any]) -> None:
    """Check each setting's name and each of its values against the fields of a training run.

    Args:
        tree: the flags all trials share; says which policy, environment and optimizer, where one was chosen.

    Raises:
        ConfigError: no such setting (with the nearest that there is), or a value of another type.
    """
    for name, domain in space.items():
        try:
            hints = hints_of(TrainConfig, name.split("."), where="", tree=tree, space=space)
            for word in domain.words():
                _check_word(word, hints, name)
        except ConfigError as error:
            note = _whole_note(name, domain) if "whole number" in str(error) else ""
            raise ConfigError(f"--space.{name}={domain}: {error}{note}") from error


def hints_of(
    cls: Any, path: Sequence[str], *, where: str, tree: Mapping[str, Any], space: Space
) -> list[Any]:
    """Annotations of the field at a dotted path: several, when the section's type is searched too.

    Raises:
        ConfigError: there is no such field.
    """
    if is_family(cls):
        if path == ["type"]:
            return [cls]
        if path == ["path"] and family_noun(cls) == "policy":
            return [str]  # a checkpoint to start from
        return _hints_of_members(cls, path, where=where, tree=tree, space=space)
    key, rest = path[0], list(path[1:])
    known = {field.name: field for field in fields_of(cls) if field.init}
    if key not in known or (key == "type" and is_member(cls)):
        raise ConfigError(unknown_key(cls, key, where=where, tree=tree))
    hint = type_hints(cls)[key]
    if not rest:
        return [hint]
    dotted, section = f"{where}.{key}" if where else key, section_class(hint)
    if section is not None:
        below = tree.get(key)
        below = below if isinstance(below, Mapping) else {}
        return hints_of(section, rest, where=dotted, tree=below, space=space)
    if typing.get_origin(hint) is dict:  # what is left of the name is the key, dots and all
        return [typing.get_args(hint)[1]]
    raise ConfigError(f"--{dotted} is one value and has no parts such as {'.'.join(rest)}.")


def _hints_of_members(
    cls: Any, path: Sequence[str], *, where: str, tree: Mapping[str, Any], space: Space
) -> list[Any]:
    searched = space.get(f"{where}.type")
    if isinstance(searched, Choices):
        types = searched.words()
    else:  # a type that a preset or a checkpoint chooses is not known yet: the setting of any member will do
        types = [str(tree["type"])] if "type" in tree else cls.get_known_choices()
    found: list[Any] = []
    said: list[ConfigError] = []
    for name in types:
        try:
            member = cls.get_choice_class(name)
            found += hints_of(member, path, where=where, tree=tree, space=space)
        except ConfigError as error:
            said.append(error)
    if not found:
        raise said[0]
    return found


def _check_word(word: str, hints: Sequence[Any], name: str) -> None:
    """Nothing, if the word can be a value of one of the annotations."""
    said: list[ConfigError] = []
    for hint in hints:
        try:
            if is_family(hint):
                hint.get_choice_class(word)
            else:
                convert(Text(word), hint, name)
            return
        except ConfigError as error:
            said.append(error)
    raise said[0]


def _whole_note(name: str, domain: Domain) -> str:
    if not isinstance(domain, Interval) or domain.is_whole:
        return ""
    kind = "logint" if domain.is_log else "int"
    return f' Write --space.{name}="{kind}[{round(domain.low)},{round(domain.high)}]".'
