"""Evaluations in simulation beside the training: a snapshot of the policy, a process, a row when it is done.

    step -> <run>/eval/pending/<step>/pretrained_model -> evaluation_process.py -> result -> row of that step

Results come back in the order of their steps. One may wait beside those that run; then the training waits.
What is unfinished when a run stops stays in its folder, and a resumed run makes up for it.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lerobot.core import keys
from lerobot.core.config import decode, encode, read_file
from lerobot.core.errors import TrainingError
from lerobot.core.files import part_path, write_json
from lerobot.evaluation.result import EvalResult
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.training.checkpoints.checkpoint import step_name
from lerobot.training.config import TrainConfig
from lerobot.training.evaluations.evaluation_process import (
    FAILURE_FILE,
    JOB_FILE,
    RESULT_FILE,
    Arguments,
    Failure,
    Job,
)

logger = logging.getLogger(__name__)
LOG_FILE = "log.txt"
LOOK_EVERY_S = 0.1
NICENESS = 10  # of 19, where 0 is the training
MAX_FILMED = 4  # videos of an evaluation during training


@dataclass(kw_only=True)
class Pending:
    """An evaluation that was asked for; it runs when it has a process."""

    step: int
    folder: Path
    process: subprocess.Popen | None = None


class Evaluator:
    """Evaluates snapshots of a policy in at most `cfg.eval_workers` processes at once.

    Args:
        output_dir: the run's folder.
        device: where the snapshots compute: that of the training, in what it leaves of time and memory.
        resume_step: where a resumed run goes on. Evaluations of steps up to there that were not finished are
            begun again; later ones will come again by themselves.
    """

    def __init__(
        self, cfg: TrainConfig, output_dir: Path, *, device: torch.device, resume_step: int | None = None
    ) -> None:
        assert cfg.env is not None
        self.cfg, self.env, self.output_dir, self.device = cfg, cfg.env, output_dir, device
        self.folder = output_dir / "eval" / "pending"
        self.pending: deque[Pending] = deque()
        self.failure: TrainingError | None = None
        self.has_warned = False
        for path in sorted(self.folder.glob("*")):
            if path.name.isdigit() and resume_step is not None and int(path.name) <= resume_step:
                self.pending.append(Pending(step=int(path.name), folder=path))
            else:
                shutil.rmtree(path)
        if self.pending:
            steps = ", ".join(str(one.step) for one in self.pending)
            logger.info("Evaluations that were not finished are made up for: of step %s.", steps)

    def submit(
        self, step: int, policy: PreTrainedPolicy, processors: Pair, *, stop: threading.Event
    ) -> Iterator[tuple[int, EvalResult]]:
        """Have this policy evaluated; gives results that are waited for, where too many are unfinished."""
        while len(self.pending) > self.cfg.eval_workers and not stop.is_set() and self.failure is None:
            if not self.has_warned:
                logger.warning(
                    "Step %d: the evaluation of step %d still runs and another one waits, so the training "
                    "waits. Give a larger --eval_freq, --eval_workers=%d, or fewer --eval.n_episodes.",
                    step, self.pending[0].step, self.cfg.eval_workers + 1,
                )  # fmt: skip
                self.has_warned = True
            yield from self.done()
            time.sleep(LOOK_EVERY_S)
        try:
            self.pending.append(Pending(step=step, folder=self._snapshot(step, policy, processors)))
            self._begin()
        except OSError as error:
            self.failure = TrainingError(
                f"The policy of step {step} cannot be handed over for its evaluation: {error}. With "
                "--resume=true the run goes on; with --eval_workers=0 it evaluates in its own process."
            )

    def _snapshot(self, step: int, policy: PreTrainedPolicy, processors: Pair) -> Path:
        """The folder of a step, with the policy as it is now."""
        final = self.folder / step_name(step, self.cfg.steps)
        part = part_path(final)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for what in (policy, *processors):
            what.save_pretrained(part / keys.PRETRAINED_FOLDER)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        return final

    def done(self) -> Iterator[tuple[int, EvalResult]]:
        """Step and result of evaluations that have ended since, oldest first; also begins those that wait.

        One that failed sets `failure`, and nothing more is given.
        """
        while self.pending and self.failure is None:
            first = self.pending[0]
            if first.process is None or first.process.poll() is None:
                break
            outcome = self._outcome(first)
            if isinstance(outcome, Failure):
                self.failure = self._told(first, outcome)
                return
            self.pending.popleft()
            yield first.step, outcome
            shutil.rmtree(first.folder)  # not before its row is written
        self._begin()

    def rest(self, *, stop: threading.Event) -> Iterator[tuple[int, EvalResult]]:
        """All that is still to come, unless the run is asked to stop."""
        while self.pending and self.failure is None and not stop.is_set():
            yield from self.done()
            stop.wait(LOOK_EVERY_S if self.pending else 0)

    def close(self) -> None:
        """End the processes that run; what they were at is in its folder for a resumed run."""
        for one in self.pending:
            if one.process is not None and one.process.poll() is None:
                _kill(one.process)
                logger.warning("The evaluation of step %d was stopped; a resumed run repeats it.", one.step)
        if not self.pending:
            with suppress(OSError):  # something else is in it
                self.folder.rmdir()

    # --- processes
    def _begin(self) -> None:
        """Start what waits, as far as processes are free."""
        # One that failed keeps its place: nothing is begun behind it.
        running = sum(one.process is not None and not _has_result(one) for one in self.pending)
        for one in self.pending:
            if one.process is None and running < self.cfg.eval_workers and self.failure is None:
                one.process = self._start(one)
                running += 1

    def _start(self, one: Pending) -> subprocess.Popen:
        job = Job(
            env=self.env,
            arguments=arguments(self.cfg, self.output_dir, one.step),
            device=str(self.device),
            num_threads=max(1, torch.get_num_threads() // 4),
            is_deterministic=self.cfg.cudnn_deterministic,
            parent=os.getpid(),
        )
        for name in (RESULT_FILE, FAILURE_FILE):
            (one.folder / name).unlink(missing_ok=True)
        write_json(one.folder / JOB_FILE, encode(job))
        places = [path or str(Path.cwd()) for path in sys.path]
        # A group of its own: Ctrl-C in the terminal is the training's to hear. Not a session of its own: to
        # those Linux deals equal shares of the processor, whatever their priority.
        apart: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        with (one.folder / LOG_FILE).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lerobot.training.evaluations", str(one.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": os.pathsep.join(places)},
                creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),  # Windows has no nice
                **apart,
            )
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        return process

    def _outcome(self, one: Pending) -> EvalResult | Failure:
        assert one.process is not None
        if (one.folder / RESULT_FILE).is_file():
            return decode(EvalResult, read_file(one.folder / RESULT_FILE))
        if (one.folder / FAILURE_FILE).is_file():
            return decode(Failure, read_file(one.folder / FAILURE_FILE))
        status = one.process.returncode
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        return Failure(
            message=f"its process ended {how} without a word; if nobody ended it, the system did, for its "
            "memory",
            details=(one.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace"),
        )

    def _told(self, one: Pending, failure: Failure) -> TrainingError:
        """What to say of a failure, whose details go to a file."""
        path = self.output_dir / "eval" / f"failed_step_{one.folder.name}.txt"
        path.write_text(failure.details, encoding="utf-8")
        return TrainingError(
            f"The evaluation of step {one.step} in {self.env.type} failed: {failure.message.rstrip('.')}. "
            "With --resume=true the run goes on and repeats it; with --eval_workers=0 as well in the process "
            f"that trains, with --eval_freq=0 nothing is evaluated. Details: {path}"
        )


def arguments(cfg: TrainConfig, output_dir: Path, step: int) -> Arguments:
    """The arguments of `evaluate` for an evaluation during training, wherever it takes place."""
    return Arguments(
        n_episodes=cfg.eval.n_episodes,
        batch_size=cfg.eval.batch_size,
        num_processes=cfg.eval.num_processes if cfg.eval.use_async_envs else None,
        plan_batch_size=cfg.eval.plan_batch_size,
        seed=cfg.seed,
        max_videos=min(MAX_FILMED, cfg.eval.max_videos),
        video_folder=output_dir / "eval" / f"videos_step_{step_name(step, cfg.steps)}",
        rename_map=cfg.rename_map,
        task=cfg.task,
    )


def _has_result(one: Pending) -> bool:
    return one.process is not None and one.process.poll() is not None and (one.folder / RESULT_FILE).is_file()


def _kill(process: subprocess.Popen) -> None:
    """End a process and those that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    process.kill()
    process.wait()
