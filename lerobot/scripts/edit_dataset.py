"""Edit a dataset: delete, split, merge, features, tasks, formats, encodings, statistics, file sizes.

lerobot-edit-dataset --repo_id=me/cubes --operation.type=delete_episodes --operation.episode_indices="[0, 5]"
lerobot-edit-dataset --repo_id=me/cubes --operation.type=info --operation.show_features=true
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot.core.command import command
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse
from lerobot.datasets.edit.operations import OperationConfig

PROGRAM = "lerobot-edit-dataset"


@dataclass(kw_only=True)
class EditDatasetConfig:
    """Edit a dataset; without a new name or folder in place, where the original is kept as <folder>_old."""

    operation: OperationConfig  # what is done
    repo_id: str | None = None  # the dataset; not needed by merge
    root: Path | None = None  # its folder; null is the local home of datasets, below repo_id
    new_repo_id: str | None = None  # name of the result; null edits in place
    new_root: Path | None = None  # folder of the result; null is the local home, below new_repo_id
    push_to_hub: bool = False  # upload the result
    dry_run: bool = False  # say what would be read, written, encoded and left out, and change nothing
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR

    def __post_init__(self) -> None:
        for name in ("repo_id", "new_repo_id"):
            value = getattr(self, name)
            if value is not None and not value.strip("/"):
                raise ConfigError(f"--{name}={value!r}: expected USER/NAME.")


def edit_dataset(args: EditDatasetConfig | Sequence[str] | None = None) -> list[Path]:
    """Edit as a config, a list of flags, or (None) the command line says; returns the new folders."""
    cfg = args if isinstance(args, EditDatasetConfig) else parse(EditDatasetConfig, args, program=PROGRAM)
    from lerobot.datasets.edit.request import Request  # torch loads here
    from lerobot.evaluation.progress import EpisodeProgress

    request = Request(repo_id=cfg.repo_id, root=cfg.root, new_repo_id=cfg.new_repo_id, new_root=cfg.new_root)
    made, jobs = [], cfg.operation.jobs(request)
    totals = [job.total for job in jobs]  # every job is planned before the first one writes
    for job, total in zip(jobs, totals, strict=True):
        if cfg.dry_run or not total:
            print("\n".join(job.lines()))
            continue
        with EpisodeProgress(total, title=cfg.operation.type, unit="frames") as shown:
            dataset = job.run(lambda done, total, shown=shown: shown.update(done))  # type: ignore[misc]
        if dataset is not None:
            print(f"made {dataset.repo_id}: {dataset.num_episodes} episodes, {dataset.num_frames} frames")
            print(f"in {dataset.root}")
            made.append(dataset.root)
            if cfg.push_to_hub:
                print(f"pushed to {dataset.push_to_hub()}")
    if cfg.dry_run:
        print("nothing was changed (--dry_run)")
    return made


@command
def main() -> None:
    """Entry point of `lerobot-edit-dataset`."""
    edit_dataset()


if __name__ == "__main__":
    main()
