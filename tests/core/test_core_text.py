"""Bare words stay words; brackets open as Python, JSON or YAML; files hold a mapping or say what is wrong."""

import pytest

from lerobot.core.errors import ConfigError
from lerobot.core.text import Text, read_file, read_plain, read_scalar, read_typed, read_yaml


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e-5", 1e-5),
        ("2E3", 2000.0),
        ("True", True),
        ("true", True),
        ("no", False),
        ("None", None),
        ("null", None),
        ("~", None),
        ("", ""),
        ("/dev/video0", "/dev/video0"),
        ("1:30", "1:30"),
    ],
)
def test_a_word_on_its_own_looks(word, value):
    read = read_scalar(word)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[3,240,320]", [3, 240, 320]),
        ("[a, b]", ["a", "b"]),
        ("(1, 2)", (1, 2)),
        ("{front: {type: opencv, index_or_path: 0}}", {"front": {"type": "opencv", "index_or_path": 0}}),
        ("{'a': None, 'b': 1e-05, 'c': (1, 2)}", {"a": None, "b": 1e-5, "c": (1, 2)}),
        ('{"a": null, "b": [true]}', {"a": None, "b": [True]}),
        ("{lr: 1e-5, on: yes}", {"lr": 1e-5, "on": True}),
        ("{}", {}),
        ("[]", []),
    ],
)
def test_brackets_open(text, value):
    assert read_plain(Text(text)) == value


def test_str_of_a_python_dict_keeps_backslashes():
    tree = {"path": "C:\\temp", "said": 'it\'s "fine"'}
    assert read_typed(str(tree)) == tree


def test_bare_and_quoted_words_are_told_apart():
    tree = read_yaml("a: yes\nb: 'yes'\nc: 0123\nd:\ne: null\n", source="x.yaml")
    assert tree == {"a": "yes", "b": "yes", "c": "0123", "d": None, "e": None}
    assert [type(tree[key]) for key in "abc"] == [Text, str, Text]


@pytest.mark.parametrize("text", ["{a", "[1, 2", "{a: b: c}"])
def test_an_open_bracket_is_said(text):
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_typed(text)


def test_a_key_given_twice_is_said():
    with pytest.raises(ConfigError, match="'steps' twice"):
        read_yaml("steps: 1\nsteps: 2\n", source="x.yaml")


def test_a_key_that_is_no_word_is_said():
    with pytest.raises(ConfigError, match="keys must be words"):
        read_yaml("{[1, 2]: a}", source="x.yaml")


def test_files_of_both_kinds(tmp_path):
    (tmp_path / "a.json").write_text('{"steps": 3, "optimizer": {"lr": 1e-5}}')
    (tmp_path / "a.yaml").write_text("steps: 3\noptimizer:\n  lr: 1e-5\n")
    assert read_file(tmp_path / "a.json") == read_plain(read_file(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"a": 1', "not valid JSON"),
        ("a.yaml", "a: [1", "not valid YAML"),
        ("a.yaml", "- 1\n- 2\n", "must hold a mapping"),
        ("a.json", "[1]", "must hold a mapping"),
        ("empty.yaml", "", "must hold a mapping"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said) as raised:
        read_file(tmp_path / name)
    assert name in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_file(tmp_path / "none.json")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(ConfigError, match="a.yaml"):
        read_file(tmp_path / "a.yaml")
