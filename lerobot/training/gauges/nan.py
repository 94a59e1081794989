"""What happens when a loss or gradient is NaN or infinite: stop or skip, and keep the batch to look at again.

<output_dir>/nan/step_000123.safetensors   micro-batches as the policy saw them, random states before them
                 step_000123.json          frames, numbers, what in the batch is no number, how to repeat it
                 step_000123/              the weights before that step (--on_nan=stop)
"""

import json
import logging
import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lerobot.core import keys
from lerobot.core.errors import CheckpointError, TrainingError
from lerobot.core.files import write_json
from lerobot.evaluation.rollout import undisturbed_randomness
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.training.checkpoints.shards import whole_weights
from lerobot.training.checks import WHAT_TO_TRY
from lerobot.training.gauges.guard import Evidence
from lerobot.training.precision import half_precision
from lerobot.training.run import Run
from lerobot.training.sampling.data import Batch
from lerobot.training.transfer import to_device

logger = logging.getLogger(__name__)

FOLDER = "nan"
MAX_SAVED = 5  # skipped steps whose batches are kept
MAX_NAMED = 8  # frames that a message names


def step_if_finite(run: Run, *, loss: Tensor, grad_norm: Tensor) -> bool:
    """Step the optimizer, unless loss or gradient norm is no number; False where float16 overflowed.

    A bad step moves schedule and average as every step does: on a GPU the host hears of it later.

    Raises:
        TrainingError: one of the last steps was bad and `--on_nan=stop`.
    """
    for bad in run.guard.step(loss=loss, grad_norm=grad_norm):
        report(run, bad)
    return not run.guard.overflowed


def settle(run: Run) -> None:
    """Look at all steps that were made so far; call it before their results are believed.

    Raises:
        TrainingError: one of them was bad and `--on_nan=stop`.
    """
    for bad in run.guard.settle():
        report(run, bad)


def report(run: Run, bad: Evidence) -> None:
    """Keep a bad step's batch; then end the run or say that the step was skipped. All processes enter.

    Raises:
        TrainingError: `--on_nan=stop`.
    """
    run.guard.skipped += 1
    is_stop = run.cfg.on_nan == "stop"
    what = f"The loss became {bad.loss}" if not math.isfinite(bad.loss) else "The gradient became infinite"
    if math.isfinite(bad.loss) and math.isnan(bad.grad_norm):
        what = "The gradient became NaN"
    if not is_stop and run.guard.skipped > MAX_SAVED:
        logger.warning("%s in step %d, which was skipped.", what, bad.step)
        return
    path, causes = save_evidence(run, bad, with_weights=is_stop)
    # Loss is each process's own: the one that is to blame speaks for all.
    told = run.world.gather((math.isfinite(bad.loss), what, causes, str(path)))
    _, what, causes, where = min(told, key=lambda one: one[0])
    said = [f"{what} in step {bad.step}, so that step was not made.", *causes]
    if not is_stop:
        logger.warning("%s The batch is in %s", " ".join(said), where)
        return
    raise TrainingError(
        "\n  ".join(
            [
                " ".join(said),
                f"The batch and the weights before it: {where}",
                f"To see it again: {shlex.join(_command(Path(where)))}",
                f"{WHAT_TO_TRY} To leave such steps out, type: --on_nan=skip",
            ]
        )
    )


def _command(path: Path) -> list[str]:
    return [
        "python",
        "-c",
        "from lerobot.training.gauges.nan import reproduce; "
        f"print(reproduce({json.dumps(str(path.absolute()))}))",
    ]


# ---------------------------------------------------------------------------------- what is kept
def save_evidence(run: Run, bad: Evidence, *, with_weights: bool) -> tuple[Path, list[str]]:
    """Write a bad step's batch (and the weights); gives the JSON file, and what is wrong with the batch."""
    rank = run.world.rank
    name = f"step_{bad.step:06d}" + (f"_rank_{rank}" if rank else "")
    folder = run.output_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {f"rng/{kind}": state for kind, state in bad.rng.items()}
    texts: list[dict[str, list[str]]] = []
    causes: list[str] = []
    frames = [batch[keys.INDEX].tolist() for batch in bad.batches]
    for k, (raw, numbers) in enumerate(zip(bad.batches, frames, strict=True)):
        with undisturbed_randomness():
            batch = run.prepare(run.augmentation(to_device(raw, run.world.device)))
        values = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        tensors |= {f"{k}/{key}": value.detach().cpu().contiguous().clone() for key, value in values.items()}
        texts.append({key: value for key, value in batch.items() if _is_texts(value)})
        causes += _causes(values, numbers)
    weights = folder / f"step_{bad.step:06d}"
    whole = whole_weights(run) if with_weights else {}
    if with_weights and run.world.is_main:
        run.policy.save_pretrained(weights, weights=whole)
    save_file(tensors, folder / f"{name}.safetensors")
    dtype = half_precision(run.cfg, run.world.device)
    write_json(
        folder / f"{name}.json",
        {
            "step": bad.step,
            "loss": str(bad.loss),
            "grad_norm": str(bad.grad_norm),
            "frames": frames,
            "causes": causes,
            "texts": texts,
            "autocast": None if dtype is None else str(dtype).removeprefix("torch."),
            "weights": str(weights.absolute() if with_weights else run.last_checkpoint or ""),
        },
    )
    return folder / f"{name}.json", causes


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _causes(values: dict[str, Tensor], frames: list[int]) -> list[str]:
    """A sentence for each entry of a batch that holds values that are no numbers."""
    said = []
    for key, value in values.items():
        if not value.is_floating_point() or value.shape[:1] != (len(frames),):
            continue
        is_wrong = (~torch.isfinite(value)).flatten(1).any(1) if value.ndim > 1 else ~torch.isfinite(value)
        rows = [frames[row] for row in is_wrong.nonzero().flatten().tolist()]
        if rows:
            which = ", ".join(map(str, rows[:MAX_NAMED])) + (", ..." if len(rows) > MAX_NAMED else "")
            noun = "item of frame" if len(rows) == 1 else "items of frames"
            said.append(f"{key!r} is NaN or infinite in the {noun} {which}.")
    return said


# ---------------------------------------------------------------------------------- to see it again
def reproduce(path: str | Path) -> str:
    """Loss, gradient and the first module that gives no numbers, of a step that was kept as `path` (JSON).

    Raises:
        CheckpointError: the file or its weights are not there.
    """
    path = Path(path)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        stored = load_file(path.with_suffix(".safetensors"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename} is missing; give the path of a nan/step_N.json.") from error
    if not about["weights"]:
        raise CheckpointError(f"{path}: no weights were saved before this step, so it cannot be repeated.")
    policy = PreTrainedPolicy.from_pretrained(about["weights"]).train()
    device, dtype = policy.device, about["autocast"] and getattr(torch, about["autocast"])
    torch.set_rng_state(stored["rng/cpu"])
    if "rng/cuda" in stored and device.type == "cuda":
        torch.cuda.set_rng_state(stored["rng/cuda"], device)
    loss = torch.zeros((), device=device)
    with modules_without_numbers(policy) as strange:
        for k in range(len(about["frames"])):
            with torch.autocast(device.type, dtype=dtype) if dtype else nullcontext():
                part, _ = policy(_batch(stored, about, k, device))
            (part / len(about["frames"])).backward()
            loss = loss + part.detach() / len(about["frames"])
    grads = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    wrong = [name for name, grad in grads.items() if not torch.isfinite(grad).all()]
    norm = torch.nn.utils.get_total_norm(grads.values())
    lines = [f"step {about['step']}: loss {loss.item()}, gradient norm {norm.item()}", *about["causes"]]
    lines += [f"first module that gives no numbers: {strange[0]}"] if strange else []
    lines += [f"{len(wrong)} of {len(grads)} gradients are no numbers, such as {wrong[0]}"] if wrong else []
    return "\n".join(lines)


def _batch(stored: dict[str, Tensor], about: dict[str, Any], k: int, device: torch.device) -> Batch:
    """Micro-batch k as the policy saw it."""
    head = f"{k}/"
    return {
        key.removeprefix(head): value.to(device) for key, value in stored.items() if key.startswith(head)
    } | about["texts"][k]


@contextmanager
def modules_without_numbers(model: nn.Module) -> Iterator[list[str]]:
    """A list that fills with names of modules whose output is NaN or infinite, in order of computation."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            parts = output if isinstance(output, (tuple, list)) else [output]
            tensors = (part for part in parts if isinstance(part, Tensor) and part.is_floating_point())
            if not all(bool(torch.isfinite(part).all()) for part in tensors):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
