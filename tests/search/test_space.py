"""What is searched, from its text; and whether it fits the fields of a training run."""

import math

import pytest

from lerobot.core.errors import ConfigError
from lerobot.search.fields import check_space
from lerobot.search.space import Choices, Interval, flags_of, flatten, grid_of, read_domain, read_space, split

READ = {
    "log[1e-6,1e-3]": Interval(1e-6, 1e-3, is_log=True),
    " LOG [ 1e-6 , 1e-3 ] ": Interval(1e-6, 1e-3, is_log=True),
    "[0.1,0.9]": Interval(0.1, 0.9),
    "[0,1,0.25]": Interval(0, 1, 0.25),
    "[0,1,0.3]": Interval(0, 0.9, 0.3),  # 1 is not reached
    "int[8,128]": Interval(8, 128, 1, is_whole=True),
    "int[8,128,8]": Interval(8, 128, 8, is_whole=True),
    "int[50,200,40]": Interval(50, 170, 40, is_whole=True),
    "logint[8,512]": Interval(8, 512, is_whole=True, is_log=True),
    "{16,32,64}": Choices(("16", "32", "64")),
    "{true, null, some text}": Choices(("true", "null", "some text")),
    "{'a, b',\"c\"}": Choices(("a, b", "c")),
    "{[0.9,0.95],[0.9,0.999]}": Choices(("[0.9,0.95]", "[0.9,0.999]")),
}
WRONG = {
    "log[1e-3,1e-6]": "lower end first, log[1e-6,1e-3]",
    "log[0,1]": "above 0",
    "log[1,2,3]": "expected log[low,high], got 3 numbers",
    "[1]": "expected [low,high] or [low,high,step], got 1 numbers",
    "[a,1]": "'a' is no number",
    "[0,inf]": "inf is no end",
    "[0,1,2]": "at most 1",
    "[0,1,-1]": "a step above 0",
    "int[0.5,3]": "whole numbers",
    "{16}": "one choice is nothing to search; give --x=16",
    "{}": "nothing to search",
    "{1,,2}": "an empty choice",
    "{1,2,1}": "1 is listed twice",
    "ln[1,2]": "expected log[1e-6,1e-3]",
    "1e-3": "expected log[1e-6,1e-3]",
    "{1,2": "expected log[1e-6,1e-3]",
}


@pytest.mark.parametrize("text", READ)
def test_a_text_is_read(text):
    assert read_domain(text, name="x") == READ[text]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_text_is_named_with_what_was_expected(text):
    with pytest.raises(ConfigError) as raised:
        read_domain(text, name="x")
    assert str(raised.value).startswith(f"--space.x={text}: ") and WRONG[text] in str(raised.value)


@pytest.mark.parametrize("text", [text for text in READ if "'" not in text and "40" not in text])
def test_what_is_shown_is_read_again(text):
    assert read_domain(str(READ[text]), name="x") == READ[text]


def test_nested_sections_are_dotted_names_and_yaml_needs_no_quotes():
    tree = {"policy": {"dropout": [0.1, 0.9]}, "batch_size": {"16": None, "32": None}, "lr": "log[1,2]"}
    assert flatten(tree) == {"policy.dropout": "[0.1,0.9]", "batch_size": "{16,32}", "lr": "log[1,2]"}
    assert list(read_space(tree)) == ["policy.dropout", "batch_size", "lr"]
    with pytest.raises(ConfigError, match="Say what to search"):
        read_space({})


def test_commas_split_only_outside_of_brackets_and_quotes():
    assert split("a,[b,c],{d,(e,f)},'g,h'") == ["a", "[b,c]", "{d,(e,f)}", "'g,h'"]
    assert split("  ") == []


def test_flags_keep_every_digit():
    value = math.pi * 1e-5
    (flag,) = flags_of({"policy.optimizer_lr": value})
    assert float(flag.partition("=")[2]) == value
    assert flags_of({"a": "x y", "b": 3}) == ["--a=x y", "--b=3"]


def test_a_grid_counts_values_or_says_which_cannot_be_counted():
    space = read_space({"a": "[0,0.3,0.1]", "b": "int[1,3]", "c": "{x,y}"})
    assert grid_of(space) == {"a": [0, 0.1, 0.2, 0.3], "b": [1, 2, 3], "c": ["x", "y"]}
    for text in ("log[1,2]", "[0,1]", "logint[1,8]", "int[0,1000000]"):
        with pytest.raises(ConfigError, match=r"cannot count the values of --space\.a"):
            grid_of(read_space({"a": text}))


TREE = {"dataset": {"repo_id": "a/b"}, "policy": {"type": "act"}, "env": {"type": "so101"}}
FIT = {
    "policy.optimizer_lr": "log[1e-6,1e-3]",
    "policy.use_vae": "{true,false}",
    "batch_size": "logint[8,64]",
    "task": "{null,pick,yes}",
    "optimizer.weight_decay": "log[1e-6,1e-1]",  # which optimizer is the policy's choice
    "optimizer.type": "{adam,adamw,sgd}",
    "optimizer.betas": "{[0.9,0.95],[0.9,0.999]}",
    "lr_scale.vision_backbone": "log[0.01,1]",
    "mixed_precision": "{no,bf16,true}",
    "env.difficulty": "{easy,hard}",
    "ema.power": "[0.5,1]",
    "policy.path": "{me/one,me/two}",
}
UNFIT = {
    ("policy.optimzer_lr", "log[1e-6,1e-3]"): "Did you mean 'optimizer_lr'?",
    ("chunk_size", "{1,2}"): "Did you mean --policy.chunk_size?",
    ("batch_sise", "{1,2}"): "Did you mean 'batch_size'?",
    ("batch_size", "log[8,64]"): "expected a whole number",
    ("batch_size", "{16,many}"): "--batch_size=many: expected a whole number",
    ("policy.use_vae", "{true,maybe}"): "--policy.use_vae=maybe: expected true or false",
    ("optimizer.type", "{adam,adma}"): "adma",
    ("optimizer.weight_decai", "[0,1]"): "weight_decai is unknown",
    ("batch_size.x", "{1,2}"): "--batch_size is one value and has no parts such as x",
    ("mixed_precision", "{bf16,fp8}"): "fp8",
}


def test_every_setting_of_a_run_can_be_searched():
    check_space(read_space(FIT), TREE)


@pytest.mark.parametrize(("name", "text"), UNFIT)
def test_what_is_no_setting_or_no_value_of_it_is_said_at_once(name, text):
    with pytest.raises(ConfigError) as raised:
        check_space(read_space({name: text}), TREE)
    assert str(raised.value).startswith(f"--space.{name}=") and UNFIT[name, text] in str(raised.value)


def test_an_interval_for_a_whole_number_says_how_to_write_it():
    with pytest.raises(ConfigError, match=r'Write --space.batch_size="logint\[8,64\]"'):
        check_space(read_space({"batch_size": "log[8,64]"}), TREE)


def test_fields_of_any_searched_type_are_settings():
    space = {"optimizer.type": "{sgd,adam}", "optimizer.momentum": "[0,0.9]"}
    check_space(read_space(space), TREE)
    with pytest.raises(ConfigError, match="momentum"):
        check_space(read_space({"optimizer.momentum": "[0,0.9]"}), TREE | {"optimizer": {"type": "adam"}})
