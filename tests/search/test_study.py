"""A search as a whole: what it tries, stops, counts, keeps, continues, and says when it cannot."""

import json
import os
import signal
import sys
import time

import optuna
import pytest

from lerobot.core.errors import ConfigError, MissingExtraError, TrainingError
from lerobot.search.config import parse_search
from lerobot.search.plan import make_plan
from lerobot.search.store import claim_folder, locked, open_study
from lerobot.search.strategy import build_pruner, build_sampler
from lerobot.search.trial import Ending
from tests.fakes.trials import valley
from tests.search.conftest import BASE, LR


def flat(flags):
    return [{"step": step, "eval/loss": 1.0} for step in (1, 2)], Ending(0)


@pytest.mark.slow
def test_it_finds_the_valley_and_writes_what_it_found(search, tmp_path):
    results = search(*BASE, LR, "--n_trials=16")
    assert 3e-4 < results.best.params["policy.optimizer_lr"] < 3e-3
    assert results.counts() == {"finished": 16}
    tree = json.loads((tmp_path / "out/study.json").read_text())
    best = tree["best"]
    assert tree["trials"][best["number"]]["value"] == min(trial["value"] for trial in tree["trials"])
    assert f"--policy.optimizer_lr={best['params']['policy.optimizer_lr']!r}" in best["command"].split()
    assert best["command"].startswith("lerobot-train ") and "--space" not in best["command"]
    assert tree["importance"] == {"policy.optimizer_lr": 1.0}
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<svg") == 4 and "lerobot-train" in page and "http" not in page
    study = optuna.load_study(study_name="lerobot", storage=f"sqlite:///{tmp_path}/out/study.db")
    assert study.best_value == best["value"] and len(study.trials) == 16


@pytest.mark.slow
def test_the_same_seed_tries_the_same_and_another_seed_does_not(search, tmp_path):
    def tried(seed):
        found = search(
            *BASE,
            LR,
            "--n_trials=7",
            "--startup_trials=4",
            f"--seed={seed}",
            f"--output_dir={tmp_path / str(seed)}",
        )
        assert all(f"--seed={int(seed)}" in trial.job.flags for trial in search.executor.trials)
        return [trial.params for trial in found.trials]

    assert tried("1") == tried("01") != tried("2")


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_stopped(search):
    results = search(*BASE, "--pruner=median", "--startup_trials=3", LR, "--n_trials=9")
    pruned = [trial for trial in results.trials if trial.state == "pruned"]
    assert pruned and all("fell behind at step" in trial.reason for trial in pruned)
    assert all(
        trial.is_stopped for trial in search.executor.trials if trial.job.number in {t.number for t in pruned}
    )
    assert all(trial.value > results.best.value and len(trial.steps) < 5 for trial in pruned)
    late = search(
        *BASE,
        "--pruner=median",
        "--startup_trials=3",
        "--warmup_steps=4",
        LR,
        "--n_trials=6",
        f"--output_dir={results.plan.folder}_late",
    )
    assert all(len(trial.steps) >= 4 for trial in late.trials)


def test_a_trial_that_fails_ends_alone_and_a_value_that_is_no_number_is_a_failure(search):
    def story(flags):
        lr = float(flags["policy.optimizer_lr"])
        if lr > 1e-3:
            return [], Ending(137, "killed from outside")
        return [{"step": 1, "eval/loss": float("nan") if lr < 1e-5 else lr}], Ending(0)

    results = search(
        *BASE, "--space.policy.optimizer_lr={1e-6,1e-4,1e-2}", "--sampler=grid", "--n_jobs=3", story=story
    )
    said = {trial.reason for trial in results.trials if trial.state == "failed"}
    assert said == {"killed from outside", "it ended with the value nan of eval/loss"}
    assert results.best is not None and results.counts() == {"finished": 1, "failed": 2}


def test_three_failures_before_the_first_success_end_the_search(search, tmp_path):
    with pytest.raises(TrainingError) as raised:
        search(*BASE, LR, "--n_trials=9", story=lambda flags: ([], Ending(1, "the disk is full")))
    assert "first 3 trials failed; the last one: the disk is full" in str(raised.value)
    assert "trials/0002/log.txt" in str(raised.value) and raised.value.exit_status == 1
    trials = json.loads((tmp_path / "out/study.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["failed"] * 3


def test_combinations_that_the_config_refuses_are_noted_and_do_not_count(search):
    results = search(
        *BASE, "--policy.chunk_size=10", "--space.policy.n_action_steps=int[1,40]", "--n_trials=4", story=flat
    )
    refused = [trial for trial in results.trials if trial.state == "refused"]
    assert refused and all(trial.params["policy.n_action_steps"] > 10 for trial in refused)
    assert all("chunk_size=10" in trial.reason for trial in refused)
    assert results.counts()["finished"] == 4 and len(search.executor.trials) <= 4
    with pytest.raises(ConfigError, match="chunk_size=10"):  # none goes
        search(*BASE, "--policy.chunk_size=10", "--space.policy.n_action_steps=int[11,40]", "--output_dir=x")


def test_flags_that_the_run_itself_refuses_are_no_failures_of_the_machine(search):
    def story(flags):
        if int(flags["batch_size"]) > 8:
            return [], Ending(2, "batch_size does not fit")
        return flat(flags)

    results = search(*BASE, "--space.batch_size={4,8,16}", "--sampler=grid", story=story)
    assert {trial.params["batch_size"]: trial.state for trial in results.trials}["16"] == "refused"


def test_equal_values_are_not_trained_twice_with_one_seed(search, tmp_path):
    results = search(*BASE, "--space.batch_size={4,8}", "--n_trials=5", story=flat)
    assert len(search.executor.trials) == 2
    assert sum(trial.same_as is not None for trial in results.trials) == 3
    search(
        *BASE,
        "--space.batch_size={4,8}",
        "--n_trials=3",
        "--seed=null",
        f"--output_dir={tmp_path / 'b'}",
        story=flat,
    )
    assert len(search.executor.trials) == 3


def test_a_grid_tries_every_point_once_and_goes_on_where_it_was(search):
    grid = ["--space.batch_size={2,4,8}", "--space.policy.dropout=[0,0.2,0.1]", "--sampler=grid"]
    results = search(*BASE, *grid, "--n_trials=4", story=flat)
    assert len(results.trials) == 4
    results = search(*BASE, *grid, story=flat)
    points = [tuple(trial.params.values()) for trial in results.trials]
    assert len(points) == len(set(points)) == 9 and len(search.executor.trials) == 5


def test_only_the_best_trial_keeps_its_checkpoints(search, tmp_path):
    results = search(*BASE, LR, "--n_trials=6", "--n_jobs=2")
    kept = [path.parent.name for path in (tmp_path / "out/trials").glob("*/checkpoints")]
    assert kept == [f"{results.best.number:04d}"]
    assert set(search.executor.places) == {0, 1}
    search(*BASE, LR, "--n_trials=4", "--keep_trials=all", f"--output_dir={tmp_path / 'all'}")
    assert len(list((tmp_path / "all/trials").glob("*/checkpoints"))) == 4


@pytest.mark.parametrize(("value", "expected"), [("last", 3.0), ("best", 1.0)])
def test_the_last_or_the_best_value_counts(search, value, expected):
    rows = [{"step": 1, "eval/loss": 2.0}, {"step": 2, "eval/loss": 1.0}, {"step": 3, "eval/loss": 3.0}]
    story = lambda flags: (rows, Ending(0))  # noqa: E731
    results = search(*BASE, LR, "--n_trials=1", f"--objective_value={value}", story=story)
    assert results.best.value == expected


def test_success_is_maximized(search):
    flags = ["--env.type=so101", "--eval_freq=5", "--objective=eval/success_rate"]
    story = lambda flags: ([{"step": 5, "eval/success_rate": float(flags["policy.dropout"])}], Ending(0))  # noqa: E731
    results = search(*BASE, *flags, "--space.policy.dropout={0.1,0.9,0.5}", "--sampler=grid", story=story)
    assert results.best.value == 0.9


# --------------------------------------------------------------------------------------------- going on
def test_the_same_command_goes_on(search, tmp_path):
    first = search(*BASE, LR, "--n_trials=4")
    again = search(*BASE, LR, "--n_trials=6")
    assert [trial.params for trial in again.trials[:4]] == [trial.params for trial in first.trials]
    assert len(again.trials) == 6 and len(search.executor.trials) == 2
    values = [trial.params["policy.optimizer_lr"] for trial in again.trials]
    assert len(set(values)) == 6  # the sampler does not begin again
    more = search("--resume=true", "--n_trials=7")
    assert len(more.trials) == 7 and more.plan.flags == first.plan.flags


def test_trials_of_a_killed_search_are_tried_again(search, tmp_path):
    search(*BASE, LR, "--n_trials=2")
    study = optuna.load_study(study_name="lerobot", storage=f"sqlite:///{tmp_path}/out/study.db")
    asked = study.ask({"policy.optimizer_lr": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True)})
    study.ask()  # killed before its values were drawn
    results = search(*BASE, LR, "--n_trials=4")
    states = [trial.state for trial in results.trials]
    assert states == ["finished", "finished", "interrupted", "interrupted", "finished", "finished"]
    assert results.trials[4].params == asked.params


def test_a_stopped_search_stops_its_trials_and_tries_them_again(search, capsys):
    begun = []

    def story(flags):
        begun.append(flags["policy.optimizer_lr"])
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return valley(flags)

    results = search(*BASE, LR, "--n_trials=4", story=story)
    assert results.counts() == {"finished": 1, "interrupted": 1}
    assert search.executor.trials[1].is_stopped
    assert f"--resume=true --output_dir={results.plan.folder}" in capsys.readouterr().err
    results = search("--resume=true")
    assert results.counts() == {"finished": 4, "interrupted": 1}
    assert results.trials[2].params == results.trials[1].params


def test_time_is_up(search, monkeypatch):
    monkeypatch.setattr("lerobot.search.study.POLL_S", 0.01)
    started_s = time.monotonic()
    endless = lambda flags: ([{"step": i, "eval/loss": 1.0} for i in range(10_000)], Ending(0))  # noqa: E731
    results = search(*BASE, LR, "--timeout_s=0.3", story=endless)
    assert time.monotonic() - started_s < 10 and results.counts() == {"interrupted": 1}


def test_another_search_in_the_folder_is_refused(search, tmp_path):
    search(*BASE, LR, "--n_trials=1")
    for changed in ("--space.policy.optimizer_lr=log[1e-5,1e-2]", "--steps=9", "--seed=1"):
        with pytest.raises(ConfigError, match="holds another search: .* was .*, now "):
            search(*BASE, LR, changed, "--n_trials=2")
    with pytest.raises(ConfigError, match="exists already and holds no search"):
        search(*BASE, LR, f"--output_dir={tmp_path}")
    with pytest.raises(ConfigError, match=r"holds no tune_config\.json"):
        search("--resume=true", f"--output_dir={tmp_path / 'none'}")


def test_two_searches_in_one_folder_at_once_are_refused(search, tmp_path):
    plan = make_plan(parse_search([*BASE, LR, f"--output_dir={tmp_path / 'out'}"]))
    claim_folder(plan.cfg, plan.folder)
    with locked(plan.folder), pytest.raises(ConfigError, match="running there already"):
        search(*BASE, LR)


# ------------------------------------------------------------------------------------- said at once
SAID = {
    ("--dataset.eval_split=0", "--eval_steps=0"): "Add --dataset.eval_split=0.1 --eval_steps=1",
    ("--eval_steps=9",): "--eval_steps=9 is more than --steps=5",
    ("--objective=eval/success_rate",): "Add --env.type=NAME --eval_freq=1",
    ("--objective=eval/success_rate", "--env.type=so101"): "--eval_freq=20000 is more than --steps=5",
    ("--objective=samples_per_s",): "Give --direction=minimize or --direction=maximize",
    ("--policy.optimizer_lr=1e-4",): "--policy.optimizer_lr is given and searched",
    ("--lr=1e-4",): "--policy.optimizer_lr is given and searched",
    ("--space.output_dir={a,b}",): "--space.output_dir cannot be searched",
    ("--policy.repo_id=me/x",): "trials are not published",
    ("--sampler=grid",): "--sampler=grid cannot count",
    ("--n_trials=0",): "--n_trials=0: expected at least 1",
    ("--sampler=tpa",): "expected one of tpe, random, grid, cmaes",
    ("--ray_address=x",): "--ray_address=x needs --executor=ray",
    ("--batch_sise=3",): "Did you mean 'batch_size'?",
    ("--space.batch_sise={1,2}",): "--space.batch_sise={1, 2}: --batch_sise is unknown",
}


@pytest.mark.parametrize("flags", SAID)
def test_mistakes_are_said_before_anything_is_written(flags, search, tmp_path):
    with pytest.raises(ConfigError) as raised:
        search(*BASE, LR, *flags)
    assert SAID[flags] in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_without_ray_one_line_says_what_to_type(search, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[ray\]'"):
        search(*BASE, LR, "--executor=ray")
    assert not (tmp_path / "out").exists()


def test_without_optuna_one_line_says_what_to_type(search, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lerobot\[tune\]'"):
        search(*BASE, LR)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sampler", "pruner", "kinds"),
    [
        ("tpe", "median", ("TPESampler", "MedianPruner")),
        ("random", "hyperband", ("RandomSampler", "HyperbandPruner")),
        ("grid", "none", ("RandomSampler", "NopPruner")),
    ],
)
def test_samplers_and_pruners_by_name(sampler, pruner, kinds, tmp_path):
    space = "--space.policy.dropout=[0,0.3,0.1]"
    plan = make_plan(parse_search([*BASE, space, f"--sampler={sampler}", f"--pruner={pruner}"]))
    made = build_sampler(plan.cfg, num_trials=0), build_pruner(plan.cfg, plan.train)
    assert tuple(type(one).__name__ for one in made) == kinds
    study = open_study(plan.cfg, tmp_path, sampler=made[0], pruner=made[1])
    for _ in range(3):
        trial = study.ask()
        trial.report(1.0, 1)
        assert trial.should_prune() in (False, True)


def test_cmaes_without_its_package(search, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install cmaes"):
        search(*BASE, LR, "--sampler=cmaes")


@pytest.mark.slow
def test_hyperband_prunes(search):
    results = search(*BASE, "--pruner=hyperband", LR, "--n_trials=10", "--startup_trials=3")
    assert results.counts().get("pruned", 0) >= 1 and results.best is not None


def test_a_space_in_a_file(search, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("lr: log[1e-4,1e-2]\npolicy:\n  dropout: [0.1, 0.3]\nbatch_size: {8, 16}\n")
    results = search(*BASE, f"--space={path}", "--n_trials=1", story=flat)
    assert set(results.trials[0].params) == {"policy.optimizer_lr", "policy.dropout", "batch_size"}
