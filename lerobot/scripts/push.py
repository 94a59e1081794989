"""Upload a dataset to the Hub; what is there already is not sent again, so an interrupted push goes on.

lerobot-push --repo_id=me/so101_test
lerobot-push --repo_id=me/so101_test --root=data/so101_test --tags=[so101,tutorial] --dry_run=true
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lerobot.core.command import command
from lerobot.core.flags import parse


@dataclass(kw_only=True)
class PushConfig:
    """Upload a dataset to the Hub."""

    repo_id: str  # user/name on the Hub; the repository is made if it is not there
    root: Path | None = None  # the dataset's folder; null is the local home of datasets, below repo_id
    branch: str | None = None  # branch that is pushed to, made if it is not there; null is the main one
    tags: list[str] = field(default_factory=list)  # words for the dataset's card, beside LeRobot
    license: str = "apache-2.0"  # licence named by the card
    private: bool | None = None  # make the repository private; null leaves it as it is
    push_videos: bool = True  # also upload camera videos
    tag_version: bool = True  # put the tag of the format version, which readers ask for, on the result
    dry_run: bool = False  # only list the files and their sizes
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR


def push(args: PushConfig | Sequence[str] | None = None) -> str | None:
    """Upload a dataset as a config, a list of flags, or (None) the command line says.

    Returns the commit's address, or None after a dry run.
    """
    cfg = args if isinstance(args, PushConfig) else parse(PushConfig, args, program="lerobot-push")
    from lerobot.core import hub
    from lerobot.core.errors import DatasetError
    from lerobot.datasets.location import check_not_broken
    from lerobot.datasets.metadata import LeRobotDatasetMetadata
    from lerobot.datasets.publish import files_of, publish

    root = cfg.root or hub.lerobot_home() / cfg.repo_id
    check_not_broken(root)
    if not (root / "meta").is_dir():
        raise DatasetError(f"{root} holds no dataset. Give the folder that has meta/ with --root=FOLDER.")
    meta = LeRobotDatasetMetadata(cfg.repo_id, root)
    if cfg.dry_run:
        sizes = {
            name: path.stat().st_size for name, path in files_of(meta, push_videos=cfg.push_videos).items()
        }
        for name, size in sizes.items():
            print(f"{size:>14,}  {name}")
        print(f"{sum(sizes.values()):>14,}  bytes in {len(sizes)} files would go to {cfg.repo_id}")
        return None
    address = publish(
        meta,
        branch=cfg.branch,
        tags=cfg.tags,
        license=cfg.license,
        private=cfg.private,
        push_videos=cfg.push_videos,
        tag_version=cfg.tag_version,
    )
    print(f"published  {address}")
    return address


@command
def main() -> None:
    """Entry point of `lerobot-push`."""
    push()


if __name__ == "__main__":
    main()
