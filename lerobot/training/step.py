"""One optimizer step: forward and backward of each micro-batch, clip, step, schedule.

micro-batches -> loss -> gradients -> clipped -> optimizer -> scheduler;  nothing here waits for the device
"""

import torch

from lerobot.training.data import Batch
from lerobot.training.metrics import numbers
from lerobot.training.nan import step_if_finite
from lerobot.training.run import Run


def update(run: Run, group: list[Batch]) -> None:
    """One optimizer step on a group of micro-batches; nothing here waits for the device."""
    run.policy.train()
    losses = []
    for batch in group:
        with run.stopwatch.span("compute"):
            with run.autocast():
                loss, info = run.model(batch)
            loss = loss / len(group)
            (run.scaler.scale(loss) if run.scaler else loss).backward()
        losses.append(loss.detach())
        run.meter.add({"loss": losses[-1] * len(group), **numbers(info or {})})
    with run.stopwatch.span("optimizer"):
        if run.scaler:
            run.scaler.unscale_(run.optimizer)
        limit = run.grad_clip_norm if run.grad_clip_norm > 0 else float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(run.policy.parameters(), limit)
        step_if_finite(run, loss=torch.stack(losses).sum(), grad_norm=grad_norm)
        run.optimizer.zero_grad(set_to_none=True)
    run.meter.add({"grad_norm": grad_norm, "lr": run.optimizer.param_groups[0]["lr"]})
    if run.scheduler is not None:
        run.scheduler.step()
    run.policy.update()
