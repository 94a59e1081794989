"""What a person sees of a training run: a header, lines of metrics, a live bar on a terminal."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lerobot.core.clock import readable_duration

UNITS = ("", "K", "M", "B", "T")


class TrainingConsole:
    """One line per log row; on a terminal a progress bar stays below them."""

    def __init__(self, *, first_step: int, last_step: int, is_main: bool = True) -> None:
        self.console = Console(file=sys.stderr, quiet=not is_main, highlight=False, soft_wrap=True)
        self.first_step, self.last_step = first_step, last_step
        self.is_live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=32),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.is_live or not is_main,
        )
        self.task: TaskID | None = None

    def header(self, rows: dict[str, str]) -> None:
        """A small table of what will happen."""
        width = max(map(len, rows))
        for name, value in rows.items():
            self.console.print(f"  {name.ljust(width)}  {value}", markup=False)

    def __enter__(self) -> Self:
        self.bar.start()
        self.task = self.bar.add_task("", total=self.last_step, completed=self.first_step, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self.is_live and self.task is not None:
            self.bar.update(self.task, completed=step)

    def row(self, row: dict[str, float | int | str]) -> None:
        """Show one row of metrics: a line, and the loss beside the bar."""
        step = int(row["step"])
        words = [f"step {step}/{self.last_step}"]
        shown = [(label, f"{row[key]:{form}}") for key, label, form in SHOWN if key in row]
        words += [f"{label} {text}" for label, text in shown if text != "0%"]
        if self.is_live and self.task is not None:
            if "loss" in row:
                self.bar.update(self.task, completed=step, note=f"loss {row['loss']:.4f}")
        elif "eta_s" in row:
            words.append(f"{readable_duration(float(row['eta_s']))} left")
        self.say("  ".join(words))
        if "advice" in row:
            self.say(f"  {row['advice']}")

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self.console.print(text, markup=False)


# Row key, label, format.
SHOWN = (
    ("epoch", "epoch", ".2f"),
    ("loss", "loss", ".4f"),
    ("l1_loss", "l1", ".4f"),
    ("kld_loss", "kl", ".4f"),
    ("grad_norm", "grad", ".2f"),
    ("lr", "lr", ".1e"),
    ("samples_per_s", "samples/s", ".0f"),
    ("tokens_per_s", "tokens/s", ".0f"),
    ("step_ms", "ms/step", ".0f"),
    ("data_share", "waiting for data", ".0%"),
    ("transfer_share", "to device", ".0%"),
    ("prepare_share", "preparing", ".0%"),
    ("compute_share", "forward/backward", ".0%"),
    ("optimizer_share", "optimizer", ".0%"),
    ("other_share", "idle", ".0%"),
    ("device_busy_share", "GPU busy", ".0%"),
    ("peak_memory_gib", "GiB", ".1f"),
    ("skipped_steps", "skipped", ".0f"),
    ("eval/success_rate", "success", ".0%"),
    ("eval/loss", "validation loss", ".4f"),
)


def readable_count(number: float) -> str:
    """'950', '51.7M': a count with a unit."""
    for unit in UNITS:
        if abs(number) < 1000 or unit == UNITS[-1]:
            return f"{number:.0f}{unit}" if not unit or number >= 100 else f"{number:.1f}{unit}"
        number /= 1000
    return str(number)
