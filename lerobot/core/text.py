"""What people type and what YAML files hold, unguessed: a bare word is `Text` until its field is clear.

    --lr 1e-5   task: yes   {front: {fps: 30}}   "{'lr': 1e-05}"   ->   dicts and lists of Text, str, numbers

`core.config` turns each `Text` into what its field asks for: `yes` is a text in a task and true in a switch.
"""

import ast
import functools
import json
from pathlib import Path
from typing import Any

from lerobot.core.errors import ConfigError

FILE_SUFFIXES = (".yaml", ".yml", ".json")
NONE_WORDS = ("null", "none", "~")
BOOL_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Text(str):
    """A bare word, not yet read as a number, a switch or anything else."""


def read_scalar(text: str) -> Any:
    """A word as None, bool, int, float (1e-5 too) or text."""
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


def read_typed(text: str) -> Any:
    """A typed value: a dict, list or tuple in YAML's flow style, JSON or Python, else the text as it is.

    Raises:
        ConfigError: it opens a bracket and cannot be read.
    """
    word = text.strip()
    if not word or word[0] not in "[{(":
        return text
    if word[0] == "(" or "'" in word or '"' in word:
        try:
            return ast.literal_eval(word)  # str() of a Python dict, list or tuple; its quotes are not YAML's
        except (ValueError, SyntaxError):
            pass  # not Python: YAML then
    return read_yaml(word, source=repr(text))


def read_plain(value: Any) -> Any:
    """A value with every `Text` inside read on its own looks; for fields that take anything."""
    if isinstance(value, Text):
        typed = read_typed(value)
        return read_scalar(value) if typed is value else read_plain(typed)
    if isinstance(value, dict):
        return {key: read_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [read_plain(item) for item in value]
    return value


def read_yaml(text: str, *, source: str) -> Any:
    """YAML as dicts with text keys and lists; bare words are `Text`, quoted ones str, null and nothing None.

    `source` names it in messages.

    Raises:
        ConfigError: it is not valid YAML, or it repeats a key.
    """
    import yaml  # 15 ms that `--help` does not need

    try:
        node = yaml.compose(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    return None if node is None else _plain(node, source)


@functools.cache
def _loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _plain(node: Any, source: str) -> Any:
    if node.id == "sequence":
        return [_plain(item, source) for item in node.value]
    if node.id == "scalar":
        is_bare = not node.style  # None or "", depending on the loader
        if is_bare and (not node.value or node.value.lower() in NONE_WORDS):
            return None
        return Text(node.value) if is_bare else node.value
    tree: dict[str, Any] = {}
    for key_node, item in node.value:
        if key_node.id != "scalar":
            raise ConfigError(f"{source}: a key is {key_node.id}; keys must be words.")
        if key_node.value in tree:
            raise ConfigError(f"{source} gives the key {key_node.value!r} twice.")
        tree[key_node.value] = _plain(item, source)
    return tree


def read_file(path: Path) -> dict[str, Any]:
    """The tree in a JSON or YAML file; bare words of YAML are `Text`.

    Raises:
        ConfigError: it cannot be read, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix == ".json" else read_yaml(text, source=str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, not {type(tree).__name__}.")
    return tree
