"""How good the policy is while it trains: loss on held-out episodes, success in simulation.

Neither moves the run's random numbers: a run with evaluations takes the same steps as one without.
"""

from collections.abc import Iterator

import numpy as np
import torch

from lerobot.core import keys
from lerobot.datasets.streaming import StreamingLeRobotDataset
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.rollout import evaluate, undisturbed_randomness
from lerobot.training.checkpoint import step_name
from lerobot.training.data import Batch
from lerobot.training.metrics import Meter, Row
from lerobot.training.run import Run
from lerobot.training.transfer import to_device


def validation_loss(run: Run) -> float:
    """Mean loss over the held-out frames, in eval mode."""
    meter, num_batches, num_frames = Meter(), 0, 0
    with run.untimed(), undisturbed_randomness(), torch.no_grad():
        run.policy.eval()
        for part in held_out_batches(run):
            size = len(part[keys.INDEX])
            batch = run.prepare(to_device(part, run.world.device))
            with run.autocast():
                loss, _ = run.policy(batch)
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


def evaluate_in_env(run: Run) -> Row:
    """Roll the policy out in `cfg.env`; only the main process does, the others wait."""
    row: Row = {}
    if run.world.is_main:
        assert run.cfg.env is not None
        how_many = run.cfg.eval.n_episodes
        with run.untimed():
            result = evaluate(
                run.policy,
                run.processors,
                run.cfg.env,
                n_episodes=how_many,
                batch_size=run.cfg.eval.batch_size,
                seed=run.cfg.seed,
                max_videos=min(4, run.cfg.eval.max_videos),
                video_folder=run.output_dir / "eval" / f"videos_step_{step_name(run.step, run.cfg.steps)}",
                rename_map=run.cfg.rename_map,
                task=run.cfg.task,
                progress=EpisodeProgress(how_many, title="evaluating", console=run.console.console),
            )
        run.show_evaluation(result)
        overall = result.overall
        row = {f"eval/{name}": overall[name] for name in ("success_rate", "avg_sum_reward", "avg_max_reward")}
    run.world.wait()
    return row
