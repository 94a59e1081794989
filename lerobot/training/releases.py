"""Settings of other releases in the words of this one: read once, when a saved `train_config.json` is opened.

Keys that only moved are in `core/aliases.py`; here are those whose values mean something else.
"""

from typing import Any

Tree = dict[str, Any]


def from_other_releases(tree: Tree) -> Tree:
    """A copy of a saved run's settings with sections that are spelled otherwise elsewhere rewritten.

    `parallelism: {dp_shard: 4, ...}` is `fsdp` where it shards and `ddp` where it does not;
    `accelerator.mixed_precision` and `accelerator.gradient_accumulation.steps` are fields of their own; with
    the latter steps are micro-batches there and optimizer steps here; `use_rabc`, `rabc_kappa` and their like
    are the section `sample_weighting`.
    """
    tree = with_weighting_section(tree)
    spread = tree.get("parallelism")
    if isinstance(spread, dict):
        tree["parallelism"] = "fsdp" if spread.get("dp_shard", 1) not in (1, None) else "ddp"
    engine = tree.get("accelerator")
    if isinstance(engine, dict):
        tree["accelerator"] = engine = dict(engine)
        precision, micro_steps = (
            engine.pop("mixed_precision", None),
            engine.pop("gradient_accumulation", None),
        )
        if precision is not None:
            tree.setdefault("mixed_precision", precision)
        if isinstance(micro_steps, dict) and micro_steps.get("steps", 1) > 1:
            _count_optimizer_steps(tree, int(micro_steps["steps"]))
    return tree


def with_weighting_section(tree: Tree) -> Tree:
    """A copy of settings in which the flat `rabc_...` keys of releases 0.4.3 to 0.5 are a section.

    Files hold all of them; without `use_rabc: true` they mean nothing there.
    """
    tree = dict(tree)
    is_used = str(tree.pop("use_rabc", "rabc_progress_path" in tree)).lower() == "true"
    old = {name: tree.pop(f"rabc_{name}") for name in RABC if f"rabc_{name}" in tree}
    if is_used:
        given = tree.get("sample_weighting")
        tree["sample_weighting"] = {"type": "rabc"} | old | (given if isinstance(given, dict) else {})
    return tree


def _count_optimizer_steps(tree: Tree, micro_batches: int) -> None:
    """Change a tree that counts micro-batches into one that counts optimizer steps."""
    tree["gradient_accumulation_steps"] = micro_batches
    for name in COUNTS:
        if isinstance(tree.get(name), int) and tree[name] > 0:
            tree[name] = -(-tree[name] // micro_batches)  # rounded up


# Fields that count steps.
COUNTS = ("steps", "log_freq", "save_freq", "eval_freq", "env_eval_freq", "eval_steps")

# Settings of RA-BC that were flat.
RABC = ("progress_path", "head_mode", "kappa", "epsilon")
