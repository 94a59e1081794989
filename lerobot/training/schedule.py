"""Which learning-rate schedule a run has: `--lr_scheduler` and `--scheduler.*` on top of the policy's own.

    --lr_scheduler=true      the policy's, or a cosine with warm-up where it has none
    --lr_scheduler=NAME      a type (constant_with_warmup ...) or a shape as diffusers calls it (linear ...)
    --lr_scheduler=false     none

What a named schedule needs and nobody gave comes from the policy's schedule, the steps and the learning rate.
"""

import dataclasses
from typing import Any, get_args

from lerobot.core.errors import ConfigError, suggest
from lerobot.optim.schedulers import LRSchedulerConfig, Shape

Tree = dict[str, Any]
UNSAID = ("", "none", "null")
COSINE = {"type": "diffuser", "name": "cosine", "num_warmup_steps": 500}  # of policies without a schedule


def choose_schedule(wanted: Any, *, preset: Tree | None, given: Tree, steps: Any, lr: Any) -> Tree | None:
    """The `scheduler` section of a run, complete; None for a constant learning rate.

    Args:
        wanted: what `--lr_scheduler` says, if anything.
        preset: the policy's own schedule.
        given: what file and flags say of the schedule.
        steps, lr: of the run and its optimizer, as far as they are known.

    Raises:
        ConfigError: an unknown name, two different ones, or fields of a schedule that is not there.
    """
    name = str(wanted if wanted is not None else "").lower()
    if name == "false":
        return None
    if name in (*UNSAID, "true"):
        own = preset or (COSINE if name == "true" else {})
        if given and not {**own, **given}.get("type"):
            field = next(iter(given))
            raise ConfigError(
                f"--scheduler.{field}={given[field]}: this policy has no learning-rate schedule to change. "
                f"Choose one as well: --lr_scheduler=cosine_annealing_with_warmup"
            )
        return _over(own, given) or None
    kind = _kind(name)
    if str(given.get("type", kind["type"])) != kind["type"]:
        raise ConfigError(f"--lr_scheduler={wanted} and --scheduler.type={given['type']}: give one of them.")
    own = preset if preset and preset.get("type") == kind["type"] else {}
    return {**_usual(kind["type"], preset or {}, steps=steps, lr=lr), **own, **kind, **given}


def _over(own: Tree, given: Tree) -> Tree:
    """The policy's schedule with the given fields; one of another type replaces it."""
    return (
        dict(given) if str(given.get("type", own.get("type"))) != str(own.get("type")) else {**own, **given}
    )


def _kind(name: str) -> Tree:
    types, shapes = LRSchedulerConfig.get_known_choices(), get_args(Shape)
    if name in types:
        return {"type": name}
    if name in shapes:
        return {"type": "diffuser", "name": name}
    known = sorted({*types, *shapes})
    raise ConfigError(f"--lr_scheduler={name} is unknown.{suggest(name, known)} Known: {', '.join(known)}.")


def _usual(kind: str, preset: Tree, *, steps: Any, lr: Any) -> Tree:
    """Values for the fields a schedule must be given: of the policy's own where it has them."""
    steps, lr = _number(steps, fallback=100_000), _number(lr, fallback=1e-4)
    values = {
        "num_warmup_steps": min(500, int(steps) // 10),
        "num_decay_steps": int(steps),
        "num_vqvae_training_steps": 0,
        "peak_lr": lr,
        "decay_lr": lr / 10,
    }
    values |= {name: preset[name] for name in ("num_warmup_steps",) if preset.get(name) is not None}
    fields = dataclasses.fields(LRSchedulerConfig.get_choice_class(kind))
    needed = {field.name for field in fields if field.default in (dataclasses.MISSING, None)}
    return {name: value for name, value in values.items() if name in needed}


def _number(value: Any, *, fallback: float) -> float:
    """A number that was given as text perhaps; what is none is for the decoder to say."""
    try:
        return float(str(value))
    except ValueError:
        return fallback
