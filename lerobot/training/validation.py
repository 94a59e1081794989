"""How good the policy is while it trains: loss on held-out episodes, success in simulation.

Neither moves the run's random numbers: a run with evaluations takes the same steps as one without.
"""

import threading
from collections.abc import Iterator

import numpy as np
import torch

from lerobot.core import keys
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.result import EvalResult
from lerobot.evaluation.rollout import evaluate, undisturbed_randomness
from lerobot.training.data import Batch
from lerobot.training.evaluator import arguments
from lerobot.training.metrics import Meter, Row
from lerobot.training.run import Run
from lerobot.training.transfer import to_device


def validation_loss(run: Run) -> float:
    """Mean loss over the held-out frames, in eval mode."""
    meter, num_batches, num_frames = Meter(), 0, 0
    with run.untimed(), undisturbed_randomness(), torch.no_grad():
        policy = run.evaluated_policy.eval()
        for part in held_out_batches(run):
            size = len(part[keys.INDEX])
            batch = run.prepare(to_device(part, run.world.device))
            with run.autocast():
                loss, _ = policy(batch)
            meter.add({"sum": loss.float() * size})
            num_batches, num_frames = num_batches + 1, num_frames + size
    return meter.read()["sum"] * num_batches / num_frames


def held_out_batches(run: Run) -> Iterator[Batch]:
    """The held-out frames, at most `max_eval_samples` of them, the same ones every time."""
    size, limit, frames = run.cfg.batch_size, run.cfg.max_eval_samples, run.held_out
    if isinstance(frames, StreamingLeRobotDataset):
        frames.set_epoch(0)
        left = limit or frames.num_frames
        for batch in frames.batches(size):
            yield {name: values[:left] for name, values in batch.items()}
            left -= len(batch[keys.INDEX])
            if left <= 0:
                return
        return
    assert frames is not None and not isinstance(run.dataset, StreamingLeRobotDataset)
    if limit and limit < len(frames):
        chosen = np.linspace(0, len(frames) - 1, limit).round().astype(int)
        frames = [frames[i] for i in chosen]
    for start in range(0, len(frames), size):
        yield run.dataset.batch(frames[start : start + size])


def evaluations(run: Run, *, stop: threading.Event) -> Iterator[Row]:
    """Rows of evaluations in `cfg.env` that are done; begins one where it is due.

    With `--eval_workers=0` that is the one of now, and the main process rolls it out while the others wait.
    """
    is_due = run.cfg.env is not None and run.due(run.cfg.eval_freq)
    if run.evaluator is not None:
        found = list(run.evaluator.done())
        if is_due:
            with run.untimed():
                found += run.evaluator.submit(run.step, run.evaluated_policy, run.processors, stop=stop)
        yield from (row_of(run, step, result) for step, result in found)
    elif is_due and run.cfg.eval_workers == 0:
        if run.world.is_main:
            yield row_of(run, run.step, evaluate_here(run))
        run.world.wait()


def last_evaluations(run: Run, *, stop: threading.Event) -> Iterator[Row]:
    """Rows of the evaluations that a run that has taken its last step still waits for."""
    if run.evaluator is not None:
        if run.evaluator.pending and not stop.is_set():
            run.console.say(f"evaluating  step {', '.join(str(one.step) for one in run.evaluator.pending)}")
        for step, result in run.evaluator.rest(stop=stop):
            yield row_of(run, step, result)


def evaluate_here(run: Run) -> EvalResult:
    """Roll the policy out in this process."""
    assert run.cfg.env is not None
    how_many = run.cfg.eval.n_episodes
    with run.untimed():
        return evaluate(
            run.evaluated_policy,
            run.processors,
            run.cfg.env,
            **vars(arguments(run.cfg, run.output_dir, run.step)),
            progress=EpisodeProgress(how_many, title="evaluating", console=run.console.console),
        )


def row_of(run: Run, step: int, result: EvalResult) -> Row:
    """The row of an evaluation of the policy after `step` steps, which the report will show."""
    run.last_evaluation = result
    overall = result.overall
    names = ("success_rate", "avg_sum_reward", "avg_max_reward")
    return {"step": step} | {f"eval/{name}": overall[name] for name in names}
