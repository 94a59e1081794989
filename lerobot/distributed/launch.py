"""Starts one process per visible GPU: what `lerobot-train` does by itself on a machine with several.

    lerobot-train ... -> count GPUs -> torch's elastic agent -> N x `python -m MODULE ...`, RANK 0 to N-1

It is what `torch.distributed.run` does, with three differences: only the first process has the console, and
errors are said once, whoever had them; Ctrl-C and SIGTERM are passed on and waited for, however long a save
takes; the exit status is that of the processes.
"""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lerobot.core.command import LAUNCHED
from lerobot.core.errors import ConfigError, DeviceError, LeRobotError, LostConnectionError
from lerobot.core.signals import handling, say_stopping

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import RunResult
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

INTERRUPTED = 130  # exit status after Ctrl-C
ECHO = 2  # blame of a process that failed because another one was gone
LAST_LINES = 30  # of what a process without the console wrote, shown when it failed without a word


def processes_to_start(asked: int | None, *, device: str | None) -> int:
    """How many processes a command starts; 1 where it goes on alone, or was itself started by a launcher.

    Args:
        asked: how many a person wants; None is one per visible GPU.
        device: `--policy.device`; None chooses the best there is.

    Raises:
        ConfigError: a launcher started another number, or the device is a single one.
        DeviceError: there are fewer GPUs.
    """
    if "RANK" in os.environ:
        there = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
        if asked not in (None, there):
            raise ConfigError(
                f"--num_processes={asked}, but the launcher of this process started {there} on this machine. "
                "Leave out --num_processes."
            )
        return 1
    if asked == 1 or (asked is None and device not in (None, "cuda")):
        return 1
    if device == "cpu":
        return asked or 1
    if device not in (None, "cuda"):
        raise ConfigError(
            f"--num_processes={asked} and --policy.device={device}: several processes need a GPU each "
            "(--policy.device=cuda) or the CPU (--policy.device=cpu)."
        )
    import torch  # the launcher and a process that goes on alone need it either way

    visible = torch.cuda.device_count()  # asks the driver; no GPU is touched
    if asked is None:
        return max(1, visible)
    if asked > visible and (visible or device == "cuda"):
        raise DeviceError(
            f"--num_processes={asked}: {visible} GPUs are visible, and each process needs one. "
            f"Type: --num_processes={max(1, visible)}, or train on the CPU with --policy.device=cpu"
        )
    return asked


def launch(count: int, *, module: str, words: Sequence[str]) -> None:
    """Run `python -m module words...` in `count` processes that train together; returns when all are done.

    Raises:
        LeRobotError: what one of them failed with, with its exit status.
        KeyboardInterrupt: they were stopped before they could save.
    """
    os.environ[LAUNCHED] = "1"
    # As many threads as there are cores: by default each process would take that many.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    with tempfile.TemporaryDirectory(prefix="lerobot-train-") as name:
        folder = Path(name)
        agent = _agent(count, ["-m", module, *words], folder=folder)
        with _passing_signals_on(agent) as asked_to_stop:
            try:
                result = agent.run()
            finally:
                del os.environ[LAUNCHED]
        if not result.is_failed():
            return
        if asked_to_stop and all(map(_was_interrupted, result.failures.values())):
            raise KeyboardInterrupt
        raise _cause(result, folder)


def _agent(count: int, arguments: list[str], *, folder: Path) -> "LocalElasticAgent":
    """torch's agent for these processes; all but the first write into files below `folder`."""
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # `_cause` says it in our words
    # Handlers of its own would give the processes 30 seconds to save; an empty list is not accepted.
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP"
    rendezvous = RendezvousParameters(
        backend="c10d",
        endpoint="localhost:0",
        run_id=str(os.getpid()),
        min_nodes=1,
        max_nodes=1,
        is_host=True,
    )
    spec = WorkerSpec(
        role="train",
        local_world_size=count,
        entrypoint=sys.executable,
        args=tuple(word.replace("$", "$$") for word in arguments),  # the agent fills in ${local_rank}
        rdzv_handler=get_rendezvous_handler(rendezvous),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="localhost",
    )
    logs = DefaultLogsSpecs(log_dir=str(folder), redirects=dict.fromkeys(range(1, count), Std.ALL))
    return LocalElasticAgent(spec, logs)


@contextmanager
def _passing_signals_on(agent: "LocalElasticAgent") -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and a scheduler's signals reach every process; gives the list of those that came."""
    came: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        workers = [worker.id for worker in agent.get_worker_group().workers if worker.id is not None]
        if not workers:
            raise KeyboardInterrupt
        if not came:
            say_stopping()
        again = bool(came) and number == signal.SIGINT
        came.append(number)
        for process in workers:
            with suppress(ProcessLookupError):  # it is done already
                os.kill(process, signal.SIGINT if again else signal.SIGTERM)

    with handling(pass_on):
        yield came


def _cause(result: "RunResult", folder: Path) -> LeRobotError:
    """What to say of failed processes: the first error that is not the echo of another one."""
    rank, failure = min(result.failures.items(), key=lambda item: (_blame(item[1]), item[1].timestamp))
    if _has_said(failure):
        return _error(failure.message, status=failure.exitcode)
    if failure.exitcode < 0:
        return _error(
            f"Process {rank} was ended by {failure.signal_name()}, and the others were stopped. What was "
            "saved is unharmed; continue with --resume=true. If nobody ended it, the system did, for its "
            "memory: try a smaller --batch_size or --num_workers.",
            status=1,
        )
    written = "".join(path.read_text(errors="replace") for path in folder.rglob(f"{rank}/stderr.log"))
    said = written.splitlines()[-LAST_LINES:]  # the first process has said it on the console
    return _error("\n".join([f"Process {rank} failed (exit status {failure.exitcode}).", *said]), status=1)


def _blame(failure: "ProcessFailure") -> int:
    """The smaller, the likelier the cause: a message, a crash or a signal, an echo, stopped by the agent."""
    if _has_said(failure):
        is_echo = failure.error_file_data.get("kind") == LostConnectionError.__name__
        return ECHO if is_echo else 0
    return 3 if failure.exitcode == -signal.SIGTERM else 1


def _was_interrupted(failure: "ProcessFailure") -> bool:
    return failure.exitcode in (INTERRUPTED, -signal.SIGTERM) or _blame(failure) == ECHO


def _has_said(failure: "ProcessFailure") -> bool:
    return bool(failure.error_file_data.get("kind"))


def _error(text: str, *, status: int) -> LeRobotError:
    error = LeRobotError(text)
    error.exit_status = status
    return error
