"""The numbers of a log row: how well it learns, how fast, where the time goes, what it takes, how long.

    meter + stopwatch + device --every log_freq steps--> row (metrics.jsonl, console, trackers)

Names of a row: `step_ms`; for each part of a step `<part>_ms` and `<part>_share`; `samples_per_s`,
`tokens_per_s`; `peak_memory_gib`; `eta_s`; `skipped_steps`; `bound`, and `advice` when the verdict changed.
"""

import math
import os

import torch

from lerobot.training.gauges.advice import Situation, judge
from lerobot.training.gauges.capacity import GIB, free_bytes, peak_bytes, total_bytes
from lerobot.training.gauges.nan import settle
from lerobot.training.gauges.stopwatch import Times
from lerobot.training.logs.metrics import Row
from lerobot.training.run import Run

COUNTED = ("items", "tokens")  # names of the meter that become numbers per second


def training_row(run: Run) -> Row:
    """A row of what happened since the last one; waits for the device.

    Raises:
        TrainingError: a loss or gradient was no number, and `--on_nan=stop`.
    """
    settle(run)
    means = run.world.mean_of(run.meter.read())
    times = run.stopwatch.read()
    micro_batches = times.steps * run.cfg.gradient_accumulation_steps * run.world.size
    frames = run.step * run.loader.batch_size * run.cfg.gradient_accumulation_steps * run.world.size
    row: Row = {"epoch": frames / run.loader.frames_per_epoch}
    row |= {name: mean for name, mean in means.items() if name not in COUNTED and math.isfinite(mean)}
    row["samples_per_s"] = means["items"] * micro_batches / times.wall_s
    if "tokens" in means:
        row["tokens_per_s"] = means["tokens"] * micro_batches / times.wall_s
    row |= time_row(run, times)
    peak = max(run.world.gather(peak_bytes(run.world.device) or 0))
    if peak:
        row["peak_memory_gib"] = peak / GIB
    if run.guard.skipped:
        row["skipped_steps"] = run.guard.skipped
    row |= run.curriculum.row(run.step) if run.curriculum is not None else {}
    row |= run.blend.row() if run.blend is not None else {}
    row |= run.experience.row() if run.experience is not None else {}
    left_s = seconds_left(run)
    if left_s is not None:
        row["eta_s"] = left_s
    if not times.is_first:
        row |= verdict_row(run, times, row, peak=peak)
    return row


def time_row(run: Run, times: Times) -> dict[str, float]:
    """Milliseconds and share of each part of a step, as the mean of all processes."""
    other_s = max(0.0, times.wall_s - sum(times.parts_s.values()))
    spent = {"step": times.wall_s, **times.parts_s, "other": other_s}
    row = {f"{name}_ms": 1000 * seconds / times.steps for name, seconds in spent.items()}
    row |= {
        f"{name}_share": min(1.0, seconds / times.wall_s) for name, seconds in spent.items() if name != "step"
    }
    if times.busy_share is not None and times.starved_share is not None:
        row |= {"device_busy_share": times.busy_share, "starved_share": times.starved_share}
    return run.world.mean_of(row)


def seconds_left(run: Run) -> float | None:
    """Seconds until the last step at the pace so far, with what is still due; None before a pace is known.

    Start-up and first step do not count; an evaluation or a save counts once one of its kind was seen.
    """
    watch, cfg = run.stopwatch, run.cfg
    if not watch.timed_steps:
        return None
    left_s = (cfg.steps - run.step) * watch.timed_s / watch.timed_steps
    periods = {"validation": cfg.eval_steps, "evaluation": cfg.eval_freq, "saving": cfg.save_freq}
    for name, every in periods.items():
        lasted = watch.untimed_s.get(name)
        if lasted and every > 0:
            left_s += (cfg.steps // every - run.step // every) * sum(lasted) / len(lasted)
    return left_s


def verdict_row(run: Run, times: Times, row: Row, *, peak: int) -> Row:
    """What holds the run up, and advice when that is new."""
    device = run.world.device
    total = total_bytes(device)
    verdict = judge(
        Situation(
            cfg=run.cfg,
            device=device.type,
            shares={name: float(row[f"{name}_share"]) for name in (*times.parts_s, "other")},
            cores=max(1, (os.cpu_count() or 1) // run.world.size),
            cores_used=times.cores_used,
            starved_share=times.starved_share,
            memory_share=peak / total if total and device.type != "cpu" else None,
            picture_bytes=picture_bytes(run),
            free_bytes=free_bytes(torch.device("cpu")),
        )
    )
    said = run.advisor.hear(verdict)
    found: Row = {"bound": verdict.bound}
    if said:
        found["advice"] = said
    return found


def picture_bytes(run: Run) -> int:
    """Bytes of all pictures of the data, decoded, at the size the policy sees."""
    assert run.cfg.policy is not None
    shapes = [feature.shape for feature in run.cfg.policy.image_features.values()]
    return run.dataset.num_frames * sum(math.prod(shape) for shape in shapes)
