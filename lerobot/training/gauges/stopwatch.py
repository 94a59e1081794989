"""Where the time of a step goes, measured without waiting for the device.

    span("data") ... span("compute")   host: perf_counter; CUDA, MPS: events in the stream, read when logged

A device that works on its own is behind the host that feeds it. What the host does meanwhile costs nothing,
so there the events count, and of the host's waiting only what left the device without work. Spans may be
nested; each counts without what is inside it.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import torch

# Parts of a step, in order. `data`: waiting for the loader; `transfer`: to the device, as far as it is waited
# for; `prepare`: augmentation and preprocessor; `compute`: forward and backward; `optimizer`: clip and step.
PARTS = ("data", "transfer", "prepare", "compute", "optimizer")
ON_DEVICE = PARTS[1:]  # parts that give the device work


class Event(Protocol):
    """A mark in the device's queue of work, as `torch.cuda.Event` is one."""

    def record(self) -> Any:
        """Put the mark at the end of the queue."""

    def query(self) -> bool:
        """Whether the device has come to it."""

    def synchronize(self) -> None:
        """Return when the device has come to it."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds on the device until the mark `end`."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """What some steps cost, in seconds of all of them together."""

    steps: int
    wall_s: float  # without what was untimed
    parts_s: dict[str, float]  # of PARTS; what is left of wall_s is Python, other work, or idling
    cores_used: float = 0.0  # processor time of all threads of this process per second
    busy_share: float | None = None  # of the wall time in which the device had work; None: the host computes
    starved_share: float | None = (
        None  # of the steps after which the device had already caught up with the host
    )
    is_first: bool = False  # of the first step alone, which loads kernels and opens files


class Stopwatch:
    """Measures the parts of steps; `tick` begins each step.

    The first step of a process is left out where others were measured too: it loads kernels and opens files.
    """

    def __init__(self, device: torch.device, *, new_event: Callable[[], Event] | None = None) -> None:
        """`new_event` makes the device's events; by default those of the device's kind, none on a CPU."""
        self.new_event = new_event or event_maker(device)
        self.host_s: dict[str, float] = defaultdict(float)
        self.device_s: dict[str, float] = defaultdict(float)
        self.untimed_s: dict[str, list[float]] = defaultdict(list)  # durations of evaluations, saves ...
        self.steps = self.timed_steps = self.looks = self.looks_idle = 0
        self.timed_s = 0.0  # of timed_steps, all rows together
        self.failed_in: str | None = None  # innermost span that an exception left
        self._open: list[str] = []
        self._pairs: deque[tuple[str, Event, Event]] = deque()
        self._spare: list[Event] = []
        self._ticks = 0
        self._since_s = self._window_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def tick(self) -> None:
        """Begin a step."""
        self._ticks += 1
        if self._ticks <= 2 and self.steps == self._ticks - 1:  # nothing was read yet: forget the first step
            self._restart()
        self.steps += 1
        self._collect()

    def span(self, name: str) -> "_Span":
        """A context in which time counts as part `name` of a step."""
        return _Span(self, name)

    @contextmanager
    def untimed(self, name: str) -> Iterator[None]:
        """What happens inside is not counted as training time, but remembered for how long a run takes."""
        before_s, before_cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            lasted_s = time.perf_counter() - before_s
            self._cpu_s += time.process_time() - before_cpu_s
            self._window_s += lasted_s
            self._since_s += lasted_s
            self.untimed_s[name].append(lasted_s)

    def read(self) -> Times:
        """The times since the last call; waits until the device has done what it was given."""
        if self._pairs:
            self._pairs[-1][2].synchronize()
        self._collect()
        wall_s = max(time.perf_counter() - self._window_s, 1e-9)
        is_first = self._ticks == 1
        if not is_first:
            self.timed_s, self.timed_steps = self.timed_s + wall_s, self.timed_steps + self.steps
        times = self._times(wall_s, is_first=is_first)
        self._restart()
        return times

    def _times(self, wall_s: float, *, is_first: bool) -> Times:
        cores_used = (time.process_time() - self._cpu_s) / wall_s
        if self.new_event is None:
            parts = {name: self.host_s[name] for name in PARTS}
            return Times(
                steps=self.steps, wall_s=wall_s, parts_s=parts, cores_used=cores_used, is_first=is_first
            )
        parts = {name: self.device_s[name] for name in ON_DEVICE}
        # The device had nothing to do; waiting for data explains it as far as the host did wait for data.
        idle_s = max(0.0, wall_s - sum(parts.values()))
        parts = {"data": min(idle_s, self.host_s["data"])} | parts
        return Times(
            steps=self.steps,
            wall_s=wall_s,
            parts_s=parts,
            cores_used=cores_used,
            busy_share=min(1.0, sum(parts[name] for name in ON_DEVICE[1:]) / wall_s),
            starved_share=self.looks_idle / self.looks if self.looks else 0.0,
            is_first=is_first,
        )

    def _restart(self) -> None:
        self.host_s.clear()
        self.device_s.clear()
        self._pairs.clear()
        self.steps = self.looks = self.looks_idle = 0
        self._since_s = self._window_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def _charge(self) -> None:
        """Count the time since the last call for the innermost open span."""
        now_s = time.perf_counter()
        if self._open:
            self.host_s[self._open[-1]] += now_s - self._since_s
        self._since_s = now_s

    def _mark(self) -> Event:
        assert self.new_event is not None
        event = self._spare.pop() if self._spare else self.new_event()
        event.record()
        return event

    def _look(self) -> None:
        """After a step was given to the device: has it already computed it? Then it waits for the host."""
        last = next((pair for pair in reversed(self._pairs) if pair[0] == "compute"), None)
        if last is not None:
            self.looks += 1
            self.looks_idle += last[2].query()

    def _collect(self) -> None:
        """Read the events that the device has passed, so that few are kept however seldom rows are logged."""
        while self._pairs and self._pairs[0][2].query():
            name, first, last = self._pairs.popleft()
            self.device_s[name] += first.elapsed_time(last) / 1000
            self._spare += [first, last]


class _Span:
    """One measured part; made by `Stopwatch.span`."""

    __slots__ = ("first", "name", "watch")

    def __init__(self, watch: Stopwatch, name: str) -> None:
        self.watch, self.name = watch, name
        self.first: Event | None = None

    def __enter__(self) -> Self:
        watch = self.watch
        watch._charge()
        watch._open.append(self.name)
        if watch.new_event is not None and self.name in ON_DEVICE:
            self.first = watch._mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watch = self.watch
        watch._charge()
        watch._open.pop()
        if kind is not None:
            watch.failed_in = watch.failed_in or self.name
            return
        if self.first is not None:
            if self.name == "optimizer":
                watch._look()
            watch._pairs.append((self.name, self.first, watch._mark()))


def event_maker(device: torch.device) -> Callable[[], Event] | None:
    """What makes events of a device that works on its own; None for others, whose time is the host's."""
    if device.type == "cuda":
        return lambda: torch.cuda.Event(enable_timing=True)
    if device.type == "mps":
        return lambda: torch.mps.event.Event(enable_timing=True)
    return None
