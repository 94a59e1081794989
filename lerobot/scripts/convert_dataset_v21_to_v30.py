"""Convert a dataset from format v2.0 or v2.1 to v3.0; the original is kept as FOLDER_old.

python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=me/so101_test
python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=me/so101_test --root=data/so101 --push-to-hub
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lerobot.core.command import command
from lerobot.core.flags import parse
from lerobot.datasets import config

if TYPE_CHECKING:
    from lerobot.datasets.dataset import LeRobotDataset


@dataclass(kw_only=True)
class ConvertConfig:
    """Convert a dataset from format v2.0 or v2.1 to v3.0."""

    repo_id: str  # user/name, as it is called on the Hub
    root: Path | None = None  # its folder; null is the local home of datasets, else the Hub
    data_file_size_in_mb: float = config.DATA_FILES_SIZE_IN_MB  # MiB at which a new data file is begun
    video_file_size_in_mb: float = config.VIDEO_FILES_SIZE_IN_MB  # MiB at which a new video file is begun
    push_to_hub: bool = False  # upload the result, in place of what the Hub has; its tags stay
    branch: str | None = None  # branch that is pushed to; null is the main one
    force_conversion: bool = False  # download the old format and convert it again, whatever is here
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR


def convert_dataset(
    repo_id: str,
    branch: str | None = None,
    data_file_size_in_mb: float | None = None,
    video_file_size_in_mb: float | None = None,
    root: str | Path | None = None,
    push_to_hub: bool = False,
    force_conversion: bool = False,
) -> "LeRobotDataset":
    """The dataset in format v3.0, in its folder; a dataset that was converted already is only pushed.

    Raises:
        DatasetError: there is no such dataset, or it is damaged; nothing was changed then.
        HubError: the Hub was not reached or refused.
    """
    from lerobot.datasets.dataset import LeRobotDataset
    from lerobot.datasets.edit.convert import convert_format, is_converted

    if is_converted(repo_id, root) and not force_conversion:
        dataset = LeRobotDataset(repo_id, root)
    else:
        dataset = convert_format(
            repo_id,
            root,
            data_file_size_in_mb=data_file_size_in_mb or config.DATA_FILES_SIZE_IN_MB,
            video_file_size_in_mb=video_file_size_in_mb or config.VIDEO_FILES_SIZE_IN_MB,
            again=force_conversion,
        )
    if push_to_hub:
        dataset.push_to_hub(branch=branch)
    return dataset


@command
def main(args: Sequence[str] | None = None) -> None:
    """Entry point of `python -m lerobot.scripts.convert_dataset_v21_to_v30`."""
    cfg = parse(ConvertConfig, args, program="python -m lerobot.scripts.convert_dataset_v21_to_v30")
    options = {name: value for name, value in asdict(cfg).items() if name != "log_level"}
    dataset = convert_dataset(**options)
    print(f"format v3.0: {dataset.num_episodes} episodes, {dataset.num_frames} frames in {dataset.root}")
    if not cfg.push_to_hub:
        print(f"to publish it, type: lerobot-push --repo_id={cfg.repo_id} --root={dataset.root}")


if __name__ == "__main__":
    main()
