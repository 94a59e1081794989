"""What a person sees while a search runs: what it will do, one line per trial, and the best of them."""

import sys

from rich.console import Console

from lerobot.core.clock import readable_duration
from lerobot.search.plan import Plan
from lerobot.search.results import Results, TrialResult
from lerobot.search.space import Params
from lerobot.search.strategy import measured_every

NUM_BEST = 5  # trials in the table at the end


class SearchConsole:
    """Plain lines on standard error, coloured where it is a terminal."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.cfg = plan, plan.cfg
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    def say(self, text: str, *, style: str | None = None) -> None:
        """One line."""
        self.console.print(text, markup=False, style=style)

    def header(self, results: Results, *, where: str) -> None:
        """What is searched, how, where, and how far an earlier search came."""
        cfg, plan = self.cfg, self.plan
        done = results.counts()
        how = "falls to its least" if cfg.is_minimized else "rises to its most"
        rows = {
            "search": ", ".join(f"{name} {domain}" for name, domain in plan.space.items()),
            "until": f"{cfg.objective} {how}, judged by the {cfg.objective_value} value of a trial",
            "trials": f"{plan.n_trials}" + (f"; so far {_counted(done)}" if done else ""),
            "sampler": f"{cfg.sampler}, pruner {cfg.pruner}{self._pruner_note()}",
            "where": where,
            "output": str(plan.folder),
        }
        width = max(map(len, rows))
        for name, text in rows.items():
            self.say(f"  {name.ljust(width)}  {text}")

    def _pruner_note(self) -> str:
        every, train = measured_every(self.cfg, self.plan.train), self.plan.train
        if self.cfg.pruner == "none" or train.num_epochs is not None or train.steps // every > 1:
            return ""
        return " (a trial has one value only, at its end: nothing can be pruned)"

    def begin(self, number: int, params: Params) -> None:
        """A trial begins."""
        self.say(f"trial {number:>3}  begins      {shown(params)}", style="dim")

    def end(self, results: Results, number: int) -> None:
        """A trial ended: what came out, and the best so far."""
        trial = next(trial for trial in results.trials if trial.number == number)
        words = [f"trial {number:>3}  {trial.state:<10}"]
        if trial.same_as is not None:
            words.append(
                f"{self.cfg.objective} {trial.value:.4g}, as trial {trial.same_as} with the same values"
            )
        elif trial.state == "finished":
            words.append(f"{self.cfg.objective} {trial.value:.4g}")
        elif trial.reason:
            words.append(trial.reason)
        if trial.duration_s is not None and trial.duration_s >= 1:
            words.append(readable_duration(trial.duration_s))
        if results.best is not None and trial.state == "finished":
            is_best = results.best.number == number
            words.append(
                "the best so far"
                if is_best
                else f"best {results.best.value:.4g} (trial {results.best.number})"
            )
        words.append(shown(trial.params))
        is_new_best = results.best is not None and results.best.number == number
        self.say("  ".join(words), style="bold" if is_new_best else STYLES.get(trial.state))

    def summary(self, results: Results, *, report: object, was_stopped: bool) -> None:
        """The best trials, and what to type next."""
        best = results.best
        self.say(f"\n{len(results.trials)} trials: {_counted(results.counts()) or 'none'}")
        for trial in results.finished[:NUM_BEST]:
            self.say(_line_of(trial))
        if results.importance:
            shares = (f"{name} {share:.0%}" for name, share in results.importance.items())
            self.say(f"importance  {', '.join(shares)}")
        self.say(f"report      {report}")
        if best is not None:
            self.say(f"best run    {best.place}")
            self.say(f"repeat it   {results.best_command}")
        if was_stopped:
            again = f"lerobot-tune --resume=true --output_dir={self.plan.folder}"
            self.say(f"Stopped. Go on with:\n  {again}")


STYLES = {"failed": "red", "pruned": "yellow", "refused": "yellow", "interrupted": "yellow"}


def shown(params: Params) -> str:
    """Values as a person reads them: four digits."""
    return "  ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _line_of(trial: TrialResult) -> str:
    return f"  trial {trial.number:>3}  {trial.value:<10.4g}  {shown(trial.params)}"
