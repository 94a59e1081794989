"""What a person sees while episodes run: a live bar on a terminal, a few plain lines in a log file."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lerobot.core.clock import readable_duration

if TYPE_CHECKING:
    from rich.console import Console

MAX_LINES = 10  # plain lines per run


class EpisodeProgress:
    """Counts up to `total`; use it in a `with`. On a `console` that is given it keeps to plain lines."""

    def __init__(
        self, total: int, *, title: str, unit: str = "episodes", console: "Console | None" = None
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.total, self.title, self.unit, self.done = total, title, unit, 0
        self.console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.is_live = console is None and self.console.is_terminal  # another bar may live on a given one
        self.bar = Progress(
            TextColumn(f"[bold]{title}"),
            BarColumn(bar_width=32),
            TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit + "  {task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.is_live,
        )
        self.started_s = time.perf_counter()

    def __enter__(self) -> Self:
        self.started_s = time.perf_counter()
        self.bar.start()
        self.task = self.bar.add_task("", total=self.total, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Show how many are done, with a few words on how it goes."""
        before, self.done = self.done, done
        if self.is_live:
            self.bar.update(self.task, completed=done, note=note)
        elif self._share(done) > self._share(before):
            elapsed_s = time.perf_counter() - self.started_s
            left_s = elapsed_s / done * (self.total - done)
            words = [f"{self.title} {done}/{self.total} {self.unit}", note]
            words.append(f"{readable_duration(left_s)} left" if done < self.total else "")
            self.say("  ".join(word for word in words if word))

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self.console.print(text, markup=False)

    def _share(self, done: int) -> int:
        return done * min(MAX_LINES, self.total) // self.total
