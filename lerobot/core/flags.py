"""Command line and config files -> one tree -> one dataclass.

    defaults  <-  --config_path file (JSON or YAML)  <-  flags         each overrides what stands left of it

A flag is `--a.b.c=value` or `--a.b.c value`; dashes and underscores are the same in names; a flag without a
value is `true`. Other spellings are resolved by `core.aliases` in each source, before anything is checked.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lerobot.core import log
from lerobot.core.aliases import Alias, apply_aliases
from lerobot.core.config import decode, default_of, encode, is_member, read_section, section_class, type_hints
from lerobot.core.errors import ConfigError, suggest
from lerobot.core.files import follow_pointer
from lerobot.core.text import FILE_SUFFIXES, Text, read_file

logger = logging.getLogger(__name__)
T = TypeVar("T")
Tree = dict[str, Any]
CONFIG_FLAGS = ("config_path", "config")
TRAIN_CONFIG = "train_config.json"
IN_A_RUN = (
    TRAIN_CONFIG,
    f"pretrained_model/{TRAIN_CONFIG}",
    f"checkpoints/last/pretrained_model/{TRAIN_CONFIG}",
)


def parse(
    cls: type[T],
    args: Sequence[str] | None = None,
    *,
    program: str,
    aliases: Sequence[Alias] = (),
    complete: Callable[[Tree, Tree], Tree] | None = None,
    find: Callable[[str, Tree], Path] | None = None,
) -> T:
    """The config that a command line asks for.

    Args:
        args: the words after the program's name; `sys.argv` when None.
        program: name of the command, for `--help`.
        aliases: other spellings this command accepts.
        complete: (file's tree, flags' tree) -> one tree; where values follow from others (a checkpoint's own
            config). Without it flags simply override the file.
        find: (what `--config_path` names, flags' tree) -> the file; for names that are not paths.

    Raises:
        ConfigError: an unknown flag, a wrong value, an unreadable file.
        SystemExit: after `--help`.
    """
    args = list(sys.argv[1:] if args is None else args)
    words = [word for word in args if word not in ("-h", "--help")]
    tree, asks_help = open_sections(cls, read_flags(words)), len(words) < len(args)
    if asks_help:
        from lerobot.core.help import describe

        print(describe(cls, apply_aliases(tree, aliases), program=program))
        raise SystemExit(0)
    log.start(str(tree.get("log_level", "INFO")))
    tree = tree_of(tree, aliases=aliases, complete=complete, find=find)
    log.start(str(tree.get("log_level", "INFO")))  # a file may say it too
    config = decode(cls, tree)
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("The whole configuration: %s", json.dumps(encode(config), default=str))
    return config


def tree_of(
    flags: Tree,
    *,
    aliases: Sequence[Alias],
    complete: Callable[[Tree, Tree], Tree] | None = None,
    find: Callable[[str, Tree], Path] | None = None,
) -> Tree:
    """The merged tree of a config file (if one is named) and the flags, aliases resolved, completed."""
    flags = apply_aliases(flags, aliases)
    named = [flags.pop(name) for name in CONFIG_FLAGS if name in flags]
    if len(set(named)) > 1:
        raise ConfigError(f"--config_path={named[0]} and --config={named[1]} disagree; give one of them.")
    file: Tree = {}
    if named:
        path = find(str(named[0]), flags) if find else find_config_file(Path(named[0]))
        file = apply_aliases(read_file(path), aliases)
        flags |= {"config_path": str(path)} if complete else {}
    return complete(file, flags) if complete else merge(file, flags)


def read_flags(words: Sequence[str]) -> Tree:
    """The tree that flags spell; the last of a repeated flag wins.

    Raises:
        ConfigError: a word that is no flag.
    """
    flags: list[tuple[list[str], Text]] = []
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
        flags.append((name.split("."), Text(value)))
    tree: Tree = {}
    # Whole sections before their fields, so that `--env.task=x --env=env.yaml` says the same in either order.
    for path, text in sorted(flags, key=lambda flag: len(flag[0])):
        put(tree, path, text)
    return tree


def _is_flag(word: str) -> bool:
    """Whether a word begins a flag; `-0.5` is a value."""
    return word.startswith("--") or (word.startswith("-") and word[1:2].isalpha())


def put(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Set a value in a tree of nested dicts; a whole section that was given as text is opened first.

    Raises:
        ConfigError: a part of the path was given as a single value.
    """
    for depth, name in enumerate(path[:-1], start=1):
        below = tree.get(name, {})
        opened = read_section(below) if isinstance(below, Text) else below
        if not isinstance(opened, dict):
            raise ConfigError(
                f"--{'.'.join(path[:depth])}={below} and --{'.'.join(path)}={value} cannot both be given."
            )
        tree[name] = tree = opened
    tree[path[-1]] = value


def open_sections(cls: type, tree: Tree) -> Tree:
    """The tree with sections that were given whole (`--env "{type: pusht}"`, `--env env.yaml`) as dicts."""
    opened = dict(tree)
    for name, hint in type_hints(cls).items():
        value = tree.get(name)
        if isinstance(value, Text) and section_class(hint) and _holds_section(value):
            opened[name] = read_section(value)
    return opened


def _holds_section(value: Text) -> bool:
    return value.strip().startswith("{") or Path(value).suffix in FILE_SUFFIXES


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`base` with what `over` says; a section whose `type` changes is replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Text) and isinstance(below, dict) and value.strip().startswith("{"):
            value = read_section(value)
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
    path = follow_pointer(path)
    if path.is_file():
        return path
    for name in IN_A_RUN:
        if follow_pointer(path / name).is_file():
            return follow_pointer(path / name)
    if path.is_dir():
        raise ConfigError(f"--config_path={path}: there is no {' nor '.join(IN_A_RUN)} in this folder.")
    if path.parent.is_dir():
        there = [str(neighbour) for neighbour in path.parent.iterdir()]
        near = suggest(str(path), there)
    else:
        near = f" Nor is there a folder {path.parent}."
    raise ConfigError(f"--config_path={path}: there is no such file.{near}")


def flags_of(config: Any, prefix: str = "") -> list[str]:
    """Flags that spell a config; `parse` reads them back to an equal one."""
    words = [f"--{prefix}type={config.type}"] if is_member(type(config)) else []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if section_class(type_hints(type(config))[field.name]) and value is not None:
            words += flags_of(value, f"{prefix}{field.name}.")
        elif value is not None:
            words.append(f"--{prefix}{field.name}={encode(value)}")
        elif default_of(field) not in (None, dataclasses.MISSING):
            words.append(f"--{prefix}{field.name}=null")
    return words
