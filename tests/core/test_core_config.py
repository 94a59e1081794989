"""Decoding checks every type and names key, value and type; encoding is its inverse."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from lerobot.core.config import decode, encode, extra, stored_as
from lerobot.core.errors import CheckpointError, ConfigError
from lerobot.core.registry import Choice
from lerobot.core.text import Text


class Colour(StrEnum):
    RED = "RED"
    BLUE = "BLUE"


class Tool(Choice, package=""):
    """A family of two."""


@Tool.register_subclass("gripper")
@dataclass(kw_only=True)
class Gripper(Tool):
    force: float = 1.0  # newton
    fingers: int = 2  # how many


@Tool.register_subclass("suction")
@dataclass(kw_only=True)
class Suction(Tool):
    pump: str  # its name


@dataclass(kw_only=True)
class Lens:
    focal_mm: float = 35.0  # millimetres


@dataclass(kw_only=True)
class Everything:
    name: str = "arm"  # what it is called
    count: int = 1
    rate: float = 0.5
    is_on: bool = False
    folder: Path | None = None
    colour: Colour = Colour.RED
    mode: Literal["slow", "fast"] = "slow"
    port: int | str = 0
    mixed: bool | Literal["no", "bf16"] = False
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    names: list[str] = field(default_factory=list)
    table: dict[str, str] = field(default_factory=dict)
    colours: dict[Colour, int] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)
    lens: Lens = field(default_factory=Lens)
    lenses: dict[str, Lens] = field(default_factory=dict)
    tool: Tool | None = None
    every: int = stored_as("every_n", 5)
    ours: int | None = extra(None)


def given(**values: Any) -> Everything:
    return decode(Everything, values)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("name", "pick: the cube # now", "pick: the cube # now"),
        ("name", "yes", "yes"),
        ("name", "'quoted'", "'quoted'"),
        ("name", "123", "123"),
        ("name", "", ""),
        ("name", "include me", "include me"),
        ("count", "7", 7),
        ("rate", "1e-5", 1e-5),
        ("rate", "3", 3.0),
        ("is_on", "True", True),
        ("is_on", "yes", True),
        ("is_on", "off", False),
        ("folder", "None", None),
        ("folder", "null", None),
        ("folder", "a/b", Path("a/b")),
        ("colour", "blue", Colour.BLUE),
        ("mode", "FAST", "fast"),
        ("port", "0", 0),
        ("port", "/dev/video0", "/dev/video0"),
        ("mixed", "no", "no"),
        ("mixed", "true", True),
        ("sizes", "[3,240,320]", (3, 240, 320)),
        ("sizes", "(3, 4)", (3, 4)),
        ("pair", "[1, 1e-3]", (1, 0.001)),
        ("names", "[a, yes, 1]", ["a", "yes", "1"]),
        ("names", "['a: b', 'c']", ["a: b", "c"]),
        (
            "table",
            "{observation.image: observation.images.top}",
            {"observation.image": "observation.images.top"},
        ),
        ("colours", "{RED: 1, blue: 2}", {Colour.RED: 1, Colour.BLUE: 2}),
        ("anything", "{a: 1e-5, b: {c: yes}}", {"a": 1e-5, "b": {"c": True}}),
        ("lens", "{focal_mm: 50}", Lens(focal_mm=50.0)),
        ("lenses", "{front: {focal_mm: 50}}", {"front": Lens(focal_mm=50.0)}),
        ("tool", "{type: gripper, force: 2}", Gripper(force=2.0)),
        ("tool", "null", None),
        ("ours", "4", 4),
    ],
)
def test_typed_words_become_what_the_field_is(key, text, value):
    read = getattr(given(**{key: Text(text)}), key)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("count", Text("abc"), "--count=abc: expected a whole number, got 'abc'"),
        ("count", Text("1.5"), "expected a whole number"),
        ("count", True, "expected a whole number"),
        ("count", None, "expected a whole number"),
        ("rate", Text("fast"), "expected a number"),
        ("is_on", Text("1"), "--is_on=1: expected true or false, got '1'"),
        ("is_on", 2, "expected true or false"),
        ("name", 3, "expected a text"),
        ("colour", Text("bleu"), "expected one of RED, BLUE. Did you mean 'BLUE'"),
        ("mode", Text("fats"), "expected one of slow, fast. Did you mean 'fast'"),
        ("mixed", Text("fp8"), "expected one of no, bf16 or true or false"),
        ("sizes", Text("1,2"), "expected a list such as"),
        ("sizes", Text("[1, x]"), r"--sizes\[1\]=x: expected a whole number"),
        ("pair", [1, 2, 3], "expected 2 values, got 3"),
        ("table", Text("a"), "expected a mapping such as"),
        ("table", Text("{a: 1, a: 2}"), "twice"),
        ("lens", Text("50"), "expected a section such as {key: value}"),
        ("lens", {"focal": 50}, "--lens.focal is unknown. Did you mean 'focal_mm'"),
        ("lenses", {"front": {"focal_mm": "x"}}, "--lenses.front.focal_mm=x: expected a number"),
        ("tool", Text("gripper"), "expected a section such as {type: NAME}"),
        ("tool", {"force": 1}, "--tool.type must be given: one of gripper, suction"),
        ("tool", {"tpe": "gripper"}, "must be given .not 'tpe'."),
        ("tool", {"type": "griper"}, "called 'griper'. Known: gripper, suction. Did you mean 'gripper'"),
        ("tool", {"type": "gripper", "pump": "p"}, "--tool.pump is unknown"),
        ("tool", {"type": "suction"}, "--tool.pump must be given"),
        ("cuont", 1, "--cuont is unknown. Did you mean 'count'"),
        ("focal_mm", 1, "--focal_mm is unknown. Did you mean --lens.focal_mm?"),
    ],
)
def test_a_wrong_value_is_named(key, value, said):
    with pytest.raises(ConfigError, match=said):
        given(**{key: value})


def test_a_misplaced_key_is_found_in_the_chosen_member():
    with pytest.raises(ConfigError, match="--fingers is unknown. Did you mean --tool.fingers?"):
        given(fingers=3, tool={"type": "gripper"})


def test_numbers_as_text_in_json_stay_an_error():
    with pytest.raises(ConfigError, match="expected a whole number, got '8'"):
        given(count="8")


def test_the_inverse_of_encode():
    config = given(
        folder="x",
        colour="BLUE",
        sizes=[4],
        names=["a"],
        lens={"focal_mm": 1},
        tool={"type": "gripper"},
        every=3,
    )
    assert decode(Everything, json.loads(json.dumps(encode(config)))) == config


def test_files_get_plain_values_and_the_stored_names():
    tree = encode(given(tool={"type": "gripper"}, colours={"RED": 1}, folder="a"))
    assert list(tree["tool"])[0] == "type"
    assert tree["colours"] == {"RED": 1}
    assert tree["sizes"] == [1, 2]
    assert tree["folder"] == "a"
    assert tree["every_n"] == 5
    assert "every" not in tree


def test_our_own_fields_are_written_only_when_set():
    assert "ours" not in encode(given())
    assert encode(given(ours=3))["ours"] == 3


def test_both_names_of_a_stored_field_are_one_too_many():
    assert given(every_n=3).every == 3
    with pytest.raises(ConfigError, match="both given"):
        given(every=3, every_n=4)


def test_unknown_keys_are_collected_when_asked():
    unknown: dict[str, Any] = {}
    tree = {"count": 2, "future": 1, "lens": {"iris": 2}}
    assert decode(Everything, tree, unknown=unknown).count == 2
    assert unknown == {"future": 1, "lens.iris": 2}


def test_missing_fields_are_all_named():
    @dataclass(kw_only=True)
    class Needs:
        one: int
        two: int
        three: int = 3

    with pytest.raises(ConfigError, match="--part.one, --part.two must be given"):
        decode(Needs, {}, where="part")


def test_what_post_init_refuses_keeps_its_kind():
    @dataclass(kw_only=True)
    class Picky:
        size: int = 1

        def __post_init__(self) -> None:
            if self.size == 0:
                raise ValueError("size is 0")
            if self.size < 0:
                raise CheckpointError("size is negative")

    with pytest.raises(ConfigError, match="part: size is 0"):
        decode(Picky, {"size": 0}, where="part")
    with pytest.raises(CheckpointError, match="negative"):
        decode(Picky, {"size": -1})


def test_files_of_other_installations_write_switches_as_numbers():
    assert decode(Everything, {"is_on": 1}).is_on is True
