"""What a person sees of a training run: a header, lines of metrics, on a terminal one live bar below them.

    data        me/so101_pick: 50 episodes, 25,000 frames at 30 fps          header, once
    ...
    step 200/1000  epoch 0.06  loss 3.2100  ...                              a line per row of metrics
    training ━━━━━━━━━━╸          612/1000  loss 2.9120  118 samples/s  2 min 05 s left

Where nobody watches a terminal (a file, a pipe, SLURM, CI) there are lines alone, with the time left.
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lerobot.core.clock import readable_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

UNITS = ("", "K", "M", "B", "T")
MAX_WIDTH = 110  # columns of the header; also where there is no terminal
BAR_EVERY_S = 0.25  # how often the bar moves; each drawing takes a few milliseconds from the training
ROOM = {"speed": 76, "loss": 56}  # columns from which on the bar shows them


class TrainingConsole:
    """One line per log row; on a terminal a progress bar stays below them, inside `with console:`."""

    def __init__(self, *, first_step: int, last_step: int, is_main: bool = True) -> None:
        self.first_step, self.last_step, self.is_main = first_step, last_step, is_main
        self.is_live = is_main and is_watched()
        self.bar: Progress | None = None
        self.notes: dict[str, Any] = {"loss": "", "speed": "", "left": ""}
        self.ends_s: float | None = None  # when the last step will be done, by the last row
        self.moved_s = 0.0
        self._console: Console | None = None
        self.facts: dict[str, str] = {}

    @property
    def console(self) -> "Console":
        """The rich console that everything is written to on a terminal."""
        if self._console is None:
            from rich.console import Console  # 50 ms, which lines in a file do not need

            self._console = Console(file=sys.stderr, quiet=not self.is_main, highlight=False, soft_wrap=True)
        return self._console

    def header(self, rows: Mapping[str, str]) -> None:
        """A small table of what will happen; long values go on below themselves. `facts` keeps it."""
        self.facts = dict(rows)
        indent = max(map(len, rows)) + 4
        for name, value in rows.items():
            lines = fold(value.split(" "), width=self.width - indent, gap=" ")
            for number, line in enumerate(lines or [""]):
                label = f"  {name if number == 0 else ''}".ljust(indent)
                self._write([(label, "dim"), (line, "")])

    @property
    def width(self) -> int:
        """Columns to write in."""
        return min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns)

    def __enter__(self) -> Self:
        if self.is_live:
            self.bar = self._make_bar()
            self.bar.start()
            self.bar.add_task("", total=self.last_step, completed=self.first_step, **self.notes)
        self._aside = _log_lines_above(self.is_live)
        self._aside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aside.__exit__(None, None, None)
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _make_bar(self) -> "Progress":
        from rich.progress import BarColumn, Progress, TextColumn

        shown = [name for name in self.notes if self.width >= ROOM.get(name, 0)]
        return Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            *(TextColumn(f"{{task.fields[{name}]}}") for name in shown),
            console=self.console,
            refresh_per_second=1 / BAR_EVERY_S,
            expand=True,
            transient=True,  # the last line of metrics says it all
        )

    def advance(self, step: int) -> None:
        """Move the bar; cheap enough for every step."""
        now_s = time.perf_counter()
        if self.bar is None or (now_s - self.moved_s < BAR_EVERY_S and step < self.last_step):
            return
        self.moved_s = now_s
        if self.ends_s is not None:
            self.notes["left"] = f"{readable_duration(max(0.0, self.ends_s - now_s))} left"
        self.bar.update(self.bar.task_ids[0], completed=step, **self.notes)

    def row(self, row: Mapping[str, float | int | str]) -> None:
        """Show one row of metrics: a line, and loss and speed beside the bar."""
        step = int(row["step"])
        if "loss" in row:
            self.notes["loss"] = f"loss {row['loss']:.4f}"
        if "samples_per_s" in row:
            self.notes["speed"] = f"{row['samples_per_s']:.0f} samples/s"
        if "eta_s" in row:
            self.ends_s = time.perf_counter() + float(row["eta_s"])
        words = [f"step {step}/{self.last_step}"]
        shown = [(key, label, f"{row[key]:{form}}") for key, label, form in SHOWN if key in row]
        is_nothing = {key: key.endswith("_share") and text == "0%" for key, _, text in shown}
        words += [f"{label} {text}" for key, label, text in shown if not is_nothing[key]]
        if self.bar is None and "eta_s" in row:
            words.append(f"{readable_duration(float(row['eta_s']))} left")
        self._paragraph(words, gap="  ")
        if "advice" in row:
            first, *rest = str(row["advice"]).split(" ")
            self._paragraph([f"    {first}", *rest], gap=" ")

    def _paragraph(self, words: Iterable[str], *, gap: str) -> None:
        """Words on one line; on a terminal on as many as they need, indented."""
        lines = fold(words, width=self.width - 4, gap=gap) if self.is_live else [gap.join(words)]
        for number, line in enumerate(lines):
            self.say(line if number == 0 else f"    {line}")

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self._write([(text, "")])

    def _write(self, parts: Iterable[tuple[str, str]]) -> None:
        """A line of texts with their styles."""
        if not self.is_main:
            return
        if not self.is_live:
            sys.stderr.write("".join(text for text, _ in parts).rstrip() + "\n")
            sys.stderr.flush()
            return
        from rich.text import Text

        self.console.print(Text.assemble(*parts))


# Row key, label, format.
SHOWN = (
    ("epoch", "epoch", ".2f"),
    ("env_steps", "lived", ",.0f"),
    ("online_return", "return", ".1f"),
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


def is_watched() -> bool:
    """Whether a person looks at a terminal that can redraw a line: not in a file, a cluster job or CI."""
    quiet = any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in ("SLURM_JOB_ID", "CI"))
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet


@contextmanager
def _log_lines_above(is_live: bool) -> Iterator[None]:
    """Log records go through the bar, which makes room for them, while it is drawn."""
    handlers: list[Any] = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    streams = [handler.stream for handler in handlers]
    if is_live:
        for handler in handlers:
            handler.setStream(sys.stderr)  # now the bar's
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            handler.setStream(stream)


def fold(words: Iterable[str], *, width: int, gap: str) -> list[str]:
    """Lines of at most `width` columns; no word is cut, so that a path can still be copied."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(gap) + len(word) <= width:
            lines[-1] += gap + word
        else:
            lines.append(word)
    return lines


def readable_count(number: float) -> str:
    """'950', '51.7M': a count with a unit."""
    for unit in UNITS:
        if abs(number) < 1000 or unit == UNITS[-1]:
            return f"{number:.0f}{unit}" if not unit or number >= 100 else f"{number:.1f}{unit}"
        number /= 1000
    return str(number)
