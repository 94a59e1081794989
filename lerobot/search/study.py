"""The search: ask for values, train with them, tell what came out, until enough was tried.

    space -> sampler -> lerobot-train in its own process -> metrics.jsonl -> pruner
                ^                                                              |
                +--------------------- study.db <------------------------------+

`tune` is the whole of it. Killed at any instant, it loses the trials that were running, and the same command
goes on from there.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lerobot.core.errors import TrainingError
from lerobot.core.optional import require
from lerobot.search.config import TuneConfig
from lerobot.search.console import SearchConsole
from lerobot.search.executor import Executor, open_executor
from lerobot.search.plan import Plan, make_plan, refusal
from lerobot.search.report import write_report
from lerobot.search.results import Results, is_counted
from lerobot.search.space import Params, flags_of
from lerobot.search.store import (
    INTERRUPTED,
    PLACE,
    REASON,
    REFUSED,
    SAME_AS,
    claim_folder,
    locked,
    open_study,
)
from lerobot.search.strategy import Grid, build_pruner, build_sampler, distributions
from lerobot.search.trial import Ending, Job, Row, Trial, drop_checkpoints

if TYPE_CHECKING:
    import optuna

POLL_S = 0.2  # between looks at the running trials
MOST_REFUSED = 100  # combinations in a row that the config refuses
MOST_FAILURES = 3  # trials that fail before one succeeded: it is not the values then


@dataclass
class Running:
    """A trial that runs: where, since when, and what it measured so far."""

    asked: "optuna.Trial"
    process: Trial
    place: int
    values: dict[int, float] = field(default_factory=dict)  # training step: the objective
    stopped: str = ""  # why it was asked to stop: 'pruned' or 'interrupted'


def tune(cfg: TuneConfig) -> Results:
    """Search as the config says, or go on with the search in its folder; what was found, best trial first.

    Raises:
        UserError: space, flags or folder are wrong; nothing was trained then.
        TrainingError: no trial ended with a result.
    """
    for package in ("optuna", "ray") if cfg.executor == "ray" else ("optuna",):
        require(package, extra="ray" if package == "ray" else "tune")
    plan = make_plan(cfg)
    claim_folder(cfg, plan.folder)
    with ExitStack() as stack:
        stack.enter_context(locked(plan.folder))
        stop = stack.enter_context(stop_requests())
        executor = stack.enter_context(open_executor(cfg, plan.train))
        search = stack.enter_context(Search(plan, executor))
        search.run(stop)
    return search.finish()


class Search:
    """A search that runs: its plan, its study, and the trials that train now."""

    def __init__(self, plan: Plan, executor: Executor) -> None:
        self.plan, self.cfg, self.executor = plan, plan.cfg, executor
        self.states = require("optuna", extra="tune").trial.TrialState
        self.console = SearchConsole(plan)
        self.study = open_study(self.cfg, plan.folder, pruner=build_pruner(self.cfg, plan.train))
        self.study.sampler = build_sampler(self.cfg, num_trials=len(self.study.trials))
        self.distributions = distributions(plan.space)
        self.grid = Grid(plan.space, seed=self.cfg.seed) if self.cfg.sampler == "grid" else None
        self.running: dict[int, Running] = {}  # number of the trial: where it is
        self.num_refused = 0  # in a row
        self.failures: list[str] = []  # reasons, until the first trial succeeds
        self.is_exhausted = False  # every combination of a grid was tried
        self.num_counted = 0  # trials that ended
        self.was_stopped = False  # by a signal or the clock, with more to try

    def run(self, stop: threading.Event) -> None:
        """Start, follow and end trials until enough were tried, time is up, or `stop` is set."""
        self._take_back()
        self.num_counted = sum(is_counted(trial) for trial in self.study.get_trials(deepcopy=False))
        self.console.header(self.results, where=self.executor.describe())
        until_s = time.monotonic() + (math.inf if self.cfg.timeout_s is None else self.cfg.timeout_s)
        while True:
            is_over = stop.is_set() or time.monotonic() > until_s
            while (
                not is_over and not stop.is_set() and len(self.running) < self.cfg.n_jobs and self._wants_more
            ):
                self._begin()
            for number, running in list(self.running.items()):
                if is_over:
                    self._stop(running, "interrupted")
                self._follow(number, running)
            if not self.running and (is_over or not self._wants_more):
                self.was_stopped = is_over and self._wants_more
                return
            time.sleep(POLL_S)

    @property
    def results(self) -> Results:
        """What was found so far."""
        return Results.of(self.study, self.plan)

    @property
    def _wants_more(self) -> bool:
        return not self.is_exhausted and self.num_counted + len(self.running) < self.plan.n_trials

    # ------------------------------------------------------------------------------------------ begin and end
    def _begin(self) -> None:
        """Ask for values until some can be trained with, and start that trial."""
        if self.grid is not None and not self._enqueue_point(self.grid):
            self.is_exhausted = True
            return
        asked = self.study.ask(self.distributions)
        reason = refusal(self.plan, asked.params)
        if reason:
            self._refuse(asked, reason)
            return
        earlier = self._finished_with(asked.params)
        if earlier is not None and self.cfg.seed is not None:  # the same seed: it would come out the same
            asked.set_user_attr(SAME_AS, earlier.number)
            self._tell(asked, "COMPLETE", value=earlier.value)
            return
        flags = (*self.plan.flags, *flags_of(asked.params))
        job = Job(asked.number, flags, self.plan.trial_folder(asked.number))
        place = next(i for i in range(self.cfg.n_jobs) if i not in {r.place for r in self.running.values()})
        asked.set_user_attr(PLACE, str(job.folder))
        self.running[asked.number] = Running(asked, self.executor.start(job, place=place), place)
        self.console.begin(asked.number, asked.params)

    def _enqueue_point(self, grid: Grid) -> bool:
        """Whether the grid has a combination that nobody tried, which is then asked for next."""
        trials = self.study.get_trials(deepcopy=False)
        if any(trial.state == self.states.WAITING for trial in trials):
            return True
        point = grid.next([trial.params for trial in trials if INTERRUPTED not in trial.user_attrs])
        if point is not None:
            self.study.enqueue_trial(point)
        return point is not None

    def _finished_with(self, params: Params) -> "optuna.trial.FrozenTrial | None":
        """The first trial that finished with these values."""
        done = self.study.get_trials(deepcopy=False, states=(self.states.COMPLETE,))
        return next((trial for trial in done if trial.params == params), None)

    def _refuse(self, asked: "optuna.Trial", reason: str) -> None:
        """Note a combination that cannot be trained with; it does not count as a trial."""
        asked.set_user_attr(REFUSED, True)
        self._tell(asked, "PRUNED", reason=reason)
        self.num_refused += 1
        if self.num_refused >= MOST_REFUSED:
            raise TrainingError(
                f"The last {MOST_REFUSED} combinations of values were refused, the last one: {reason} "
                "Narrow the space to values that go together."
            )

    def _follow(self, number: int, running: Running) -> None:
        """Report what a trial measured, stop it if it fell behind, and end it when its process ended."""
        news = running.process.poll()
        for row in news.rows:
            self._report(running, row)
        if news.ending is not None:
            del self.running[number]
            self._end(running, news.ending)

    def _report(self, running: Running, row: Row) -> None:
        step, value = row.get("step"), row.get(self.cfg.objective)
        if not isinstance(step, int) or not isinstance(value, (int, float)) or step in running.values:
            return
        running.values[step] = float(value)
        running.asked.report(float(value), step)
        if not running.stopped and step >= self.cfg.warmup_steps and running.asked.should_prune():
            self._stop(running, "pruned")

    def _stop(self, running: Running, why: str) -> None:
        if not running.stopped:
            running.stopped = why
            running.process.stop()

    def _end(self, running: Running, ending: Ending) -> None:
        """Tell the study how a trial ended."""
        value, asked = self._value(running), running.asked
        self.num_refused = 0
        if running.stopped == "pruned":
            step = max(running.values)
            self._tell(asked, "PRUNED", reason=f"fell behind at step {step}", running=running)
        elif running.stopped == "interrupted":
            self._give_back(asked, "the search was stopped")
            self.console.end(self.results, asked.number)
        elif ending.status == 0 and value is not None and math.isfinite(value):
            self._tell(asked, "COMPLETE", value=value, running=running)
        else:
            reason = ending.reason
            if ending.status == 0:
                what = "no value" if value is None else f"the value {value}"
                reason = f"it ended with {what} of {self.cfg.objective}"
            is_refused = ending.status == 2  # flags and data do not go together
            asked.set_user_attr(REFUSED, is_refused)
            self._tell(asked, "PRUNED" if is_refused else "FAIL", reason=reason, running=running)
            self._count_failure(asked.number, reason)

    def _value(self, running: Running) -> float | None:
        """The number a trial is judged by."""
        values = running.values
        if not values:
            return None
        if self.cfg.objective_value == "last":
            return values[max(values)]
        finite = [value for value in values.values() if math.isfinite(value)] or list(values.values())
        return min(finite) if self.cfg.is_minimized else max(finite)

    def _tell(
        self,
        asked: "optuna.Trial",
        state: str,
        *,
        value: float | None = None,
        reason: str = "",
        running: Running | None = None,
    ) -> None:
        if reason:
            asked.set_user_attr(REASON, reason)
        self.num_counted += is_counted(self.study.tell(asked, value, state=self.states[state]))
        results = self.results
        if self.cfg.keep_trials == "best":
            self._drop_others(results, ended=asked.number, running=running)
        write_report(results)
        self.console.end(results, asked.number)

    def _drop_others(self, results: Results, *, ended: int, running: Running | None) -> None:
        """Delete checkpoints of all ended trials but the best."""
        best = results.best.number if results.best is not None else None
        if running is not None and ended != best:
            running.process.drop_checkpoints()
        for trial in results.trials:
            if trial.number not in self.running and trial.number != best:
                drop_checkpoints(self.plan.trial_folder(trial.number))

    def _count_failure(self, number: int, reason: str) -> None:
        if self.results.best is not None:
            return
        self.failures.append(reason)
        if len(self.failures) >= MOST_FAILURES:
            raise TrainingError(
                f"The first {len(self.failures)} trials failed; the last one: {reason} "
                f"Its output: {self.plan.trial_folder(number) / 'log.txt'}"
            )

    # ------------------------------------------------------------------------------------------ interruptions
    def _give_back(self, asked: "optuna.Trial", why: str) -> None:
        """A trial that was cut short is tried again by the next search; it counts for nothing."""
        asked.set_user_attr(INTERRUPTED, True)
        asked.set_user_attr(REASON, why)
        if self.grid is None and set(asked.params) == set(self.plan.space):
            self.study.enqueue_trial(asked.params)
        self.study.tell(asked, state=self.states.FAIL)
        drop_checkpoints(self.plan.trial_folder(asked.number))

    def _take_back(self) -> None:
        """Trials that a killed search left running are tried again."""
        trial = require("optuna", extra="tune").trial.Trial
        for left in self.study.get_trials(states=(self.states.RUNNING,)):
            self._give_back(trial(self.study, left._trial_id), "the search was killed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs, because of an error here, and wait for it; the next search tries it again."""
        for running in self.running.values():
            running.process.stop(is_urgent=kind is KeyboardInterrupt)
        for running in self.running.values():
            while running.process.poll().ending is None:
                time.sleep(POLL_S)
            self._give_back(running.asked, "the search was stopped")

    def finish(self) -> Results:
        """Write the report, say what was found.

        Raises:
            TrainingError: nothing was.
        """
        results = self.results
        self.console.summary(results, report=write_report(results), was_stopped=self.was_stopped)
        if results.best is None and results.trials and not self.was_stopped:
            said = next(
                (trial.reason for trial in reversed(results.trials) if trial.reason), "nothing is known"
            )
            raise TrainingError(
                f"None of {len(results.trials)} trials ended with a result; the last one: {said}"
            )
        return results


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
