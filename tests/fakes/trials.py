"""An executor whose trials are functions: rows of metrics and an ending, without a process."""

import math
from collections.abc import Callable, Sequence

from lerobot.core.flags import read_flags
from lerobot.search.space import flatten
from lerobot.search.trial import Ending, Job, News, Row

Story = Callable[[dict[str, str]], tuple[Sequence[Row], Ending]]  # flags -> what the trial measures, its end


class ToldTrial:
    """A trial that tells one row per poll, and then its end; a stopped one ends cleanly at once."""

    def __init__(self, job: Job, story: Story) -> None:
        self.job, self.is_stopped, self.is_dropped = job, False, False
        rows, self.ending = story(flatten(read_flags(job.flags)))
        self.rows = list(rows)
        (job.folder / "checkpoints").mkdir(parents=True)

    def poll(self) -> News:
        if self.is_stopped:
            return News((), Ending(0))
        if self.rows:
            return News([self.rows.pop(0)])
        return News((), self.ending)

    def stop(self, *, is_urgent: bool = False) -> None:
        self.is_stopped = True

    def drop_checkpoints(self) -> None:
        self.is_dropped = True


class ToldExecutor:
    """Starts told trials and keeps them, in the order they began."""

    def __init__(self, story: Story) -> None:
        self.story, self.trials, self.places = story, [], []

    def start(self, job: Job, *, place: int) -> ToldTrial:
        self.trials.append(ToldTrial(job, self.story))
        self.places.append(place)
        return self.trials[-1]

    def describe(self) -> str:
        return "in this process"


def valley(flags: dict[str, str]) -> tuple[list[Row], Ending]:
    """A loss that is least at a learning rate of 1e-3, falls over 5 steps, and diverges above 3e-2."""
    lr = float(flags["policy.optimizer_lr"])
    if lr > 3e-2:
        return [{"step": 1, "eval/loss": 50.0}], Ending(1, "The loss became nan before step 2.")
    floor = 0.1 + (math.log10(lr) + 3) ** 2 + 0.01 * float(flags.get("batch_size", 8))
    return [{"step": step, "eval/loss": floor + 1 / step} for step in (1, 2, 3, 4, 5)], Ending(0)
