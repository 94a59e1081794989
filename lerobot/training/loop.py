"""The training loop, on one screen.

batch -> forward -> backward -> clip -> step -> schedule;  log, validate, evaluate, save where they are due
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lerobot.core.command import LAUNCHED
from lerobot.core.signals import handling, say_stopping
from lerobot.distributed.world import World, joined
from lerobot.policies.device import asked_device
from lerobot.training.checkpoints.state import restore_state, save_checkpoint
from lerobot.training.config import TrainConfig
from lerobot.training.evaluations.validation import evaluations, last_evaluations, validate
from lerobot.training.finish import finish
from lerobot.training.gauges.batch_size import choose_batch_size
from lerobot.training.gauges.row import training_row
from lerobot.training.gauges.shortage import no_room_explained, shortage_explained
from lerobot.training.logs.header import header
from lerobot.training.run import Run, start
from lerobot.training.step import update

VOTE_EVERY = 10  # steps; a vote of several processes waits for the device
ECHO_S = 1.0  # a launcher passes a Ctrl-C on that the terminal has sent to all its processes already


def train(cfg: TrainConfig, *, begin: Callable[[TrainConfig, World], Run] = start) -> Path:
    """Train one policy and return the folder of its last checkpoint (of the run, when none was written).

    Args:
        begin: puts the run together; by default one that learns from recorded data.
    """
    assert cfg.policy is not None
    with joined(asked_device(cfg.policy.device)) as world, stop_requests() as stop:
        with no_room_explained(world.device):
            run = begin(cfg, world)
            choose_batch_size(run)
        if cfg.resume:
            restore_state(run)
        run.open()
        run.console.header(header(run))
        try:
            with run.console, run.saver, shortage_explained(run):
                for group in run.batches():
                    update(run, group)
                    run.step += 1
                    run.console.advance(run.step)
                    if run.due(run.cfg.log_freq) or run.finished:
                        run.log(training_row(run))
                    if run.due(run.cfg.eval_steps):
                        run.log(validate(run))
                    for row in evaluations(run, stop=stop):
                        run.log(row)
                    is_over = stop.is_set() or run.has_stalled or run.failure is not None
                    stopping = world.any(is_over, is_vote=run.due(VOTE_EVERY))
                    if run.cfg.save_checkpoint and (run.due(run.cfg.save_freq) or run.finished or stopping):
                        with run.untimed("saving"):
                            save_checkpoint(run)
                    if stopping and not run.finished:
                        break
                for row in last_evaluations(run, stop=stop):
                    run.log(row)
        finally:
            run.close()
        last = finish(run)
        if run.failure is not None:
            raise run.failure
        return last


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or a scheduler's signal sets; a second Ctrl-C interrupts at once."""
    stop, asked_s = threading.Event(), 0.0

    def ask(number: int, frame: object) -> None:
        nonlocal asked_s
        if not stop.is_set():
            stop.set()
            asked_s = time.monotonic()
            if LAUNCHED not in os.environ:  # else the launcher has said it
                say_stopping()
        elif number == signal.SIGINT and time.monotonic() - asked_s > ECHO_S:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    with handling(ask):
        yield stop
