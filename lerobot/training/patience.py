"""When a run ends early: one metric, and how many measurements in a row it did not get better.

Paper: Prechelt 1998, "Early Stopping - But When?".
"""

import math
from collections.abc import Mapping
from typing import Any

from lerobot.core.errors import ConfigError, suggest
from lerobot.training.contradictions import is_better_lower
from lerobot.training.sections import EarlyStoppingConfig


class Patience:
    """Watches one metric of the rows a run logs.

    With several processes the first one's counts, which sees every row.
    """

    def __init__(self, cfg: EarlyStoppingConfig) -> None:
        assert cfg.metric is not None
        self.cfg, self.metric = cfg, cfg.metric
        self.best: float | None = None
        self.best_step = 0
        self.waited = 0  # measurements since the best one

    @property
    def is_over(self) -> bool:
        """Whether the metric has not become better for too long."""
        return self.waited >= self.cfg.patience

    def see(self, row: Mapping[str, Any]) -> None:
        """Count the measurement in a row, if it holds one.

        Raises:
            ConfigError: the run logs no such metric.
        """
        metric = self.metric
        if metric not in row:
            if "/" not in metric and "loss" in row:
                names = [name for name in row if name != "step"]
                raise ConfigError(
                    f"--early_stopping.metric={metric} is not logged by this run.{suggest(metric, names)} It "
                    f"logs: {', '.join(names)}."
                )
            return
        value = float(row[metric])
        if self._is_better(value):
            self.best, self.best_step, self.waited = value, int(row["step"]), 0
        else:
            self.waited += 1

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if is_better_lower(self.metric) else value - self.best
        return gain > self.cfg.min_delta

    def reason(self) -> str:
        """Why the run ended."""
        best = (
            "was never a number"
            if self.best is None
            else f"was best at step {self.best_step}: {self.best:.4g}"
        )
        return f"{self.metric} {best}, and no better in {self.waited} measurements since"

    # --- checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Plain values for `extra_state.json`."""
        return {
            "metric": self.metric,
            "best": self.best,
            "best_step": self.best_step,
            "waited": self.waited,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting; another metric than the saved one begins anew.

        Raises:
            ConfigError: the run ended for this, and nothing was changed since.
        """
        if state["metric"] != self.metric:
            return
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
        if self.is_over:
            raise ConfigError(
                f"The run ended early: {self.reason()}. To train longer, type: "
                f"--early_stopping.patience={2 * self.waited} (or --early_stopping.metric=null)"
            )
