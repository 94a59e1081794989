"""How good the policy is while it trains: loss on held-out episodes, success in simulation.

Neither moves the run's random numbers: a run with evaluations takes the same steps as one without.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lerobot.evaluation.rollout import evaluate
from lerobot.training.metrics import Meter, Row
from lerobot.training.run import Run


def validation_loss(run: Run) -> float:
    """Mean loss over the held-out frames, in eval mode."""
    frames = run.held_out
    if run.cfg.max_eval_samples and run.cfg.max_eval_samples < len(frames):
        chosen = np.linspace(0, len(frames) - 1, run.cfg.max_eval_samples).round().astype(int)
        frames = [frames[i] for i in chosen]
    meter, size = Meter(), run.cfg.batch_size
    with undisturbed_randomness(), torch.no_grad():
        run.policy.eval()
        for start in range(0, len(frames), size):
            part = frames[start : start + size]
            batch = run.prepare(run.dataset.batch(part), run.processors[0])
            with run.autocast():
                loss, _ = run.policy(batch)
            meter.add({"sum": loss.float() * len(part)})
    total = meter.read()["sum"] * len(range(0, len(frames), size))
    return total / len(frames)


def evaluate_in_env(run: Run) -> Row:
    """Roll the policy out in `cfg.env`; only the main process does, the others wait."""
    row: Row = {}
    if run.world.is_main:
        assert run.cfg.env is not None
        with undisturbed_randomness():
            result = evaluate(
                run.policy,
                run.processors,
                run.cfg.env,
                n_episodes=run.cfg.eval.n_episodes,
                batch_size=run.cfg.eval.batch_size,
                seed=run.cfg.seed,
                max_videos=min(4, run.cfg.eval.max_videos),
                video_folder=run.output_dir / "eval" / f"videos_step_{run.step:06d}",
            )
        run.last_evaluation = result
        overall = result.overall
        row = {f"eval/{name}": overall[name] for name in ("success_rate", "avg_sum_reward", "avg_max_reward")}
    run.world.wait()
    return row


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Python's, NumPy's and torch's generators are afterwards as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=cuda):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
