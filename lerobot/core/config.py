"""Dataclass <-> plain values (JSON, YAML): decoding checks every type, encoding is what our files hold.

    file or flags --(text)--> tree of dicts, lists, scalars, Text --decode--> dataclass --encode--> JSON

`Text` marks a value that was typed on a command line: what it means depends on the field it is for.
"""

import ast
import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from lerobot.core.errors import ConfigError, suggest
from lerobot.core.registry import is_family

T = TypeVar("T")
FILE_SUFFIXES = (".yaml", ".yml", ".json")
NONE_WORDS = ("null", "none", "~")
BOOL_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Text(str):
    """A value as typed on the command line, not yet read as a number, list or anything else."""


def extra(default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING) -> Any:
    """A field of ours that other LeRobot releases do not know: it is written to files only when it is set.

    `default` and `factory` are those of `dataclasses.field`.
    """
    return dataclasses.field(default=default, default_factory=factory, metadata={"extra": True})


def stored_as(name: str, default: Any) -> Any:
    """A field that files call `name`."""
    return dataclasses.field(default=default, metadata={"stored_as": name})


# --------------------------------------------------------------------------------------------------------- encode
def encode(value: Any) -> Any:
    """The JSON view of a config: `type` first, enums by value, tuples as lists, paths as strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        head = {"type": value.type} if is_member(type(value)) else {}
        return head | {
            field.metadata.get("stored_as", field.name): encode(getattr(value, field.name))
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


def is_member(cls: type) -> bool:
    """Whether the class was registered in a family, that is, whether its file begins with `type`."""
    return any(is_family(base) for base in cls.__mro__)


def default_of(field: dataclasses.Field) -> Any:
    """A field's default, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


# --------------------------------------------------------------------------------------------------------- decode
def decode(cls: type[T], tree: Mapping[str, Any], *, where: str = "", unknown: dict[str, Any] | None = None) -> T:
    """A `cls` from a tree of plain values (or `Text`).

    Args:
        where: dotted name of this section, for messages.
        unknown: when given, keys that no field has are collected here (dotted) instead of being an error; that is how
            files of newer releases are read.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of the wrong type.
    """
    if is_family(cls):
        cls = member_of(cls, tree, where)
    tree = {key: value for key, value in tree.items() if not (key == "type" and is_member(cls))}
    hints, values = type_hints(cls), {}
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key, value in tree.items():
        dotted = f"{where}.{key}" if where else key
        if key in fields:
            values[key] = convert(value, hints[key], dotted, unknown)
        elif unknown is not None:
            unknown[dotted] = value
        else:
            raise ConfigError(unknown_key(dotted, key, fields))
    absent = [n for n, f in fields.items() if n not in values and default_of(f) is dataclasses.MISSING]
    if absent:
        flags = ", ".join(f"--{where}.{name}" if where else f"--{name}" for name in absent)
        raise ConfigError(f"{flags} must be given.")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:  # what a __post_init__ refuses
        raise ConfigError(f"{where or cls.__name__}: {error}") from error


def member_of(family: type, tree: Mapping[str, Any], where: str) -> type:
    """The class that `tree["type"]` chooses.

    Raises:
        ConfigError: no `type`, or an unknown one.
    """
    if "type" not in tree:
        raise ConfigError(
            f"--{where}.type must be given (one of {', '.join(family.get_known_choices())})."  # type: ignore[attr-defined]
        )
    try:
        return family.get_choice_class(str(tree["type"]))  # type: ignore[attr-defined]
    except ConfigError as error:
        raise ConfigError(f"--{where}.type={tree['type']}: {error}") from error


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a dataclass."""
    return typing.get_type_hints(cls)


def unknown_key(dotted: str, key: str, known: typing.Iterable[str]) -> str:
    """The message for a key that no field has: nearest names first, then all of them."""
    names = list(known)
    section = dotted.rpartition(".")[0]
    title = f"the valid keys of {section}" if section else "the valid ones"
    return f"--{dotted} is unknown.{suggest(key, names)} Among {title}: {', '.join(sorted(names))}."


def convert(value: Any, hint: Any, where: str, unknown: dict[str, Any] | None = None) -> Any:
    """`value` as the annotated type.

    Raises:
        ConfigError: it cannot be; the message names the key, the value and the type.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, where, unknown)
    if hint is Any or hint is object:
        return read_yaml(value) if isinstance(value, Text) else value
    if origin is Literal:
        return _convert_literal(value, args, where)
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or is_family(hint)):
        return _convert_section(value, hint, where, unknown)
    if origin in (dict, Mapping) or hint is dict:
        return _convert_dict(value, args or (Any, Any), where, unknown)
    if origin in (list, tuple, set, frozenset) or hint in (list, tuple):
        return _convert_sequence(value, origin or hint, args, where, unknown)
    return _convert_scalar(value, hint, where)


def _convert_union(value: Any, args: tuple, where: str, unknown: dict[str, Any] | None) -> Any:
    if value is None or (isinstance(value, Text) and value.strip().lower() in NONE_WORDS):
        if type(None) in args:
            return None
    # Numbers before text: `0` for an int-or-path field is a number, `/dev/video0` is not.
    order = sorted((a for a in args if a is not type(None)), key=lambda a: a in (str, Path))
    said = []
    for hint in order:
        try:
            return convert(value, hint, where, unknown)
        except ConfigError as error:
            said.append(error)
    raise said[0] if len(said) == 1 else wrong_value(where, value, Union[tuple(order)])  # noqa: UP007


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
        value = read_file(Path(value)) if Path(value).suffix in FILE_SUFFIXES else read_yaml(value)
    if not isinstance(value, Mapping):
        raise wrong_value(where, value, hint)
    return decode(hint, value, where=where, unknown=unknown)


def _convert_dict(value: Any, args: tuple, where: str, unknown: dict[str, Any] | None) -> dict:
    key_type, item_type = args
    if isinstance(value, Text):
        value = read_yaml(value)
    if not isinstance(value, Mapping):
        raise wrong_value(where, value, dict)
    if not _holds_mappings(item_type):
        value = _join_dotted(value)
    return {
        convert(Text(str(k)), key_type, where): convert(v, item_type, f"{where}.{k}", unknown)
        for k, v in value.items()
    }


def _holds_mappings(hint: Any) -> bool:
    hints = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return any(
        h is Any or typing.get_origin(h) is dict or h is dict or dataclasses.is_dataclass(h) or is_family(h)
        for h in hints
    )


def _join_dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Undo the nesting that dots in a flag made where keys hold dots themselves (`observation.images.top`)."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _join_dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _convert_sequence(value: Any, kind: type, args: tuple, where: str, unknown: dict[str, Any] | None) -> Any:
    if isinstance(value, Text):
        value = read_yaml(value)
    if not isinstance(value, (list, tuple)):
        raise wrong_value(where, value, kind)
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise ConfigError(f"--{where}={list(value)}: expected {len(args)} values, got {len(value)}.")
        hints: list[Any] = list(args)
    else:
        hints = [args[0] if args else Any] * len(value)
    items = [convert(v, h, f"{where}[{i}]", unknown) for i, (v, h) in enumerate(zip(value, hints, strict=True))]
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
        raise ConfigError(f"--{where}={value}: expected one of {', '.join(names)}.{suggest(str(value), names)}")
    else:
        plain = read_scalar(value) if isinstance(value, Text) else value
        if hint is bool and isinstance(plain, bool):
            return plain
        if hint is int and isinstance(plain, int) and not isinstance(plain, bool):
            return plain
        if hint is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
            return float(plain)
    raise wrong_value(where, value, hint)


def wrong_value(where: str, value: Any, hint: Any) -> ConfigError:
    """The error for a value of the wrong type."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    words |= {dict: "a mapping such as {key: value}", list: "a list such as [1, 2]", tuple: "a list such as [1, 2]"}
    said = words.get(hint) or (hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", ""))
    return ConfigError(f"--{where}={value}: expected {said}, got {str(value)!r}.")


def read_scalar(text: str) -> Any:
    """A typed word as None, bool, int, float (1e-5 too) or text."""
    word = text.strip()
    if word.lower() in NONE_WORDS:
        return None
    if word.lower() in BOOL_WORDS:
        return BOOL_WORDS[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return str(text)


def read_yaml(text: str) -> Any:
    """A typed value as YAML or as a Python literal; a scalar follows `read_scalar`, so 1e-5 is a number."""
    import yaml  # 15 ms that `--help` does not need

    word = text.strip()
    if not word or word[0] not in "[{(":
        return read_scalar(text)
    try:
        return ast.literal_eval(word)  # str() of a Python dict, list or tuple
    except (ValueError, SyntaxError):
        pass  # not Python: YAML's flow style then
    try:
        return _mend_numbers(yaml.safe_load(word))
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} cannot be read as YAML: {' '.join(str(error).split())}") from error


def _mend_numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as text and None as text; people mean a number and nothing."""
    if isinstance(value, dict):
        return {key: _mend_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mend_numbers(item) for item in value]
    if isinstance(value, str) and (value == "None" or value[:1] in "+-.0123456789"):
        return read_scalar(value)
    return value


def read_file(path: Path) -> dict[str, Any]:
    """The tree in a JSON or YAML file.

    Raises:
        ConfigError: it cannot be read, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            tree = json.loads(text)
        else:
            import yaml

            tree = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        raise
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, not {type(tree).__name__}.")
    return tree
