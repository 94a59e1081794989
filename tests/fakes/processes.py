"""Several processes that train together, as several GPUs or machines would have them, started in a blink.

A server process loads torch once; each process is a fork of it that knows its rank, as after torchrun.
"""

import multiprocessing
import os
import socket
import traceback
from multiprocessing.connection import Connection, wait

LIMIT_S = 90


def together(count: int, work, *args) -> list:
    """What `work(*args)` gives in each of `count` processes, in order; they may join a world."""
    context, port, processes, ends = server(), free_port(), [], []
    for rank in range(count):
        end, far_end = context.Pipe(duplex=False)
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = context.Process(target=enter, args=(far_end, place, work, args), daemon=False)
        process.start()
        far_end.close()
        processes.append(process)
        ends.append(end)
    try:
        answers = [answer(end, f"process {rank} of {count}") for rank, end in enumerate(ends)]
    finally:
        for process in processes:
            process.kill()
            process.join()
    failed = [text for is_good, text in answers if not is_good]
    assert not failed, "\n".join(failed)
    return [found for _, found in answers]


def server():
    """Makes processes that need not load torch any more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lerobot.training.loop"])
    return context


def enter(far_end: Connection, place: dict, work, args: tuple) -> None:
    """The life of one process."""
    os.environ |= {name: str(value) for name, value in place.items()}
    try:
        far_end.send((True, work(*args)))
    except BaseException:  # noqa: BLE001  whatever it is, the test says it
        far_end.send((False, traceback.format_exc()))


def answer(end: Connection, who: str) -> tuple:
    if not wait([end], timeout=LIMIT_S):
        return False, f"{who} has not answered for {LIMIT_S} s"
    try:
        return end.recv()
    except EOFError:
        return False, f"{who} ended without a word"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]
