"""Dataclass <-> plain values (JSON, YAML): decoding checks every type, encoding is what our files hold.

    file or flags --core.text--> tree of dicts, lists, scalars, Text --decode--> dataclass --encode--> JSON

What a `Text` means depends on the field it is for: `yes` is a text in a task and true in a switch.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from lerobot.core.errors import ConfigError, LeRobotError, suggest
from lerobot.core.registry import Choice, family_noun, is_family
from lerobot.core.text import FILE_SUFFIXES, NONE_WORDS, Text, read_file, read_plain, read_scalar, read_typed

T = TypeVar("T")


def extra(default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING) -> Any:
    """A field of ours that other LeRobot releases do not know: it is written to files only when it is set.

    `default` and `factory` are those of `dataclasses.field`.
    """
    return dataclasses.field(default=default, default_factory=factory, metadata={"extra": True})


def stored_as(name: str, default: Any) -> Any:
    """A field that files call `name`."""
    return dataclasses.field(default=default, metadata={"stored_as": name})


# ----------------------------------------------------------------------------------------------------- encode
def encode(value: Any) -> Any:
    """The JSON view of a config: `type` first, enums by value, tuples as lists, paths as strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        head = {"type": value.type} if isinstance(value, Choice) and is_member(type(value)) else {}
        return head | {
            stored_name(field): encode(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (field.metadata.get("extra") and getattr(value, field.name) == default_of(field))
        }
    if isinstance(value, Mapping):
        return {str(encode(key)): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def stored_name(field: dataclasses.Field) -> str:
    """What files call a field."""
    return str(field.metadata.get("stored_as", field.name))


def is_member(cls: type) -> bool:
    """Whether the class was registered in a family, that is, whether its file begins with `type`."""
    return any(is_family(base) for base in cls.__mro__)


def default_of(field: dataclasses.Field) -> Any:
    """A field's default, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


# ----------------------------------------------------------------------------------------------------- decode
def decode(
    cls: type[T], tree: Mapping[str, Any], *, where: str = "", unknown: dict[str, Any] | None = None
) -> T:
    """A `cls` from a tree of plain values (or `Text`).

    Args:
        where: dotted name of this section, for messages.
        unknown: when given, keys that no field has are collected here (dotted) instead of being an error;
            that is how files of newer releases are read.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of the wrong type.
    """
    if is_family(cls):
        cls = member_of(cls, tree, where)
    tree = {key: value for key, value in tree.items() if not (key == "type" and is_member(cls))}
    hints, values = type_hints(cls), {}
    fields = {field.name: field for field in fields_of(cls) if field.init}
    names = {stored_name(field): name for name, field in fields.items()} | {name: name for name in fields}
    for key, value in tree.items():
        dotted, name = f"{where}.{key}" if where else key, names.get(key)
        if name in values:
            raise ConfigError(f"--{dotted} and another spelling of it were both given; give one of them.")
        if name is not None:
            values[name] = convert(value, hints[name], dotted, unknown)
            if is_dotted(value) and isinstance(default := default_of(fields[name]), dict):
                values[name] = {**default, **values[name]}
        elif unknown is not None:
            unknown[dotted] = value
        else:
            raise ConfigError(unknown_key(cls, key, where=where, tree=tree))
    absent = [n for n, f in fields.items() if n not in values and default_of(f) is dataclasses.MISSING]
    if absent:
        flags = [f for n in absent for f in required_flags(f"{where}.{n}" if where else n, hints[n])]
        raise ConfigError(f"{', '.join(flags)} must be given.")
    try:
        return cls(**values)
    except LeRobotError:
        raise
    except (ValueError, TypeError) as error:  # what a __post_init__ refuses
        raise ConfigError(f"{where or cls.__name__}: {error}") from error


def is_dotted(value: Any) -> bool:
    """Whether these are single entries of a mapping, --name.key=value, and not the whole of it."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(one, Text) for one in value.values())


def required_flags(name: str, hint: Any) -> list[str]:
    """The flags without which a field has no value: its own, or those its section cannot do without."""
    section = section_class(hint)
    if section is None:
        return [f"--{name}"]
    if is_family(section):
        return [f"--{name}.type"]
    hints = type_hints(section)
    fields = [f for f in fields_of(section) if f.init and default_of(f) is dataclasses.MISSING]
    return [flag for f in fields for flag in required_flags(f"{name}.{f.name}", hints[f.name])] or [
        f"--{name}"
    ]


def member_of(family: Any, tree: Mapping[str, Any], where: str) -> type:
    """The class that `tree["type"]` chooses.

    Raises:
        ConfigError: no `type`, or an unknown one.
    """
    flag = f"--{where}.type" if where else "'type'"
    if "type" not in tree:
        near = next((f" (not {key!r})" for key in tree if suggest(key, ["type"])), "")
        raise ConfigError(f"{flag} must be given{near}: one of {', '.join(family.get_known_choices())}.")
    try:
        return family.get_choice_class(str(tree["type"]))
    except ConfigError as error:
        raise ConfigError(f"{flag}={tree['type']}: {error}") from error


def type_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a dataclass."""
    return typing.get_type_hints(cls)


def fields_of(cls: Any) -> tuple[dataclasses.Field, ...]:
    """Fields of a dataclass, or of one of its instances."""
    return dataclasses.fields(cls)


def section_class(hint: Any) -> type | None:
    """The dataclass or family that a field of this annotation holds, if it holds one."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    sections = (o for o in options if isinstance(o, type) and (dataclasses.is_dataclass(o) or is_family(o)))
    return next(sections, None)


def unknown_key(cls: type, key: str, *, where: str, tree: Mapping[str, Any]) -> str:
    """The message for a key that no field has: where it belongs or the nearest name first, then all."""
    known = [field.name for field in fields_of(cls) if field.init]
    near = _belongs(cls, key, where=where, tree=tree) or suggest(key, known)
    title = f"The keys of {where}" if where else "The keys here"
    return (
        f"--{where}.{key} is unknown.".replace("--.", "--") + f"{near} {title}: {', '.join(sorted(known))}."
    )


def _belongs(cls: type, key: str, *, where: str, tree: Mapping[str, Any]) -> str:
    """' Did you mean --policy.chunk_size?' when a sub-section has that key."""
    for name, hint in type_hints(cls).items():
        section, given = section_class(hint), tree.get(name)
        if section is None:
            continue
        if is_family(section) and isinstance(given, Mapping) and "type" in given:
            section = member_of(section, given, name)
        if dataclasses.is_dataclass(section) and any(field.name == key for field in fields_of(section)):
            return f" Did you mean --{where + '.' if where else ''}{name}.{key}?"
    return ""


def convert(value: Any, hint: Any, where: str, unknown: dict[str, Any] | None = None) -> Any:
    """`value` as the annotated type.

    Raises:
        ConfigError: it cannot be; the message names the key, the value and the type.
    """
    origin: Any = typing.get_origin(hint)
    args = typing.get_args(hint)
    if _is_union(hint):
        return _convert_union(value, args, where, unknown)
    if hint is Any or hint is object:
        return read_plain(value)
    if origin is Literal:
        return _convert_literal(value, args, where)
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or is_family(hint)):
        return _convert_section(value, hint, where, unknown)
    if origin in (dict, Mapping) or hint is dict:
        return _convert_dict(value, args or (Any, Any), where, unknown)
    if origin in (list, tuple, set, frozenset) or hint in (list, tuple):
        return _convert_sequence(value, origin or hint, args, where, unknown)
    return _convert_scalar(value, hint, where)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _convert_union(value: Any, args: tuple, where: str, unknown: dict[str, Any] | None) -> Any:
    is_none = value is None or (isinstance(value, Text) and value.strip().lower() in NONE_WORDS)
    if is_none and type(None) in args:
        return None
    # The choosiest first: 'no' may be one of the listed words, `0` for an int-or-path field is a number.
    options = [option for option in args if option is not type(None)]
    order = sorted(options, key=_looseness)
    said = []
    for hint in order:
        try:
            return convert(value, hint, where, unknown)
        except ConfigError as error:
            said.append(error)
    raise said[0] if len(said) == 1 else wrong_value(where, value, *order)


def _looseness(option: Any) -> int:
    if option in (str, Path):
        return 2
    origin: Any = typing.get_origin(option)
    return 0 if origin is Literal else 1


def _convert_literal(value: Any, allowed: tuple, where: str) -> Any:
    for choice in allowed:
        if value == choice or (isinstance(value, Text) and value.strip().lower() == str(choice).lower()):
            return choice
    names = [str(choice) for choice in allowed]
    raise ConfigError(f"--{where}={value}: expected one of {', '.join(names)}.{suggest(str(value), names)}")


def _convert_section(value: Any, hint: type, where: str, unknown: dict[str, Any] | None) -> Any:
    if isinstance(value, hint):
        return value
    if isinstance(value, Text):
        value = read_section(value)
    if not isinstance(value, Mapping):
        raise wrong_value(where, value, hint)
    return decode(hint, value, where=where, unknown=unknown)


def read_section(text: Text) -> Any:
    """What a whole section given as one value says: a mapping, or a file that holds one."""
    return read_file(Path(text)) if Path(text).suffix in FILE_SUFFIXES else read_typed(text)


def _convert_dict(value: Any, args: tuple, where: str, unknown: dict[str, Any] | None) -> dict:
    key_type, item_type = args
    if isinstance(value, Text):
        value = read_typed(value)
    if not isinstance(value, Mapping):
        raise wrong_value(where, value, dict)
    if not _holds_mappings(item_type):
        value = _join_dotted(value)
    return {
        k if key_type is Any else convert(Text(k), key_type, where): convert(
            v, item_type, f"{where}.{k}", unknown
        )
        for k, v in value.items()
    }


def _holds_mappings(hint: Any) -> bool:
    hints = typing.get_args(hint) if _is_union(hint) else (hint,)
    return any(
        h is Any or typing.get_origin(h) is dict or h is dict or dataclasses.is_dataclass(h) or is_family(h)
        for h in hints
    )


def _join_dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Undo the nesting that a flag's dots made where keys themselves hold dots (`observation.images.top`)."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _join_dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _convert_sequence(value: Any, kind: type, args: tuple, where: str, unknown: dict[str, Any] | None) -> Any:
    if isinstance(value, Text):
        value = read_typed(value)
    if not isinstance(value, (list, tuple)):
        raise wrong_value(where, value, kind)
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise ConfigError(f"--{where}={list(value)}: expected {len(args)} values, got {len(value)}.")
        hints: list[Any] = list(args)
    else:
        hints = [args[0] if args else Any] * len(value)
    items = [
        convert(v, h, f"{where}[{i}]", unknown) for i, (v, h) in enumerate(zip(value, hints, strict=True))
    ]
    return kind(items)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is str:
        if isinstance(value, str):  # task texts are taken to the letter: colons, quotes, #, yes
            return str(value)
    elif hint is Path:
        if isinstance(value, (str, Path)) and str(value):
            return Path(value)
    elif isinstance(hint, type) and issubclass(hint, Enum):
        names = {member.value: member for member in hint}
        if str(value) in names or str(value).upper() in names:
            return names.get(str(value)) or names[str(value).upper()]
        raise ConfigError(
            f"--{where}={value}: expected one of {', '.join(names)}.{suggest(str(value), names)}"
        )
    else:
        plain = read_scalar(value) if isinstance(value, Text) else value
        if hint is bool and isinstance(plain, bool):
            return plain
        if hint is bool and plain in (0, 1) and not isinstance(value, Text):  # files of other installations
            return bool(plain)
        if hint is int and isinstance(plain, int) and not isinstance(plain, bool):
            return plain
        if hint is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
            return float(plain)
    raise wrong_value(where, value, hint)


def wrong_value(where: str, value: Any, *hints: Any) -> ConfigError:
    """The error for a value that is none of these types."""
    return ConfigError(f"--{where}={value}: expected {' or '.join(map(_said, hints))}, got {str(value)!r}.")


WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    dict: "a mapping such as {key: value}",
    list: "a list such as [1, 2]",
    tuple: "a list such as [1, 2]",
}


def _said(hint: Any) -> str:
    """A type in words."""
    kind: Any = typing.get_origin(hint) or hint
    if kind is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hint))
    if is_family(kind):
        return f"a section such as {{type: NAME}} with the fields of that {family_noun(kind)}"
    if dataclasses.is_dataclass(kind):
        return "a section such as {key: value}, or a .yaml or .json file"
    return WORDS.get(kind) or str(getattr(kind, "__name__", kind))
