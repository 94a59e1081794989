"""`--batch_size=auto`: the largest micro-batch that fits, found before the first step.

    memory that is left / memory of an item -> a number -on a GPU-> a step is tried -> less if need be

Finding it moves no random numbers, no weights and no buffers; several processes take the least of theirs.
"""

import gc
import logging
import math

import torch
from torch.func import functional_call

from lerobot.core.errors import ConfigError, TrainingError
from lerobot.evaluation.rollout import undisturbed_randomness
from lerobot.training.gauges.capacity import is_shortage, readable_bytes
from lerobot.training.gauges.memory import Activations, Estimate, repeated
from lerobot.training.gauges.preflight import batch_bytes, estimate, measured, prepared_item
from lerobot.training.global_batch import with_size
from lerobot.training.run import Run, with_steps

logger = logging.getLogger(__name__)

# Share of the memory that is planned with. On a GPU a trial follows; a machine runs other programs, too.
PLANNED = {"cuda": 0.95, "cpu": 0.8}
LESS = 0.85  # what is tried next when a trial ran out of memory


def choose_batch_size(run: Run) -> None:
    """Give a run that asks for it the batch size that fits, and the number of steps that follows from it."""
    if not run.cfg.auto_batch_size:
        return
    size = fitting_size(run)
    cfg = with_size(run.cfg, size, num_processes=run.world.size)
    epoch = {"frames_per_epoch": run.loader.frames_per_epoch, "num_ranks": run.world.size}
    run.cfg = with_steps(cfg, **epoch)
    run.loader.batch_size = size
    run.console.last_step = run.cfg.steps
    if run.cfg.scheduler is not None and run.cfg.num_epochs is not None:
        run.scheduler = run.cfg.scheduler.build(run.optimizer, run.cfg.steps)


def fitting_size(run: Run) -> int:
    """The largest micro-batch of this run that fits on the device of every process, at most all its frames.

    Raises:
        TrainingError: not even one item fits.
        ConfigError: the device does not say how much memory it has.
    """
    device = run.world.device
    activations = measured(run)
    found = estimate(run, None)
    if found.capacity is None:
        raise ConfigError(
            f"--batch_size=auto: {device} does not tell its memory. Give a number: --batch_size=8"
        )
    size = min(planned_size(run, found, activations), max(1, run.loader.frames_per_epoch // run.world.size))
    if size >= 1 and device.type == "cuda":
        size = tried_size(run, size, state=found.optimizer)
    size = min(run.world.gather(size))
    if size < 1:
        raise TrainingError(
            f"--batch_size=auto: one item needs {readable_bytes(found.total + activations.of(1))}, there are "
            f"{readable_bytes(found.capacity)}. Try --mixed_precision=true, --grad_checkpointing=true or "
            "smaller pictures (--policy.input_shapes.CAMERA=[3,H,W])."
        )
    logger.info(
        "--batch_size=auto: %d items (%s each, %s of %s are taken already or by other parts).",
        size,
        readable_bytes(activations.per_item + activations.largest + batch_bytes(run.cfg, device)),
        readable_bytes(found.total - found.batches),
        readable_bytes(found.capacity),
    )
    return size


def planned_size(run: Run, found: Estimate, activations: Activations) -> int:
    """How many items the memory that is left has room for, by the estimate."""
    device = run.world.device
    assert found.capacity is not None
    left = PLANNED.get(device.type, PLANNED["cpu"]) * found.capacity
    left -= found.total - found.batches + activations.fixed
    each = activations.per_item + activations.largest + batch_bytes(run.cfg, device)
    return max(0, math.floor(left / max(each, 1.0)))


def tried_size(run: Run, size: int, *, state: float) -> int:
    """The first of this size and smaller ones with which forward and backward pass do run; 0 is none.

    Args:
        state: bytes that the optimizer is going to keep, which are held meanwhile.
    """
    while size >= 1 and not _runs(run, size, state=state):
        size = math.floor(size * LESS)
    return size


def _runs(run: Run, size: int, *, state: float) -> bool:
    """Whether a step of so many items finds its memory; leaves nothing behind."""
    buffers = {name: value.clone() for name, value in run.policy.named_buffers()}
    was_training = run.policy.training
    run.policy.train()
    try:
        kept = torch.empty(int(state), dtype=torch.uint8, device=run.world.device)
        with undisturbed_randomness():
            batch = repeated(prepared_item(run), size)
            with run.autocast():
                loss, _ = functional_call(run.policy, buffers, (batch,))
            # Not `backward`: its hooks belong to the steps that several processes take together.
            trained = [parameter for parameter in run.policy.parameters() if parameter.requires_grad]
            grads = torch.autograd.grad(loss, trained, allow_unused=True)
        del kept, loss, batch, grads
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        return False
    finally:
        run.policy.train(was_training)
        gc.collect()
        if run.world.device.type == "cuda":
            torch.cuda.empty_cache()
    return True
