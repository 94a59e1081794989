"""Which epoch comes next, agreed on by a process and the DataLoader workers that have a copy of its dataset.

    one number in shared memory:  who began the last epoch (24 bits: a set of workers; 0: the process itself)
                                  how many that set has begun (16 bits) | the next epoch (23 bits)

The first worker of a set takes the next epoch and says so; the others wait until it has, however late they
start. One number, written at once, needs no lock, and goes wherever a dataset is sent.
"""

import time

import torch
from torch.utils.data import get_worker_info

from lerobot.core.errors import DatasetError

EPOCH_BITS, COUNT_BITS, SET_BITS = 23, 16, 24
WAIT_S, POLL_S = 300.0, 0.002


class EpochCounter:
    """The next epoch; copies in worker processes share it."""

    def __init__(self) -> None:
        self._shared = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._begun = 0  # epochs that this process has begun as a worker

    @property
    def next(self) -> int:
        """The epoch that the next iterator gives."""
        return self._read()[2]

    @property
    def is_read_by_workers(self) -> bool:
        """Whether the last epoch was begun by DataLoader workers."""
        return self._read()[0] != 0

    def set(self, epoch: int) -> None:
        """Make this the next epoch."""
        if not 0 <= epoch < 2**EPOCH_BITS:
            raise DatasetError(f"epoch={epoch}: expected 0 to {2**EPOCH_BITS - 1}.")
        self._write(0, 0, epoch)

    def begin(self, epoch: int | None = None) -> int:
        """The epoch that this process reads now: the next one, or the given one.

        Raises:
            DatasetError: the first worker has not begun within five minutes.
        """
        worker = get_worker_info()
        if worker is None:
            epoch = self.next if epoch is None else epoch
            self.set(epoch + 1)
            return epoch
        mine = (worker.seed - worker.id) % (2**SET_BITS - 1) + 1  # all workers of a set have one base seed
        self._begun += 1
        if worker.id == 0:
            epoch = self.next if epoch is None else epoch
            self._write(mine, self._begun, epoch + 1)
            return epoch
        return self._wait_for(mine) - 1 if epoch is None else epoch

    def _wait_for(self, mine: int) -> int:
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            who, count, epoch = self._read()
            if who == mine and count >= self._begun:
                return epoch
            time.sleep(POLL_S)
        raise DatasetError(f"The first DataLoader worker has not begun to stream within {WAIT_S:.0f} s.")

    def _read(self) -> tuple[int, int, int]:
        number = int(self._shared[0])
        who = number >> (COUNT_BITS + EPOCH_BITS)
        return who, (number >> EPOCH_BITS) % 2**COUNT_BITS, number % 2**EPOCH_BITS

    def _write(self, who: int, count: int, epoch: int) -> None:
        self._shared[0] = ((who << COUNT_BITS | count) << EPOCH_BITS) | epoch
