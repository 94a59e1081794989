"""Upload a dataset folder to the Hub, by the flags of old releases; `lerobot-push` is the same command.

python lerobot/scripts/push_dataset_to_hub.py --raw-dir data/raw/so101 --repo-id me/so101 --raw-format lerobot
python lerobot/scripts/push_dataset_to_hub.py --raw-dir data/raw/so101 --repo-id me/so101 --dry-run
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot.core.command import command
from lerobot.core.errors import ConfigError
from lerobot.core.flags import parse
from lerobot.scripts.push import PushConfig, push

RAW_FORMAT = "lerobot"


@dataclass(kw_only=True)
class PushRawConfig(PushConfig):
    """Upload a dataset folder to the Hub."""

    raw_dir: Path  # the dataset's folder
    raw_format: str = RAW_FORMAT  # what the folder holds; only "lerobot" is known

    def __post_init__(self) -> None:
        if self.raw_format != RAW_FORMAT:
            raise ConfigError(
                f"--raw-format={self.raw_format}: expected {RAW_FORMAT!r}: a folder with meta/info.json. "
                "Recordings of other programs are written frame by frame with LeRobotDataset.create() and "
                "add_frame()."
            )
        if self.root is not None and self.root != self.raw_dir:
            raise ConfigError(f"--root={self.root} and --raw-dir={self.raw_dir} disagree; give one of them.")


def push_dataset_to_hub(args: Sequence[str] | None = None) -> str | None:
    """Upload the dataset of a list of flags, or (None) of the command line; returns the commit's address."""
    cfg = parse(PushRawConfig, args, program="push_dataset_to_hub.py")
    shared = {one.name: getattr(cfg, one.name) for one in dataclasses.fields(PushConfig)}
    return push(PushConfig(**shared | {"root": cfg.raw_dir}))


@command
def main() -> None:
    """Entry point of `python lerobot/scripts/push_dataset_to_hub.py`."""
    push_dataset_to_hub()


if __name__ == "__main__":
    main()
