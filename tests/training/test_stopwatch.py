"""Where a step's time goes: parts without each other, without the first step, on devices with a queue."""

import time

import pytest
import torch

from lerobot.training.gauges.stopwatch import PARTS, Stopwatch

CPU = torch.device("cpu")


class Clock:
    """A device with a queue: it begins with what it is given, and is done `work` later."""

    def __init__(self) -> None:
        self.now = self.busy_until = 0.0

    def give(self, work_s: float) -> None:
        self.busy_until = max(self.busy_until, self.now) + work_s


class QueuedEvent:
    def __init__(self, clock: Clock) -> None:
        self.clock, self.at = clock, 0.0

    def record(self) -> None:
        self.at = max(self.clock.busy_until, self.clock.now)

    def query(self) -> bool:
        return self.clock.now >= self.at

    def synchronize(self) -> None:
        self.clock.now = max(self.clock.now, self.at)

    def elapsed_time(self, end) -> float:
        return 1000 * (end.at - self.at)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    return made


def test_a_part_counts_without_what_is_inside_it(clock):
    watch = Stopwatch(CPU)
    for _ in range(3):
        watch.tick()
        with watch.span("data"):
            clock.now += 1
            with watch.span("transfer"):
                clock.now += 2
            clock.now += 1
        with watch.span("compute"):
            clock.now += 4
        clock.now += 1
    times = watch.read()
    assert times.steps == 2 and times.wall_s == 18  # the first step is left out
    assert times.parts_s == {"data": 4, "transfer": 4, "prepare": 0, "compute": 8, "optimizer": 0}
    assert times.busy_share is None and not times.is_first


def test_the_first_step_counts_where_it_is_alone(clock):
    watch = Stopwatch(CPU)
    clock.now += 100  # start-up
    watch.tick()
    with watch.span("compute"):
        clock.now += 5
    times = watch.read()
    assert times.is_first and times.steps == 1 and times.wall_s == 5 and watch.timed_steps == 0
    for _ in range(2):
        watch.tick()
        clock.now += 3
    times = watch.read()
    assert times.steps == 2 and times.wall_s == 6 and (watch.timed_s, watch.timed_steps) == (6, 2)


def test_what_is_untimed_is_remembered_apart(clock):
    watch = Stopwatch(CPU)
    for _ in range(2):
        watch.tick()
        clock.now += 2
        with watch.untimed("evaluation"):
            clock.now += 30
    assert watch.read().wall_s == 2
    assert watch.untimed_s == {"evaluation": [30, 30]}


def step_on(clock: Clock, watch: Stopwatch, *, data_s: float, launch_s: float, work_s: float) -> None:
    watch.tick()
    with watch.span("data"):
        clock.now += data_s
    for part in ("compute", "optimizer"):
        with watch.span(part):
            clock.now += launch_s
            clock.give(work_s)


def test_waiting_for_data_behind_a_busy_device_costs_nothing(clock):
    watch = Stopwatch(CPU, new_event=lambda: QueuedEvent(clock))
    for _ in range(11):
        step_on(clock, watch, data_s=1, launch_s=0.25, work_s=5)
    times = watch.read()
    assert times.busy_share > 0.9 and times.parts_s["data"] < 0.1 * times.wall_s
    assert times.starved_share == 0.0


def test_a_device_without_data_is_idle(clock):
    watch = Stopwatch(CPU, new_event=lambda: QueuedEvent(clock))
    for _ in range(11):
        step_on(clock, watch, data_s=10, launch_s=0.25, work_s=1)
    times = watch.read()
    assert times.parts_s["data"] / times.wall_s == pytest.approx(0.8, abs=0.1)
    assert times.busy_share == pytest.approx(0.2, abs=0.1)


def test_a_device_that_waits_for_python_is_starved(clock):
    watch = Stopwatch(CPU, new_event=lambda: QueuedEvent(clock))
    for _ in range(11):
        step_on(clock, watch, data_s=0, launch_s=4, work_s=1)
    assert watch.read().starved_share == 1.0


def test_few_events_are_kept_however_seldom_rows_are_written(clock):
    made = []
    watch = Stopwatch(CPU, new_event=lambda: made.append(1) or QueuedEvent(clock))
    for _ in range(500):
        step_on(clock, watch, data_s=3, launch_s=0.5, work_s=1)
    assert len(made) < 20


def test_the_span_that_failed_is_known():
    watch = Stopwatch(CPU)
    with pytest.raises(RuntimeError), watch.span("data"), watch.span("transfer"):
        raise RuntimeError("no memory")
    assert watch.failed_in == "transfer"


def test_it_costs_less_than_a_tenth_of_a_millisecond():
    watch, began_s = Stopwatch(CPU), time.process_time()
    for _ in range(1000):
        watch.tick()
        for part in PARTS:
            with watch.span(part):
                pass
    assert time.process_time() - began_s < 0.1
