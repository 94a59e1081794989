"""`--help`: every flag with its default and its comment, read from the config classes themselves."""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from collections.abc import Mapping
from typing import Any

from lerobot.core.config import default_of, encode, section_class, type_hints
from lerobot.core.errors import ConfigError
from lerobot.core.registry import family_noun, is_family

WIDTH = 44


def describe(cls: type, tree: Mapping[str, Any], *, program: str) -> str:
    """The help text; sections whose `type` is chosen in `tree` list that type's own fields."""
    lines = [f"usage: {program} [--name=value ...] [--config_path=FILE]", ""]
    about = inspect.getdoc(cls)
    lines += [about.split("\n\n")[0], ""] if about else []
    lines.append(
        "  --config_path=FILE".ljust(WIDTH) + "  JSON or YAML file; flags override it (--config is the same)"
    )
    return "\n".join(lines + _rows(cls, tree, ""))


def _rows(cls: type, tree: Mapping[str, Any], prefix: str) -> list[str]:
    """Rows of a section: its plain fields first, then its sub-sections."""
    comments, hints = field_comments(cls), type_hints(cls)
    plain, nested = [], []
    for field in dataclasses.fields(cls):
        name, comment = f"{prefix}{field.name}", comments.get(field.name, "")
        section = section_class(hints[field.name])
        if section is None:
            plain.append(_row(f"--{name}{_shown(field)}", comment))
            continue
        chosen = tree.get(field.name, {})
        chosen = chosen if isinstance(chosen, Mapping) else {}
        nested += ["", f"{name}: {comment}" if comment else f"{name}:"]
        nested += (
            _family_rows(section, chosen, name) if is_family(section) else _rows(section, chosen, f"{name}.")
        )
    return plain + nested


def _family_rows(family: Any, chosen: Mapping[str, Any], name: str) -> list[str]:
    known = family.get_known_choices()
    rows = [_row(f"--{name}.type=...", f"one of: {', '.join(known)}")]
    if family_noun(family) == "policy":
        rows.append(_row(f"--{name}.path=...", "checkpoint folder, run folder or Hub id to start from"))
    if "type" not in chosen:
        return [
            *rows,
            f"  give --{name}.type=NAME with --help to list that {family_noun(family)}'s own flags",
        ]
    try:
        member = family.get_choice_class(str(chosen["type"]))
    except ConfigError as error:
        return [*rows, f"  {error}"]
    return rows + _rows(member, chosen, f"{name}.")


def _row(flag: str, comment: str) -> str:
    left = f"  {flag}"
    if not comment:
        return left
    return f"{left.ljust(WIDTH)}  {comment}" if len(left) < WIDTH else f"{left}\n{'':{WIDTH}}  {comment}"


def _shown(field: dataclasses.Field) -> str:
    default = default_of(field)
    if default is dataclasses.MISSING:
        return " (required)"
    plain = encode(default)
    words = {None: "null", True: "true", False: "false"}
    return f"={words[plain] if isinstance(plain, (bool, type(None))) else plain}"


def field_comments(cls: type) -> dict[str, str]:
    """Field name -> the comment in its statement (or on the lines right above it), base classes included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _comments_of(base)
    return found


def _comments_of(cls: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:  # a class typed into a console has no source
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
    lines, found = source.splitlines(), {}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for field in body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        said = [comments[n] for n in range(field.lineno, (field.end_lineno or 0) + 1) if n in comments]
        above = field.lineno - 1
        while not said and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        said = said or [comments[n] for n in range(above + 1, field.lineno)]
        found[field.target.id] = " ".join(said)
    # Headings between groups of fields begin with a rule or a dash.
    return {name: text for name, text in found.items() if text and not text.startswith("-")}
