"""How good the policy is while it trains: loss on held-out episodes, success in simulation.

Neither moves the run's random numbers: a run with evaluations takes the same steps as one without. Several
processes share the batches, or the episodes, and find what one finds.
"""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import islice, zip_longest

import numpy as np
import torch

from lerobot.core import keys
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.distributed.gather import full_state_dict
from lerobot.distributed.shard import is_sharded
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.result import EvalResult
from lerobot.evaluation.rollout import evaluate, undisturbed_randomness
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.training.checkpoint import step_name
from lerobot.training.data import Batch
from lerobot.training.metrics import Row
from lerobot.training.run import Run
from lerobot.training.shards import bare_policy
from lerobot.training.transfer import to_device


def validation_loss(run: Run) -> float:
    """Mean loss over the held-out frames, in eval mode; every process enters and computes its share."""
    losses, sizes = [], []
    with run.untimed(), undisturbed_randomness(), torch.no_grad():
        run.policy.eval()
        for part, size in own_batches(run):
            batch = run.prepare(to_device(part, run.world.device))
            with run.autocast():
                loss, _ = run.policy(batch)
            losses.append(loss.float() * size)
            sizes.append(size)
        sums = torch.stack(losses).tolist() if losses else []
    shares = run.world.gather((sums, sizes))
    # Added up in the order of the batches, as one process does.
    in_order = [one for some in zip_longest(*(sums for sums, _ in shares), fillvalue=0.0) for one in some]
    return sum(in_order) / sum(size for _, sizes in shares for size in sizes)


def own_batches(run: Run) -> Iterator[tuple[Batch, int]]:
    """This process's share of the held-out batches, each with its number of frames that count."""
    world, total = run.world, math.ceil(num_held_out(run) / run.cfg.batch_size)
    for batch in held_out_batches(run, first=world.rank, every=world.size):
        yield batch, len(batch[keys.INDEX])
    if is_sharded(run.policy) and len(world.share_of(total)) < math.ceil(total / world.size):
        yield next(held_out_batches(run)), 0  # every process computes each layer of a model in shards


def num_held_out(run: Run) -> int:
    """How many held-out frames the validation loss is over."""
    assert run.held_out is not None
    frames = run.held_out
    there = frames.num_frames if isinstance(frames, StreamingLeRobotDataset) else len(frames)
    return min(run.cfg.max_eval_samples or there, there)


def held_out_batches(run: Run, *, first: int = 0, every: int = 1) -> Iterator[Batch]:
    """Some batches of the held-out frames, at most `max_eval_samples` of these, the same ones every time."""
    size, limit, frames = run.cfg.batch_size, num_held_out(run), run.held_out
    if isinstance(frames, StreamingLeRobotDataset):
        frames.set_epoch(0)
        for number, batch in enumerate(islice(frames.batches(size), math.ceil(limit / size))):
            if number % every == first:
                yield {name: values[: limit - number * size] for name, values in batch.items()}
        return
    assert frames is not None and not isinstance(run.dataset, StreamingLeRobotDataset)
    if limit < len(frames):
        chosen = np.linspace(0, len(frames) - 1, limit).round().astype(int)
        frames = [frames[i] for i in chosen]
    for start in range(first * size, len(frames), every * size):
        yield run.dataset.batch(frames[start : start + size])


def evaluate_in_env(run: Run) -> Row:
    """Roll the policy out in `cfg.env`; every process enters, and the row is the main one's."""
    result = evaluate_here(run)
    if not run.world.is_main:
        return {}
    run.last_evaluation = result
    overall = result.overall
    return {f"eval/{name}": overall[name] for name in ("success_rate", "avg_sum_reward", "avg_max_reward")}


def evaluate_here(run: Run) -> EvalResult:
    """What the policy does in `cfg.env`; every process enters, runs its share of episodes, and gets all."""
    assert run.cfg.env is not None
    world, how_many = run.world, run.cfg.eval.n_episodes
    with run.untimed():
        part = evaluate(
            acting_policy(run),
            run.processors,
            run.cfg.env,
            n_episodes=how_many,
            batch_size=run.cfg.eval.batch_size,
            seed=run.cfg.seed,
            max_videos=min(4, run.cfg.eval.max_videos),
            video_folder=run.output_dir / "eval" / f"videos_step_{step_name(run.step, run.cfg.steps)}",
            rename_map=run.cfg.rename_map,
            task=run.cfg.task,
            progress=EpisodeProgress(
                math.ceil(how_many / world.size), title="evaluating", console=run.console.console
            ),
            rank=world.rank,
            num_ranks=world.size,
        )
        parts = world.gather(part)
    episodes = sorted(
        (episode for one in parts for episode in one.episodes), key=lambda episode: episode.index
    )
    return replace(parts[0], episodes=episodes, eval_s=max(one.eval_s for one in parts))


def acting_policy(run: Run) -> PreTrainedPolicy:
    """The policy to roll out: one in shards is put together, since episodes of processes differ in length."""
    if not is_sharded(run.policy):
        return run.policy
    policy = bare_policy(deepcopy(run.policy.config))
    policy.load_state_dict(full_state_dict(run.policy))
    return policy.to(run.world.device).eval()
