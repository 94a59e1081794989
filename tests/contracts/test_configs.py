"""Every registered config of every family survives files and flags. Members join by being registered."""

import ast
import dataclasses
import importlib
import json
import types
import typing
from enum import Enum
from pathlib import Path

import pytest

from lerobot.core.config import decode, default_of, encode, type_hints
from lerobot.core.errors import LeRobotError
from lerobot.core.flags import flags_of, parse
from lerobot.core.help import describe, field_comments
from lerobot.datasets.transforms.config import ImageTransformsConfig

ROOT = Path(__file__).parents[2]
REQUIRED = {str: "given", int: 1, float: 1.0, bool: True, Path: Path("given"), typing.Any: "given"}


def families() -> list[type]:
    """The roots of all config families: classes that name the package of their members."""
    found = []
    for path in sorted((ROOT / "lerobot").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(keyword.arg == "package" for keyword in node.keywords):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.append(getattr(importlib.import_module(module), node.name))
    return found


MEMBERS = [(family, name) for family in families() for name in family.get_known_choices()]
IDS = [f"{family.__name__}-{name}" for family, name in MEMBERS]


def examples(cls: type) -> list:
    """Its defaults, its tiny form, and one config per field that differs from the defaults in that field."""
    hints, fields = type_hints(cls), [field for field in dataclasses.fields(cls) if field.init]
    needed = [field.name for field in fields if default_of(field) is dataclasses.MISSING]
    base = simplest(cls, {name: first(hints[name]) for name in needed})
    found = [base, *([cls.tiny()] if hasattr(cls, "tiny") else [])]
    for field in fields:
        for value in changes(getattr(base, field.name), hints[field.name]):
            try:
                found.append(dataclasses.replace(base, **{field.name: value}))
            except (LeRobotError, ValueError):
                continue  # a value that this config refuses
            break
    return found


def simplest(cls, values: dict):
    """Its defaults; where they do not fit each other, with what may be None given too."""
    try:
        return cls(**values)
    except LeRobotError:
        hints = type_hints(cls)
        absent = [f.name for f in dataclasses.fields(cls) if f.init and default_of(f) is None]
        return cls(**{name: others(None, hints[name])[0] for name in absent} | values)


def first(hint):
    """A value of this type."""
    kind, options = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return options[0]
    if kind in (typing.Union, types.UnionType):
        return first(next(option for option in options if option is not type(None)))
    if kind is list:
        return [first(options[0])]
    if kind is dict:
        return {first(options[0]): first(options[1])}
    return REQUIRED[hint]


def changes(value, hint) -> list:
    """Values of this type that are not this one."""
    return [other for other in others(value, hint) if other != value]


def others(value, hint) -> list:
    """Further values of this type, the likely ones first."""
    options = [o for o in typing.get_args(hint) or [hint] if o is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return [choice for choice in options if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, Enum):
        return [member for member in type(value) if member is not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value - 1, value // 2]
    if isinstance(value, float):
        return [value / 3, value + 0.125, 1e-7]
    if isinstance(value, str):
        return [f'{value}: it\'s # "so"', f"{value}2"]
    if isinstance(value, (list, tuple)) and value:
        return [value[::-1], value[:1]]
    if isinstance(value, dict) and value:
        return [dict(list(value.items())[:1])]
    return [REQUIRED[option] for option in options if value is None and option in REQUIRED]


@pytest.fixture(params=MEMBERS, ids=IDS)
def member(request):
    family, name = request.param
    return family, name, family.get_choice_class(name)


def holder(family: type) -> type:
    """A command's config with one section of this family."""
    return dataclasses.make_dataclass("Holder", [("part", family)], kw_only=True)


def test_it_is_registered_once_and_under_its_name(member):
    _, name, cls = member
    assert [config.type for config in examples(cls)] == [name] * len(examples(cls))


def test_enough_is_tried(member):
    """Of the fields that have a value to vary, most are varied."""
    _, _, cls = member
    base, *changed = examples(cls)
    hints = type_hints(cls)
    possible = [f for f in dataclasses.fields(cls) if changes(getattr(base, f.name), hints[f.name])]
    assert len([config for config in changed if config != base]) >= 0.75 * len(possible)


def test_through_a_file(member, tmp_path):
    family, name, cls = member
    for config in examples(cls):
        text = json.dumps(encode(config))
        assert next(iter(json.loads(text).items())) == ("type", name)
        assert decode(family, json.loads(text)) == config
    (tmp_path / "all.json").write_text(json.dumps({"part": encode(config)}))
    assert parse(holder(family), [f"--config_path={tmp_path / 'all.json'}"], program="test").part == config


def test_through_flags(member):
    family, _, cls = member
    for config in examples(cls):
        assert parse(holder(family), flags_of(config, "part."), program="test").part == config


def test_through_the_flags_that_scripts_make_of_it(member):
    """`f"--part.{key}={value}"` of all values that are not None, as people write it by hand."""
    family, name, cls = member
    by_default = {field.name: default_of(field) for field in dataclasses.fields(cls)}
    for config in examples(cls):
        if any(value is None and by_default.get(key) is not None for key, value in config.__dict__.items()):
            continue  # what was switched off is not among those flags
        if any(dataclasses.is_dataclass(value) for value in config.__dict__.values()):
            continue  # what Python prints of a section is no flag
        words = [f"--part.{key}={value}" for key, value in config.__dict__.items() if value is not None]
        assert parse(holder(family), [f"--part.type={name}", *words], program="test").part == config


def test_help_says_what_each_field_is(member):
    family, name, cls = member
    text, comments = describe(holder(family), {"part": {"type": name}}, program="test"), field_comments(cls)
    for field in dataclasses.fields(cls):
        if field.init:
            assert f"--part.{field.name}" in text
            assert comments.get(field.name), f"{cls.__name__}.{field.name} has no comment"


def test_an_unknown_key_is_an_error(member):
    family, name, _ = member
    with pytest.raises(LeRobotError, match="--part.no_such_key is unknown"):
        parse(holder(family), [f"--part.type={name}", "--part.no_such_key=1"], program="test")


def test_the_families_are_found():
    assert {"PreTrainedConfig", "EnvConfig", "OptimizerConfig", "LRSchedulerConfig"} <= {
        f.__name__ for f in families()
    }


def test_image_transforms_through_files_and_flags():
    """No family, but stored in every training run: other installations read what we write."""
    found = examples(ImageTransformsConfig)
    assert len(found) == 5
    for config in found:
        assert decode(ImageTransformsConfig, json.loads(json.dumps(encode(config)))) == config
        assert parse(holder(ImageTransformsConfig), flags_of(config, "part."), program="test").part == config
