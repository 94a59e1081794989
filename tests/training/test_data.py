"""The loader: order never depends on threads, processes share an epoch, a position follows from a number."""

import threading
import time

import pytest
import torch

from lerobot.datasets.sampler import EpisodeAwareSampler
from lerobot.training.sampling.data import BatchLoader
from lerobot.training.transfer import to_device


class Numbers:
    """A source whose items are their own numbers; later batches are ready sooner, to provoke disorder."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.threads: set[str] = set()
        self.calls, self.fail_at, self.lock = 0, fail_at, threading.Lock()

    def batch(self, indices):
        with self.lock:
            self.calls += 1
            call = self.calls
        self.threads.add(threading.current_thread().name)
        time.sleep(0.003 / call)
        if self.fail_at is not None and self.fail_at in indices:
            raise OSError(f"frame {self.fail_at} cannot be read")
        return {"index": torch.tensor(indices)}


def loader(source, *, frames=23, start=None, **how):
    sampler = EpisodeAwareSampler([0], [frames], shuffle=True, seed=7)
    made = BatchLoader(source, sampler, **{"batch_size": 4, **how})
    made.start = start or made.start
    return made


def first(loader, count):
    batches = iter(loader)
    taken = [next(batches)["index"].tolist() for _ in range(count)]
    batches.close()
    return taken


def test_threads_do_not_change_the_order():
    alone, threaded = Numbers(), Numbers()
    assert first(loader(alone), 20) == first(loader(threaded, num_workers=3, prefetch=2), 20)
    assert len(threaded.threads) > 1


def test_an_epoch_visits_every_frame_once_and_epochs_differ():
    batches = first(loader(Numbers()), 12)
    one, two = sum(batches[:6], []), sum(batches[6:], [])
    assert sorted(one) == sorted(two) == list(range(23))
    assert one != two


@pytest.mark.parametrize("position", [0, 1, 5, 6, 17])
def test_a_loader_started_later_continues_the_same_order(position):
    start = loader(Numbers()).position(position)
    assert first(loader(Numbers(), start=start), 4) == first(loader(Numbers()), position + 4)[position:]


def shared(count, *, num_ranks, **how):
    """The frames of `count` steps of several processes, in any order within a step."""
    parts = [first(loader(Numbers(), rank=r, num_ranks=num_ranks, **how), count) for r in range(num_ranks)]
    return [sorted(sum(step, [])) for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("steps", [1, 3, 5, 8])  # after 5, the epoch ends with the first step of three
def test_another_number_of_processes_continues_the_same_permutation(steps):
    """After some steps of two processes three go on, with smaller batches, in the order of one."""
    whole = sum(first(loader(Numbers()), 12), [])
    before = sum(shared(steps, num_ranks=2, batch_size=2), [])
    position = loader(Numbers(), num_ranks=2, batch_size=2).position(steps)
    after = shared(3, num_ranks=3, batch_size=1, start=position)
    done = len(before)
    assert (position.epoch, position.offset) == divmod(done, 23)
    assert before[:4] == sorted(whole[:4])
    for k, step in enumerate(after):
        assert step == sorted(whole[done + 3 * k : done + 3 * k + 3])


def test_positions_of_batches_follow_each_other():
    one = loader(Numbers())
    states = [one.position(n) for n in range(14)]
    assert [(s.epoch, s.offset) for s in states[:8]] == [
        (0, 0), (0, 4), (0, 8), (0, 12), (0, 16), (0, 20), (1, 0), (1, 4)
    ]  # fmt: skip
    later = loader(Numbers(), start=states[3])
    assert [later.position(n) for n in range(11)] == states[3:]


def test_processes_share_each_epoch():
    parts = [first(loader(Numbers(), rank=r, num_ranks=2), 3) for r in range(2)]
    both = sum((a + b for a, b in zip(*parts, strict=True)), [])
    assert sorted(both) == list(range(23))
    assert all(len(a) and len(b) for a, b in zip(*parts, strict=True))


def test_no_process_is_left_without_a_frame():
    last = [first(loader(Numbers(), frames=9, rank=r, num_ranks=2), 2)[-1] for r in range(2)]
    assert last[0] == last[1] and len(last[0]) == 1


def test_an_error_of_a_worker_reaches_the_caller():
    with pytest.raises(OSError, match="frame 3"):
        first(loader(Numbers(fail_at=3), num_workers=2), 12)


def test_pictures_become_floats_on_the_device():
    batch = {
        "picture": torch.tensor([[0, 255]], dtype=torch.uint8),
        "flag": torch.tensor([True]),
        "task": ["pick"],
    }
    moved = to_device(batch, torch.device("cpu"))
    assert moved["picture"].tolist() == [[0.0, 1.0]] and moved["picture"].dtype == torch.float32
    assert moved["flag"].dtype == torch.bool and moved["task"] == ["pick"]
