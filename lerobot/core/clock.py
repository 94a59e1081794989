"""Time: a pacer that keeps a loop at its rate, and durations as people read them."""

import time


class Pacer:
    """Holds a loop at `fps` ticks per second; lateness is caught up, so the average rate is kept."""

    def __init__(self, fps: float) -> None:
        self.period_s = 1.0 / fps
        self.next_s = time.perf_counter() + self.period_s

    def wait(self) -> float:
        """Sleep until the next tick; returns the seconds that were left (negative: the tick came late)."""
        left_s = self.next_s - time.perf_counter()
        if left_s > 0:
            time.sleep(left_s)
        # A loop that fell far behind starts afresh instead of racing.
        self.next_s = max(self.next_s, time.perf_counter() - self.period_s) + self.period_s
        return left_s


def readable_duration(seconds: float) -> str:
    """'45 s', '3 min 05 s' or '2 h 07 min'."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
