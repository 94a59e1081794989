"""What a search found: its trials, the best of them, and which settings mattered.

study.db -> Results -> study.json, report.html, the console
"""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from lerobot.core.optional import require
from lerobot.search.plan import Plan
from lerobot.search.space import Params
from lerobot.search.store import INTERRUPTED, PLACE, REASON, REFUSED, SAME_AS

if TYPE_CHECKING:
    import optuna

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


def is_counted(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial is one of the `n_trials`: it ended, and was neither refused nor cut short."""
    uncounted = trial.user_attrs.get(REFUSED) or trial.user_attrs.get(INTERRUPTED)
    return trial.state.is_finished() and not uncounted


@dataclass(frozen=True)
class TrialResult:
    """One trial: what was tried and what came out."""

    number: int
    state: str  # finished, pruned, failed, refused (no valid run), interrupted or running
    value: float | None  # of the objective; of a pruned trial the last one before it ended
    params: Params
    reason: str  # why it did not finish
    same_as: int | None  # number of an earlier trial with the same values, whose result this is
    steps: dict[int, float]  # training step: objective
    place: str  # folder of its run, on the machine that ran it
    duration_s: float | None

    @classmethod
    def of(cls, trial: "optuna.trial.FrozenTrial") -> Self:
        """The result of an Optuna trial."""
        notes, state = trial.user_attrs, STATES.get(trial.state.name, "waiting")
        for note, name in ((REFUSED, "refused"), (INTERRUPTED, "interrupted")):
            state = name if notes.get(note) else state
        steps = dict(sorted(trial.intermediate_values.items()))
        value = trial.value if trial.value is not None or not steps else steps[max(steps)]
        return cls(
            number=trial.number,
            state=state,
            value=value if value is not None and math.isfinite(value) else None,
            params=dict(trial.params),
            reason=str(notes.get(REASON, "")),
            same_as=notes.get(SAME_AS),
            steps=steps,
            place=str(notes.get(PLACE, "")),
            duration_s=trial.duration.total_seconds() if trial.duration is not None else None,
        )


@dataclass(frozen=True)
class Results:
    """All trials of a search in the order they began."""

    plan: Plan
    trials: list[TrialResult]
    study: "optuna.Study"

    @classmethod
    def of(cls, study: "optuna.Study", plan: Plan) -> Self:
        """The results so far."""
        states = require("optuna", extra="tune").trial.TrialState
        trials = [t for t in study.get_trials(deepcopy=False) if t.state != states.WAITING]
        return cls(plan, [TrialResult.of(trial) for trial in trials], study)

    @cached_property
    def importance(self) -> dict[str, float]:
        """Setting: its share of how good a trial is, together 1; the largest first."""
        return importance_of(self.study)

    @cached_property
    def finished(self) -> list[TrialResult]:
        """Trials that ended with a value, the best first."""
        found = [trial for trial in self.trials if trial.state == "finished" and trial.value is not None]
        sign = 1 if self.plan.cfg.is_minimized else -1
        return sorted(found, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    @property
    def best(self) -> TrialResult | None:
        """The best trial: of equal ones the first, which has files of its own."""
        return next(iter(self.finished), None)

    @property
    def best_command(self) -> str | None:
        """The command that trains again with the best values."""
        return self.plan.command(self.best.params) if self.best is not None else None

    def counts(self) -> dict[str, int]:
        """State: how many trials."""
        states = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def tree(self) -> dict[str, Any]:
        """What `study.json` holds."""
        cfg, best = self.plan.cfg, self.best
        return {
            "study_name": cfg.study_name,
            "objective": cfg.objective,
            "objective_value": cfg.objective_value,
            "direction": "minimize" if cfg.is_minimized else "maximize",
            "space": {name: str(domain) for name, domain in self.plan.space.items()},
            "flags": list(self.plan.flags),
            "best": None
            if best is None
            else {
                "number": best.number,
                "value": best.value,
                "params": best.params,
                "folder": best.place,
                "command": self.best_command,
            },
            "importance": self.importance,
            "trials": [
                {
                    "number": trial.number,
                    "state": trial.state,
                    "value": trial.value,
                    "params": trial.params,
                    "reason": trial.reason,
                    "same_as": trial.same_as,
                    "steps": {step: v if math.isfinite(v) else None for step, v in trial.steps.items()},
                    "folder": trial.place,
                    "duration_s": trial.duration_s,
                }
                for trial in self.trials
            ],
        }


def importance_of(study: "optuna.Study") -> dict[str, float]:
    """How much each setting decided whether a trial was good, by PED-ANOVA; empty while too little is known.

    Paper: "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces",
    https://arxiv.org/abs/2304.10255.
    """
    optuna = require("optuna", extra="tune")
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len({trial.value for trial in done}) < MIN_TRIALS:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # called experimental
        better = min(0.5, max(0.1, FEWEST_BETTER / len(done)))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=better)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


MIN_TRIALS = 6  # with different values, before shares of importance mean anything
FEWEST_BETTER = 5  # trials that the others are compared with; a tenth of many, as in the paper
