"""Ending a run early: what counts as better, when it ends, that a resumed run goes on counting."""

import json

import pytest

from lerobot.core.errors import ConfigError
from lerobot.scripts.train import train
from lerobot.training.contradictions import is_better_lower
from lerobot.training.logs.metrics import METRICS_FILE, read_metrics
from lerobot.training.patience import Patience
from lerobot.training.sections import EarlyStoppingConfig


def patience(metric="eval/loss", **how) -> Patience:
    return Patience(EarlyStoppingConfig(metric=metric, **how))


def watch(one: Patience, values) -> list[bool]:
    seen = []
    for step, value in enumerate(values, start=1):
        one.see({"step": step, one.metric: value})
        seen.append(one.is_over)
    return seen


@pytest.mark.parametrize("metric", ["loss", "eval/loss", "action_mse", "l1_loss", "eval/action_mae"])
def test_lower_is_better(metric):
    assert is_better_lower(metric) is True
    assert watch(patience(metric, patience=2), [3, 2, 2.5, 2]) == [False, False, False, True]


@pytest.mark.parametrize("metric", ["eval/success_rate", "eval/avg_sum_reward"])
def test_higher_is_better(metric):
    assert is_better_lower(metric) is False
    assert watch(patience(metric, patience=2), [0.1, 0.5, 0.4, 0.5]) == [False, False, False, True]


def test_an_improvement_begins_the_count_anew():
    assert watch(patience(patience=2), [3, 4, 2, 4, 1, 4, 4]) == [False] * 6 + [True]


def test_small_changes_are_no_improvement():
    assert watch(patience(patience=2, min_delta=0.1), [1.0, 0.95, 0.92]) == [False, False, True]
    assert watch(patience(patience=2, min_delta=0.1), [1.0, 0.95, 0.85]) == [False, False, False]


def test_what_is_no_number_is_no_improvement():
    one = patience(patience=2)
    assert watch(one, [float("nan"), float("inf")]) == [False, True]
    assert "was never a number" in one.reason()


def test_rows_without_the_metric_do_not_count():
    one = patience(patience=1)
    watch(one, [1.0])
    one.see({"step": 5, "loss": 9.0})
    assert not one.is_over


def test_a_metric_that_is_never_logged_is_an_error():
    with pytest.raises(ConfigError, match="Did you mean 'kld_loss'"):
        patience("kl_loss").see({"step": 1, "loss": 1.0, "kld_loss": 0.1})


def test_the_count_survives_a_resume():
    one = patience(patience=3)
    watch(one, [1.0, 2.0, 3.0])
    again = patience(patience=3)
    again.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert (again.best, again.best_step, again.waited) == (1.0, 1, 2)
    other = patience("eval/success_rate", patience=3)
    other.load_state_dict(one.state_dict())
    assert other.waited == 0
    with pytest.raises(ConfigError, match=r"was best at step 1: 1, and no better in 2 .*patience=4"):
        patience(patience=2).load_state_dict(one.state_dict())


ENDING = ("--early_stopping.min_delta=99", "--dataset.eval_split=0.3", "--eval_steps=2")
WATCHING = ("--early_stopping.metric=eval/loss", "--early_stopping.patience=2")


@pytest.mark.slow
def test_a_run_ends_saves_and_says_why(flags, tmp_path, capsys):
    last = train(flags(tmp_path / "run", *ENDING, *WATCHING, "--steps=20", "--save_freq=0"))
    assert last.name == "000006"  # best at 2, no better at 4 and 6
    assert (tmp_path / "run/report.html").is_file()
    said = capsys.readouterr().err
    assert "Ended early after step 6: eval/loss was best at step 2" in said and "next " in said
    assert read_metrics(tmp_path / "run" / METRICS_FILE)[-1]["step"] == 6
    resume = ["--resume=true", f"--output_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"To train longer, type: --early_stopping.patience=4"):
        train(resume)
    assert train([*resume, "--early_stopping.patience=4"]).name == "000010"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--early_stopping.metric=eval/loss"], "never measured: give --eval_steps=N"),
        (["--early_stopping.metric=eval/success_rate"], "never measured: give --env.type=NAME"),
        (["--early_stopping.metric=speed"], "does not tell whether lower or higher is better"),
        (["--early_stopping.metric=loss", "--early_stopping.patience=0"], "patience=0: expected at least 1"),
        (["--early_stopping.metric=loss", "--early_stopping.min_delta=-1"], "min_delta=-1.0: expected"),
    ],
)
def test_mistakes(flags, tmp_path, words, message):
    with pytest.raises(ConfigError) as error:
        train(flags(tmp_path / "run", *words))
    assert message in str(error.value) and not (tmp_path / "run").exists()
