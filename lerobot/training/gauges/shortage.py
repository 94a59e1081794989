"""Memory that ran out ends a run with one message: doing what, with how much, and which flags to try."""

import gc
import logging
import re
import shlex
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lerobot.core.errors import TrainingError
from lerobot.training.gauges.capacity import free_bytes, is_shortage, peak_bytes, readable_bytes, total_bytes
from lerobot.training.gauges.preflight import Remedy, preflight, remedies
from lerobot.training.run import Run

logger = logging.getLogger(__name__)

DOING = {
    "data": "while a batch was read",
    "transfer": "while a batch was moved to the device",
    "prepare": "while a batch was prepared",
    "compute": "in the forward or backward pass",
    "optimizer": "in the optimizer's step",
    None: "between two steps",
}
ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
NUM_REMEDIES = 3


@contextmanager
def no_room_explained(device: torch.device) -> Iterator[None]:
    """Inside, where a run is put together, memory that runs out is one TrainingError.

    Raises:
        TrainingError: the policy itself does not fit.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_shortage(error):
            raise
        logger.debug("where it came from:", exc_info=True)
        free = free_bytes(device)
        left = f" with {readable_bytes(free)} free" if free is not None else ""
        raise TrainingError(
            f"The policy does not fit into the memory of {device}{left}. Do others use it (nvidia-smi)? "
            "Otherwise take a smaller policy, or several GPUs with --parallelism=fsdp."
        ) from None


@contextmanager
def shortage_explained(run: Run) -> Iterator[None]:
    """Inside, memory that runs out is one TrainingError; other errors pass.

    Raises:
        TrainingError: the memory of the device (or of the machine) is used up.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_shortage(error):
            raise
        logger.debug("where it came from:", exc_info=True)
        # What was half computed hangs on the frames of the failed call: give it back, to have room to speak.
        traceback.clear_frames(error.__traceback__)
        asked = ASKED.search(str(error))
        error.__traceback__ = None
    else:
        return
    run.policy.zero_grad(set_to_none=True)
    gc.collect()
    if run.world.device.type == "cuda":
        torch.cuda.empty_cache()
    raise TrainingError(explanation(run, asked=asked.group(1) if asked else None))


def explanation(run: Run, *, asked: str | None) -> str:
    """What is said to a person when memory ran out in a run, as it asked for so much more."""
    device, doing = run.world.device, run.stopwatch.failed_in
    most, total = peak_bytes(device), total_bytes(device)
    where = "this machine" if device.type == "cpu" else str(device)
    lines = [f"The memory of {where} is used up: {DOING.get(doing, DOING[None])}, step {run.step + 1}."]
    if most:
        of = f" of {readable_bytes(total)}" if total else ""
        more = f", and {asked} more were asked for" if asked else ""
        lines.append(f"Up to {readable_bytes(most)}{of} were used{more}.")
    tried = data_remedies(run) if doing == "data" else remedies(run, preflight(run, is_measured=True))
    lines.append("Try, in this order; each figure is of that line alone:")
    lines += [f"  {one}" for one in tried[:NUM_REMEDIES]]
    return "\n  ".join([*lines, what_is_left(run)])


def data_remedies(run: Run) -> list[Remedy]:
    """Flags by which reading takes less."""
    cfg, found = run.cfg, []
    if cfg.dataset.cache == "ram":
        half = cfg.dataset.cache_bytes // 2
        found.append(
            Remedy(flags=f"--dataset.cache_bytes={half}", saved=half, note="or --dataset.cache=disk")
        )
    if cfg.prefetch_factor > 1:
        found.append(Remedy(flags="--prefetch_factor=1", saved=None, note="fewer batches wait to be used"))
    if cfg.num_workers > 1:
        found.append(Remedy(flags=f"--num_workers={cfg.num_workers // 2}", saved=None))
    return found + remedies(run, preflight(run, is_measured=True))


def what_is_left(run: Run) -> str:
    """What was saved, and how the run goes on."""
    if run.last_checkpoint is None:
        return "Nothing had been saved yet; start again with another --output_dir or delete this one."
    command = shlex.join(["lerobot-train", "--resume=true", f"--output_dir={run.output_dir}"])
    return f"{run.last_checkpoint} is unharmed. Go on from it: {command} FLAGS"
