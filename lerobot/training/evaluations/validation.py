"""How good the policy is while it trains: loss on held-out episodes, success in simulation.

    held-out frames -> batches of this process -> totals (once) -> shares of the loss -> sums, also by task

Neither moves the run's random numbers: a run with evaluations takes the same steps as one without.
Shapes: B items of a batch, G groups of items.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.datasets.mixture import DatasetMixture
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.result import EvalResult
from lerobot.evaluation.rollout import evaluate, undisturbed_randomness
from lerobot.training.checkpoints.shards import acting_policy
from lerobot.training.evaluations.evaluator import arguments
from lerobot.training.logs.metrics import Row
from lerobot.training.run import Run
from lerobot.training.sampling.data import Batch
from lerobot.training.transfer import feed

MAX_TASKS = 20  # more tasks than that have no losses of their own


def validate(run: Run) -> Row:
    """`eval/loss`, the loss of all held-out frames as of one large batch, in eval mode, with the same noise
    every time; where there are several tasks or datasets also theirs: means over their items.

    Every process enters, each looks at its part, and all get the same row.
    """
    with run.untimed("validation"), undisturbed_randomness(), torch.no_grad():
        policy = run.evaluated_policy.eval()
        if run.held_out_totals is None:  # the same ones every time
            run.held_out_totals = _totals(run)
        groups = Groups(run)
        loss = torch.zeros((), device=run.world.device)
        for turn, batch in enumerate(held_out_batches(run)):
            torch.manual_seed((run.cfg.seed or 0) + turn * run.world.size + run.world.rank)
            with run.autocast():
                share, info = policy(batch, totals=run.held_out_totals)
            loss += share.float()
            groups.add(batch, info or {})
        return {"eval/loss": float(_added_up(run, loss))} | groups.row()


def validation_loss(run: Run) -> float:
    """The loss of all held-out frames; see `validate`."""
    return float(validate(run)["eval/loss"])


def _totals(run: Run) -> dict[str, Tensor]:
    """What the loss's means are over in all held-out frames."""
    sums: dict[str, Tensor] = {}
    for batch in held_out_batches(run):
        for name, total in run.policy.loss_totals(batch).items():
            sums[name] = sums.get(name, 0) + total.float()
    return {name: _added_up(run, total) for name, total in sums.items()}


def _added_up(run: Run, value: Tensor) -> Tensor:
    """The sum over all processes, where each has looked at another part; a stream is read whole by each."""
    return value if isinstance(run.held_out, StreamingLeRobotDataset) else run.world.add_up(value)


class Groups:
    """Mean losses of the items of each task and of each dataset, where there are several."""

    def __init__(self, run: Run) -> None:
        self.run, data = run, run.dataset
        members = data.parts if isinstance(data, DatasetMixture) else [data]
        tasks = sorted({name for one in members for name in one.meta.tasks})
        self.tasks = {name: k for k, name in enumerate(tasks if len(tasks) <= MAX_TASKS else [])}
        self.datasets = run.cfg.dataset.names if isinstance(data, DatasetMixture) else []
        count = len(self.tasks) + len(self.datasets)
        self.sums = torch.zeros(2, count, device=run.world.device)  # (2, G) losses, items

    def add(self, batch: Batch, info: dict[str, Any]) -> None:
        """Count the items of a batch."""
        losses = info.get("item_losses")  # (B,)
        if losses is None or not self.sums.numel():
            return
        counts = batch.get(keys.LOSS_WEIGHT, torch.ones_like(losses))  # 0 in a filler
        both = torch.stack([losses * counts, counts]).to(self.sums.dtype)  # (2, B)
        if self.tasks and self.run.cfg.task is None:
            where = torch.tensor([self.tasks[name] for name in batch[keys.TASK]])
            self.sums.index_add_(1, where.to(self.sums.device), both)
        if self.datasets:
            self.sums.index_add_(1, len(self.tasks) + batch[keys.DATASET_INDEX], both)

    def row(self) -> Row:
        """The means of tasks and datasets of which there are at least two."""
        if not self.sums.numel():
            return {}
        losses, counts = _added_up(self.run, self.sums).tolist()
        row: Row = {}
        for kind, names, first in (
            ("task", list(self.tasks), 0),
            ("dataset", self.datasets, len(self.tasks)),
        ):
            means = {
                n: losses[first + k] / counts[first + k] for k, n in enumerate(names) if counts[first + k]
            }
            if len(means) > 1:
                row |= {f"eval/loss_of_{kind}/{name}": mean for name, mean in means.items()}
        return row


# ------------------------------------------------------------------------------------------- batches
def held_out_batches(run: Run) -> Iterator[Batch]:
    """This process's batches of the held-out frames, at most `max_eval_samples`, the same ones every time.

    All processes get equally many, on the device and preprocessed; where one has none left, it gets one whose
    items count nothing.
    """
    read = _streamed(run) if isinstance(run.held_out, StreamingLeRobotDataset) else _read(run)
    for batch in feed(read, run.world.device, pin=run.cfg.pin_memory):
        yield run.prepare(batch)


def _streamed(run: Run) -> Iterator[Batch]:
    frames, size = run.held_out, run.cfg.batch_size
    assert isinstance(frames, StreamingLeRobotDataset)
    frames.set_epoch(0)
    left = run.cfg.max_eval_samples or frames.num_frames
    for batch in frames.batches(size):
        yield {name: values[:left] for name, values in batch.items()}
        left -= len(batch[keys.INDEX])
        if left <= 0:
            return


def _read(run: Run) -> Iterator[Batch]:
    frames, limit, size = run.held_out, run.cfg.max_eval_samples, run.cfg.batch_size
    assert isinstance(frames, list) and not isinstance(run.dataset, StreamingLeRobotDataset)
    if limit and limit < len(frames):
        chosen = np.linspace(0, len(frames) - 1, limit).round().astype(int)
        frames = [frames[i] for i in chosen]
    parts = [frames[start : start + size] for start in range(0, len(frames), size)]
    count = math.ceil(len(parts) / run.world.size)
    own = parts[run.world.rank :: run.world.size]
    wanted = own + parts[:1] * (count - len(own))
    ahead = run.cfg.num_workers * run.cfg.prefetch_factor
    batches = read_ahead(run.dataset.batch, wanted, num_threads=run.cfg.num_workers, ahead=ahead)
    for turn, batch in enumerate(batches):
        is_filler = turn >= len(own)
        yield batch | {keys.LOSS_WEIGHT: torch.zeros(len(wanted[turn]))} if is_filler else batch


def read_ahead(
    read: Callable[[Sequence[int]], Batch], wanted: Iterable[Sequence[int]], *, num_threads: int, ahead: int
) -> Iterator[Batch]:
    """What is wanted, in order, read by threads so many batches ahead."""
    if not num_threads:
        yield from map(read, wanted)
        return
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="validation") as pool:
        for one in wanted:
            waiting.append(pool.submit(read, one))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


# ------------------------------------------------------------------------------------------- simulation
def evaluations(run: Run, *, stop: threading.Event) -> Iterator[Row]:
    """Rows of evaluations in `cfg.env` that are done; begins one where it is due.

    With `--eval_workers=0` that is the one of now, whose episodes the processes share.
    """
    is_due = run.cfg.env is not None and run.due(run.cfg.eval_freq)
    if is_due and run.cfg.eval_workers:
        policy = acting_policy(run)  # every process enters: it may be in shards
    if run.evaluator is not None:
        for step, result in run.evaluator.done():
            yield row_of(run, step, result)
        if is_due:
            with run.untimed("evaluation"):
                for step, result in run.evaluator.submit(run.step, policy, run.processors, stop=stop):
                    yield row_of(run, step, result)
    elif is_due and run.cfg.eval_workers == 0:
        yield row_of(run, run.step, evaluate_here(run))


def last_evaluations(run: Run, *, stop: threading.Event) -> Iterator[Row]:
    """Rows of the evaluations that a run that has taken its last step still waits for."""
    if run.evaluator is not None:
        if run.evaluator.pending and not stop.is_set():
            run.console.say(f"evaluating  step {', '.join(str(one.step) for one in run.evaluator.pending)}")
        for step, result in run.evaluator.rest(stop=stop):
            yield row_of(run, step, result)


def evaluate_here(run: Run) -> EvalResult:
    """What the policy does in `cfg.env`; every process enters, runs its share of episodes, and gets all."""
    assert run.cfg.env is not None
    world = run.world
    how_many = math.ceil(run.cfg.eval.n_episodes * len(run.cfg.env.tasks) / world.size)
    with run.untimed("evaluation"):
        part = evaluate(
            acting_policy(run),
            run.processors,
            run.cfg.env,
            **vars(arguments(run.cfg, run.output_dir, run.step)),
            progress=EpisodeProgress(how_many, title="evaluating", console=run.console.console),
            rank=world.rank,
            num_ranks=world.size,
        )
        parts = world.gather(part)
    episodes = [one for part in parts for one in part.episodes]  # each process had the next ones in order
    return replace(parts[0], episodes=episodes, eval_s=max(part.eval_s for part in parts))


def row_of(run: Run, step: int, result: EvalResult) -> Row:
    """The row of an evaluation of the policy after `step` steps, which the report will show."""
    run.show_evaluation(result, step=step)
    overall = result.overall
    names = ("success_rate", "avg_sum_reward", "avg_max_reward")
    return {"step": step} | {f"eval/{name}": overall[name] for name in names}
