"""Give a dataset the quantiles q01, q10, q50, q90 and q99, of every episode and of the whole.

python -m lerobot.scripts.augment_dataset_quantile_stats --repo-id=me/so101 --root=data/so101
python -m lerobot.scripts.augment_dataset_quantile_stats --repo-id=me/so101 --skip-images --overwrite

`lerobot-edit-dataset --operation.type=recompute_stats` does the same with more choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot.core import hub
from lerobot.core.command import command
from lerobot.core.flags import parse

PROGRAM = "python -m lerobot.scripts.augment_dataset_quantile_stats"


@dataclass(kw_only=True)
class AugmentConfig:
    """Give a dataset the quantiles q01, q10, q50, q90 and q99, of every episode and of the whole."""

    repo_id: str  # user/name, as it is called on the Hub
    root: Path | None = None  # its folder; null is the local home of datasets, below repo_id
    overwrite: bool = False  # also when all quantiles are there already
    no_sampling: bool = False  # take every frame of the cameras instead of a sample
    skip_images: bool = False  # leave the cameras' statistics as they are
    push_to_hub: bool = False  # upload the result to the repository of its name
    num_workers: int = 2  # threads that decode pictures
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR


def augment(args: AugmentConfig | Sequence[str] | None = None) -> Path:
    """Recompute statistics as a config, a list of flags, or (None) the command line says; returns the folder.

    A dataset that is only in the download cache is copied to the local home of datasets first.
    """
    cfg = args if isinstance(args, AugmentConfig) else parse(AugmentConfig, args, program=PROGRAM)
    from lerobot.datasets import LeRobotDataset  # torch loads here
    from lerobot.datasets.edit import recompute_stats
    from lerobot.datasets.stats import lack_quantiles

    dataset = LeRobotDataset(cfg.repo_id, root=cfg.root)
    lacking = lack_quantiles(dataset.meta.stats, dataset.features)
    if lacking or cfg.overwrite:
        is_cached = dataset.meta.location.revision is not None
        dataset = recompute_stats(
            dataset,
            skip_image_video=cfg.skip_images,
            num_workers=cfg.num_workers,
            all_frames=cfg.no_sampling,
            output_dir=hub.lerobot_home() / cfg.repo_id if is_cached else None,
        )
        print(f"statistics are new: {dataset.root}")
    else:
        print(f"{dataset.root} has all quantiles already; --overwrite makes them anew")
    if cfg.push_to_hub:
        print(dataset.push_to_hub())
    return dataset.root


@command
def main() -> None:
    """Entry point."""
    augment()


if __name__ == "__main__":
    main()
