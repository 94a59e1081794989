"""What holds a run up, and one thing to change about it.

shares of a step --judge--> data-, transfer-, launch- or compute-bound + a sentence with a flag to type
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lerobot.training.config import TrainConfig

GIB = 1024**3
WAITING = 0.2  # share of the time from which waiting is what holds a run up
STARVED = 0.5  # share of the steps after which the device had nothing left to do
PREPARING = 0.3  # share of the time from which changing pictures is worth a word
LOCKED = (0.8, 1.4)  # cores that many threads use together when they wait for Python's lock
ROOMY = 0.45  # share of the device's memory up to which twice the batch fits
RAM_LEFT = 0.7  # share of the free memory that a cache may take


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the verdict is taken from."""

    cfg: TrainConfig
    device: str  # cuda, cpu ...
    shares: Mapping[str, float]  # of the time of a step: data, transfer, prepare, compute, optimizer, other
    cores: int  # of this machine, for each process
    cores_used: float  # by all threads of this process
    starved_share: float | None = None  # of the steps after which the device had caught up with the host
    memory_share: float | None = None  # of the device's memory that is used
    picture_bytes: int = 0  # of all decoded pictures of the data
    free_bytes: int | None = None  # memory of the machine that is free


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What holds a run up, in a word and in a sentence."""

    bound: str  # data, transfer, launch or compute
    advice: str


@dataclass(kw_only=True)
class Advisor:
    """Says a verdict when it has changed, not on every line."""

    said: Verdict | None = None
    _candidate: str | None = field(default=None, repr=False)

    def hear(self, verdict: Verdict) -> str | None:
        """The sentence, if there is something new to say: another verdict in two rows, or the first one."""
        is_new = self.said is None or (verdict.bound != self.said.bound and verdict.bound == self._candidate)
        self._candidate = verdict.bound
        if not is_new:
            return None
        self.said = verdict
        return verdict.advice


def judge(now: Situation) -> Verdict:
    """What holds the run up, and what to change about it."""
    data, transfer = now.shares["data"], now.shares["transfer"]
    if max(data, transfer) >= WAITING:
        if data >= transfer:
            said = f"data-bound: {data:.0%} of the time is waiting for data. {_faster_data(now)}"
            return Verdict(bound="data", advice=said)
        said = f"transfer-bound: {transfer:.0%} of the time is copying to the device. {_faster_transfer(now)}"
        return Verdict(bound="transfer", advice=said)
    if now.starved_share is not None and now.starved_share >= STARVED:
        said = (
            f"launch-bound: after {now.starved_share:.0%} of the steps the device waits for Python. "
            f"{_fewer_launches(now)}"
        )
        return Verdict(bound="launch", advice=said)
    return Verdict(bound="compute", advice=f"compute-bound: {_less_work(now)}")


def _faster_data(now: Situation) -> str:
    cfg, spare = now.cfg, now.cores - now.cores_used
    data, workers = cfg.dataset, cfg.num_workers
    if workers == 0:
        return f"Type: --num_workers={max(1, min(4, now.cores))} (it is 0: nothing is read ahead)."
    is_locked = LOCKED[0] <= now.cores_used <= LOCKED[1] and workers > 1 and spare >= 1
    if is_locked and cfg.loader_workers == "threads" and not data.streaming:
        return (
            f"{workers} threads use {now.cores_used:.1f} of {now.cores} cores: they wait for Python's lock. "
            "Type: --loader_workers=processes"
        )
    if spare >= 1 and workers < now.cores:
        more = min(now.cores, workers + max(2, math.floor(spare)))
        return f"Type: --num_workers={more} (it is {workers}, and {spare:.0f} cores are idle)."
    if data.streaming:
        return "The data is streamed; with --dataset.streaming=false it is read from this machine's disk."
    if data.cache is None and now.picture_bytes:
        size = now.picture_bytes / GIB
        if now.free_bytes is not None and now.picture_bytes <= RAM_LEFT * now.free_bytes:
            return f"Type: --dataset.cache=ram (decoded, all pictures take {size:.1f} GiB, which are free)."
        return f"Type: --dataset.cache=disk (decoded, all pictures take {size:.1f} GiB)."
    return f"All {now.cores} cores are busy: smaller pictures (--policy.input_shapes.CAMERA=[3,H,W]) help."


def _faster_transfer(now: Situation) -> str:
    if now.device == "cpu":
        return (
            "Here that is turning pictures into numbers; smaller ones (--policy.input_shapes.CAMERA=[3,H,W] "
            "with --dataset.cache=ram) help."
        )
    if not now.cfg.pin_memory:
        return "Type: --pin_memory=true"
    return "Smaller pictures (--policy.input_shapes.CAMERA=[3,H,W] with --dataset.cache=ram) help."


def _fewer_launches(now: Situation) -> str:
    if not now.cfg.compile:
        return "Type: --compile=true"
    return _larger_batch(now) or "A larger --batch_size with a smaller chunk or smaller pictures helps."


def _larger_batch(now: Situation) -> str | None:
    if now.memory_share is None or now.memory_share > ROOMY:
        return None
    return (
        f"Type: --batch_size={2 * now.cfg.batch_size} ({now.memory_share:.0%} of the memory is used; "
        "it changes what a step learns from)."
    )


def _less_work(now: Situation) -> str:
    cfg, prepare, other = now.cfg, now.shares["prepare"], now.shares["other"]
    if other >= WAITING and cfg.log_freq < 10:
        return f"{other:.0%} of the time is spent between steps. Type: --log_freq=100 (it is {cfg.log_freq})."
    if prepare >= PREPARING:
        what = "random changes of pictures" if cfg.dataset.image_transforms.enable else "the preprocessor"
        return (
            f"{prepare:.0%} of the time is {what}. Smaller pictures "
            "(--policy.input_shapes.CAMERA=[3,H,W]) or fewer changes "
            "(--dataset.image_transforms.max_num_transforms=1) help."
        )
    work = now.shares["compute"] + now.shares["optimizer"]
    busy = f"{work:.0%} of the time is the policy itself."
    if now.device == "cpu":
        return f"{busy} On this processor only a smaller policy or smaller pictures help; a GPU does."
    if cfg.mixed_precision in (False, "no"):
        return f"{busy} Type: --mixed_precision=true"
    if not cfg.compile:
        return f"{busy} Type: --compile=true"
    return f"{busy} {_larger_batch(now) or 'No setting makes that faster on this device.'}"
