"""Whose statistics scale what a policy reads and writes: the dataset's, or those it was trained with before.

flags + checkpoint --choose--> dataset | checkpoint --pipelines--> check that every number is there
"""

from pathlib import Path

from lerobot.core.errors import MissingStatsError
from lerobot.processor.defaults import Pair
from lerobot.processor.normalize import STATS_OF_MODE, NormalizerProcessorStep, UnnormalizerProcessorStep
from lerobot.training.config import TrainConfig
from lerobot.training.sampling.source import Metadata

COMPUTE = "python -m lerobot.scripts.augment_dataset_quantile_stats"


def uses_stored(cfg: TrainConfig) -> bool:
    """Whether the statistics are the checkpoint's: of a resumed run always, of a fine-tuning if asked for."""
    return cfg.resume or cfg.statistics == "checkpoint"


def statistics_line(cfg: TrainConfig) -> str | None:
    """What the header says about the choice; None where there was none to make."""
    assert cfg.policy is not None
    if cfg.resume or not cfg.policy.pretrained_path:
        return None
    if uses_stored(cfg):
        return f"those of {cfg.policy.pretrained_path} (--statistics=dataset takes the new data's)"
    kept = "--statistics=checkpoint keeps those the policy was trained with"
    return f"those of {cfg.dataset.label} ({kept})"


def check_statistics(cfg: TrainConfig, meta: Metadata, pair: Pair) -> None:
    """Check that everything that is going to be scaled has the numbers its mode needs.

    Raises:
        MissingStatsError: some have not; names what was found where, and what to type.
    """
    problems: list[str] = []
    for step in [*pair[0], *pair[1]]:
        if isinstance(step, (NormalizerProcessorStep, UnnormalizerProcessorStep)):
            for name, mode in step.lacking().items():
                found = ", ".join(sorted(step.stats.get(name, {}))) or "none at all"
                needed = " and ".join(STATS_OF_MODE[mode])
                problem = f"{name} is scaled by {mode}, which needs {needed} (finite); found: {found}"
                problems += [problem] if problem not in problems else []
    if problems:
        where = cfg.policy.pretrained_path if cfg.policy and uses_stored(cfg) else cfg.dataset.label
        raise MissingStatsError(
            f"Statistics are missing in {where}: {'; '.join(problems)}. {_advice(cfg, meta)}"
        )


def _advice(cfg: TrainConfig, meta: Metadata) -> str:
    assert cfg.policy is not None
    if uses_stored(cfg):
        return "To take those of the data, type: --statistics=dataset"
    root = getattr(meta, "root", None)
    words = f"--repo-id={cfg.dataset.names[0]}" + (f" --root={Path(root)}" if root else "")
    advice = f"To compute them, type: {COMPUTE} {words} --overwrite"
    if cfg.policy.pretrained_path:
        advice += " . To keep those the policy was trained with, add --statistics=checkpoint"
    return advice
