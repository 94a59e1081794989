"""One optimizer step: forward and backward of each micro-batch, clip, step, schedule, average.

micro-batches -> totals -> losses -> gradients -> clipped -> optimizer -> schedule -> average of the weights

Each micro-batch yields its share of the loss of one large batch: its sums, divided by the totals of all
micro-batches of all processes. Nothing here waits for the device.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lerobot.distributed.gather import whole
from lerobot.training.gauges.nan import step_if_finite
from lerobot.training.logs.metrics import numbers
from lerobot.training.run import Run
from lerobot.training.sampling.data import Batch


def update(run: Run, group: list[Batch]) -> None:
    """One optimizer step on a group of micro-batches."""
    run.policy.train()
    totals = loss_totals(run, group)
    shares: dict[str, Tensor | float] = {}
    for batch in group:
        with run.stopwatch.span("compute"), run.world.unsynced(run.model, when=batch is not group[-1]):
            loss, info = forward(run, batch, totals)
            (run.scaler.scale(loss) if run.scaler else loss).backward()
        for name, value in {**numbers(info), "loss": loss.detach()}.items():
            shares[name] = shares[name] + value if name in shares else value
    learning_rate = run.optimizer.param_groups[0]["lr"]
    with run.stopwatch.span("optimizer"):
        grad_norm = clip(run)
        run.saver.before_change()  # a checkpoint may still be copying the weights
        moved = step_if_finite(run, loss=torch.as_tensor(shares["loss"]), grad_norm=grad_norm)
    if moved:
        if run.scheduler is not None:
            run.scheduler.step()
        run.policy.update()
        if run.ema is not None:
            run.ema.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.meter.add({**shares, "grad_norm": grad_norm, "lr": learning_rate})


def loss_totals(run: Run, group: list[Batch]) -> dict[str, Tensor] | None:
    """What the loss's means are over in all micro-batches of all processes; None where this batch is all."""
    if len(group) == run.world.size == 1:
        return None
    totals = [run.policy.loss_totals(batch) for batch in group]
    names = list(totals[0])
    sums = torch.stack([torch.stack([one[name] for one in totals]).sum().float() for name in names])
    return dict(zip(names, run.world.add_up(sums), strict=True))


def forward(run: Run, batch: Batch, totals: Mapping[str, Tensor] | None) -> tuple[Tensor, dict]:
    """A micro-batch's share of the loss and its parts, such that the mean over processes is that of all."""
    with run.autocast():
        compute = run.model if run.compilation is None else run.compilation.of(run.model)
        loss, info = compute(batch, totals=totals)
    for part in (run.curriculum, run.blend):
        if part is not None:
            part.observe(batch, info)
    info = {name: value for name, value in (info or {}).items() if name != "item_losses"}
    if totals is None or run.world.size == 1:
        return loss, info
    size = run.world.size
    return loss * size, {name: value * size for name, value in numbers(info).items()}


def clip(run: Run) -> Tensor:
    """The norm () of all gradients, which are shortened to the limit, if there is one."""
    if run.scaler:
        run.scaler.unscale_(run.optimizer)
    limit = run.grad_clip_norm if run.grad_clip_norm > 0 else float("inf")
    return whole(torch.nn.utils.clip_grad_norm_(run.policy.parameters(), limit))
