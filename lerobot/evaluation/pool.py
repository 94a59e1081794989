"""Slots in processes of their own: environments step side by side while the policy plans.

    this process --order--> worker (environments, videos) --Seen--> this process

Workers are spawned, not forked: a fork of a process that has drawn cannot draw. They load no torch. They hear
no Ctrl-C, which is for the process that they belong to, and they end with it however it ends.
"""

import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lerobot.core.errors import EnvironmentFailedError, LeRobotError, UserError
from lerobot.core.signals import become_worker, deaf_to_interrupts
from lerobot.evaluation.assignment import Assignment
from lerobot.evaluation.stage import Order, Seen, Slots

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

PATIENCE_S = 5.0  # for workers that are asked to end
SCRIPT_RUNS_AGAIN = 70  # exit status of a worker whose main module evaluates while it is imported
NO_GUARD = (
    "The processes of the environments import the script that evaluates, and it evaluates again when it is "
    'imported. Put what it does below `if __name__ == "__main__":`, or let it step the environments itself: '
    "evaluate(..., num_processes=None), --eval.use_async_envs=false."
)


class WorkerTraceback(Exception):  # noqa: N818 - it is no failure of its own, it says where one came from
    """The traceback of an error in a worker, as text; the cause of that error here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


@dataclass(frozen=True)
class Trouble:
    """A worker's last word."""

    error: Exception
    details: str  # its traceback


@dataclass
class Worker:
    """A process with some of the slots, and what it was told and has not answered."""

    process: "BaseProcess"
    connection: Connection
    busy: deque[int] = field(default_factory=deque)  # slots whose orders it has


class Pool:
    """A stage of `num_processes` processes that share `num_slots` slots; use it in a `with`."""

    def __init__(self, slots: Slots, *, num_slots: int, num_processes: int) -> None:
        self.slots, self.num_slots, self.num_processes = slots, num_slots, num_processes
        self.workers: list[Worker] = []
        self.running: dict[int, Assignment] = {}  # by slot

    def __enter__(self) -> Self:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            os._exit(SCRIPT_RUNS_AGAIN)  # this is a worker that still imports; the pool it is of will say so
        context = multiprocessing.get_context("spawn")
        try:
            with deaf_to_interrupts():
                for _ in range(min(self.num_processes, self.num_slots)):
                    here, there = context.Pipe()
                    process = context.Process(target=work, args=(there, self.slots), daemon=True)
                    process.start()
                    there.close()  # else its end would not be noticed here
                    self.workers.append(Worker(process, here))
        except BaseException:
            self._end(is_hurried=True)
            raise
        return self

    def tell(self, slot: int, order: Order) -> None:
        """Send an order to the worker that has the slot."""
        if isinstance(order, Assignment):
            self.running[slot] = order
        worker = self.workers[slot % len(self.workers)]
        worker.busy.append(slot)
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died; `hear` finds out and says so
            worker.connection.send((slot, order))

    def hear(self) -> list[Seen]:
        """The answers that have come; waits for one.

        Raises:
            LeRobotError: what went wrong in a worker; its cause is the traceback there.
            EnvironmentFailedError: a worker died.
        """
        workers = {worker.connection: worker for worker in self.workers if worker.busy}
        heard = []
        for connection in wait(list(workers)):
            assert isinstance(connection, Connection)
            worker = workers[connection]
            try:
                answer: Any = connection.recv()
            except (EOFError, ConnectionResetError):
                raise self._death(worker) from None
            if isinstance(answer, Trouble):
                raise answer.error from WorkerTraceback(answer.details)
            worker.busy.popleft()
            heard.append(answer)
        return heard

    def _death(self, worker: Worker) -> LeRobotError:
        """What to say of a worker that is gone."""
        worker.process.join(PATIENCE_S)
        status = worker.process.exitcode or 0
        if status == SCRIPT_RUNS_AGAIN:
            return UserError(NO_GUARD)
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        one = self.running[worker.busy[0]]
        return EnvironmentFailedError(
            f"The process of the {one.env.type} environment {how} in {one}. If nobody ended it, the "
            "simulator crashed (SIGSEGV, SIGABRT), or the system had no memory left for it (SIGKILL): "
            "then try a smaller --eval.batch_size."
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(is_hurried=kind is not None)

    def _end(self, *, is_hurried: bool) -> None:
        """Wait for workers to end: at the end of their orders, or, if hurried, amid them."""
        for worker in self.workers:
            worker.connection.close()
            if is_hurried:
                worker.process.terminate()
        for worker in self.workers:
            worker.process.join(PATIENCE_S)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
        self.workers.clear()


# ------------------------------------------------------------------------------------------- in the worker
def work(connection: Connection, slots: Slots) -> None:
    """The life of a worker: orders in, answers out, until the other side is closed."""
    become_worker()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # amid an order; what is unfinished is cleaned up
    try:
        while True:
            connection.send(slots.obey(*connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody is interested any more
    except Exception as error:  # noqa: BLE001  whatever it is, the other side says it
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(Trouble(told(error), traceback.format_exc()))
    finally:
        slots.close()


def told(error: Exception) -> Exception:
    """An error of ours as it is; any other one, which the other side may not know, in words."""
    if isinstance(error, LeRobotError):
        return error
    return EnvironmentFailedError(f"{type(error).__name__}: {error}")
