"""Command line and config files -> one tree -> one dataclass.

    defaults  <-  --config_path file (JSON or YAML)  <-  flags            each overrides what stands left of it

A flag is `--a.b.c=value` or `--a.b.c value`; dashes and underscores are the same in names; a flag without a value is
`true`. Other spellings of a name are resolved by `core.aliases` in each source, before anything is checked.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lerobot.core import log
from lerobot.core.aliases import Alias, apply_aliases
from lerobot.core.config import Text, decode, is_member, read_file, read_yaml
from lerobot.core.errors import ConfigError

T = TypeVar("T")
Tree = dict[str, Any]
CONFIG_FLAGS = ("config_path", "config")


def parse(
    cls: type[T],
    args: Sequence[str] | None = None,
    *,
    program: str,
    aliases: Sequence[Alias] = (),
    complete: Callable[[Tree, Tree], Tree] | None = None,
) -> T:
    """The config that a command line asks for.

    Args:
        args: the words after the program's name; `sys.argv` when None.
        program: name of the command, for `--help`.
        aliases: other spellings this command accepts.
        complete: (file's tree, flags' tree) -> one tree; where values follow from others (a checkpoint's own config).
            Without it flags simply override the file.

    Raises:
        ConfigError: an unknown flag, a wrong value, an unreadable file.
        SystemExit: after `--help`.
    """
    args = list(sys.argv[1:] if args is None else args)
    words = [word for word in args if word not in ("-h", "--help")]
    tree, asks_help = read_flags(words), len(words) < len(args)
    if asks_help:
        from lerobot.core.help import describe

        print(describe(cls, apply_aliases(tree, aliases), program=program))
        raise SystemExit(0)
    log.start(str(tree.get("log_level", "INFO")))
    return decode(cls, tree_of(tree, aliases=aliases, complete=complete))


def tree_of(flags: Tree, *, aliases: Sequence[Alias], complete: Callable[[Tree, Tree], Tree] | None = None) -> Tree:
    """The merged tree of a config file (if one is named) and the flags, aliases resolved, completed."""
    flags = apply_aliases(flags, aliases)
    named = [flags.pop(name) for name in CONFIG_FLAGS if name in flags]
    if len(set(named)) > 1:
        raise ConfigError(f"--config_path={named[0]} and --config={named[1]} disagree; give one of them.")
    file: Tree = {}
    if named:
        path = find_config_file(Path(named[0]))
        file = apply_aliases(read_file(path), aliases)
        flags |= {"config_path": str(path)} if complete else {}
    return complete(file, flags) if complete else merge(file, flags)


def read_flags(words: Sequence[str]) -> Tree:
    """The tree that flags spell; the last of a repeated flag wins.

    Raises:
        ConfigError: a word that is no flag.
    """
    tree: Tree = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("-") or word in ("-", "--"):
            raise ConfigError(f"{word!r} is not a flag. Flags are written --name=value; see --help.")
        name, equals, value = word.partition("=")
        if not equals:
            has_value = position < len(words) and not _is_flag(words[position])
            value = words[position] if has_value else "true"
            position += has_value
        name = name if name == "-p" else name.lstrip("-").replace("-", "_")
        put(tree, name.split("."), Text(value))
    return tree


def _is_flag(word: str) -> bool:
    """Whether a word begins a flag; `-0.5` is a value."""
    return word.startswith("--") or (word.startswith("-") and word[1:2].isalpha())


def put(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Set a value in a tree of nested dicts; a whole section that was given as text becomes a dict first."""
    for name in path[:-1]:
        below = tree.get(name)
        if isinstance(below, Text):
            below = read_yaml(below)
        if not isinstance(below, dict):
            below = {}
        tree[name] = below
        tree = below
    tree[path[-1]] = value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`base` with what `over` says; a section whose `type` changes is replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Text) and isinstance(below, dict) and value.strip().startswith("{"):
            value = read_yaml(value)
        if isinstance(below, dict) and isinstance(value, dict):
            changes_type = "type" in value and "type" in below and str(value["type"]) != str(below["type"])
            merged[key] = dict(value) if changes_type else merge(below, value)
        else:
            merged[key] = value
    return merged


def find_config_file(path: Path) -> Path:
    """The file itself, or the train_config.json of a checkpoint or run folder.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return path
    inside = ("train_config.json", "pretrained_model/train_config.json")
    inside += ("checkpoints/last/pretrained_model/train_config.json",)
    for name in inside:
        if (path / name).is_file():
            return path / name
    raise ConfigError(f"--config_path={path}: there is no such file" + (f" nor {inside[0]} in it." if path.is_dir() else "."))


def flags_of(config: Any, prefix: str = "") -> list[str]:
    """Flags that spell a config's tree; `parse` reads them back to an equal config."""
    import dataclasses

    words = [f"--{prefix}type={config.type}"] if is_member(type(config)) else []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
            words += flags_of(value, f"{prefix}{field.name}.")
        elif value is not None:
            words.append(f"--{prefix}{field.name}={value}")
    return words


