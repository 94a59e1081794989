"""One trial as a process of its own: `lerobot-train` in a folder, followed through its metrics file.

    Job (flags, folder) -> TrialProcess -> rows of metrics.jsonl as they are written, then how it ended

A trial that crashes or runs out of memory ends alone; its output is in `log.txt`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lerobot
from lerobot.core import keys
from lerobot.search.keeper import GRACE_S, kill_group

PACKAGE = Path(lerobot.__file__).parent
KEEPER = PACKAGE / "search" / "keeper.py"
TRAIN_COMMAND = PACKAGE / "scripts" / "train.py"  # started as a person would, not imported
METRICS_FILE = "metrics.jsonl"  # that lerobot-train writes into its folder
LOG_FILE = "log.txt"
LOG_TAIL = 20_000  # bytes of a log that are searched for the reason of a failure
OUT_OF_MEMORY = ("out of memory", "CUDA_ERROR_OUT_OF_MEMORY", "DefaultCPUAllocator: can't allocate")
KILLED = 137  # exit status after SIGKILL; the system's own way to free memory
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What one trial runs: flags of `lerobot-train`, the folder of the run, and its share of the machine."""

    number: int
    flags: tuple[str, ...]
    folder: Path
    gpus: tuple[str, ...] | None = None  # ids for CUDA_VISIBLE_DEVICES; None leaves them as they are
    num_threads: int | None = None  # CPU threads; None leaves them as they are
    start_in: Path = field(default_factory=Path.cwd)  # where relative paths of the flags begin

    @property
    def words(self) -> list[str]:
        """The flags, with the folder."""
        return [*self.flags, f"--output_dir={self.folder}"]


@dataclass(frozen=True)
class Ending:
    """How a trial's process ended."""

    status: int
    reason: str = ""  # in one line, when it failed


@dataclass(frozen=True)
class News:
    """What happened in a trial since it was last asked: new rows of metrics, and its end."""

    rows: Sequence[Row] = ()
    ending: Ending | None = None


class Trial(Protocol):
    """A trial that runs, here or on another machine."""

    def poll(self) -> News:
        """What happened since the last call; waits for nothing."""

    def stop(self, *, is_urgent: bool = False) -> None:
        """Ask it to finish its step, save and end; it is killed if it does not, or at once."""

    def drop_checkpoints(self) -> None:
        """Delete its checkpoints, if they are in reach."""


class TrialProcess:
    """A trial on this machine, already running."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = job.folder
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.metrics = MetricsTail(self.folder / METRICS_FILE)
        self.log_path = self.folder.with_name(
            f"{self.folder.name}.log"
        )  # the run's folder must not exist yet
        self.stopped_s: float | None = None
        self.ending: Ending | None = None
        words = [sys.executable, str(KEEPER), sys.executable, str(TRAIN_COMMAND), *job.words]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(job),
                cwd=job.start_in if job.start_in.is_dir() else None,  # another machine may not have it
                start_new_session=True,  # Ctrl-C reaches the search alone, which then decides
            )

    def poll(self) -> News:
        """New rows, and how it ended, if it did."""
        if self.ending is not None:
            return News((), self.ending)
        status = self.process.poll()
        if status is None and self.stopped_s is not None and time.monotonic() > self.stopped_s + 2 * GRACE_S:
            kill_group(self.process.pid)  # even its keeper does not answer
        rows = self.metrics.read()  # after the question whether it runs: the last row is not missed
        if status is not None:
            self.ending = self._end(status)
        return News(rows, self.ending)

    def stop(self, *, is_urgent: bool = False) -> None:
        """Close the keeper's input, which makes it end the run; or kill both."""
        assert self.process.stdin is not None
        if self.stopped_s is None:
            self.stopped_s = time.monotonic()
            self.process.stdin.close()
        if is_urgent:
            kill_group(self.process.pid)

    def drop_checkpoints(self) -> None:
        """Delete the folder of checkpoints."""
        drop_checkpoints(self.folder)

    def _end(self, status: int) -> Ending:
        self.stop()
        kill_group(self.process.pid)  # what the run started and left behind
        self.folder.mkdir(exist_ok=True)  # a run that was refused made none
        self.log_path = self.log_path.replace(self.folder / LOG_FILE)
        return Ending(status, why(status, tail_of(self.log_path)) if status else "")


class MetricsTail:
    """Reads a metrics file that is being written: each row once, and only when its line is whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def read(self) -> list[Row]:
        """The rows that were completed since the last call."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self.offset += len(whole) + 1
        return [json.loads(line) for line in whole.decode("utf-8").splitlines() if line.strip()]


def _environment(job: Job) -> dict[str, str]:
    """This process's environment with the trial's share of the machine; this same package is found there."""
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), *filter(None, [env.get("PYTHONPATH")])])
    if job.gpus is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(job.gpus)
    if job.num_threads is not None:
        env["OMP_NUM_THREADS"] = env["MKL_NUM_THREADS"] = str(job.num_threads)
    return env


def why(status: int, log: str) -> str:
    """The reason of a failure, in one line, from the exit status and the end of the log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
    if not said:  # a traceback: its last line names the error
        said = lines[-1] if lines else f"it ended with exit status {status} and said nothing"
    if any(words.lower() in log.lower() for words in OUT_OF_MEMORY):
        return f"out of memory: {said}"
    if status == KILLED:
        return "killed from outside; if nobody did, by the system, because the machine's memory was full"
    return said


def tail_of(path: Path) -> str:
    """The end of a log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL))
        return file.read().decode("utf-8", errors="replace")


def drop_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a trial's folder; its metrics, log and report stay."""
    checkpoints = folder / keys.CHECKPOINTS_FOLDER
    if checkpoints.is_dir():
        shutil.rmtree(checkpoints)
