"""A dataset with statistics computed anew; the original is kept."""

import os
import shutil
from pathlib import Path
from typing import Any

from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.change import Tell
from lerobot.datasets.edit.target import Target, staged
from lerobot.datasets.edit.verify import verify
from lerobot.datasets.metadata import LeRobotDatasetMetadata

NOT_COPIED = (".cache",)


class Recount:
    """The job of `recompute_stats`."""

    def __init__(self, meta: LeRobotDatasetMetadata, target: Target, options: dict[str, Any]) -> None:
        target.check()
        self.meta, self.target, self.options = meta, target, options
        self.total = meta.total_frames

    def lines(self) -> list[str]:
        """What will be done."""
        what = "numbers only" if self.options["skip_image_video"] else "numbers and pictures"
        kept = [f"keeps what is there now as {self.target.backup()}"] if self.target.replaces else []
        return [
            f"makes {self.target.repo_id!r} in {self.target.root}: {self.meta.total_frames} frames",
            *kept,
            f"{'links' if self.target.replaces else 'copies'} data and video files as they are",
            f"computes the statistics of {what}",
        ]

    def run(self, tell: Tell) -> LeRobotDataset:
        """Copy the dataset aside, compute, verify, put it in place."""
        from lerobot.datasets.edit.stats import recompute_stats

        with staged(self.target) as folder:
            self._copy(folder)
            recompute_stats(LeRobotDataset(self.target.repo_id, root=folder), **self.options)
            verify(self.target.repo_id, folder)
        tell(self.total, self.total)
        return LeRobotDataset(self.target.repo_id, root=self.target.root)

    def _copy(self, folder: Path) -> None:
        """Every file; in place data and videos are linked, since statistics only replace files of meta."""
        root = self.meta.root
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            if not path.is_file() or name.parts[0] in NOT_COPIED or (folder / name).exists():
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if self.target.replaces and name.parts[0] in ("data", "videos"):
                os.link(path, folder / name)
            else:
                shutil.copyfile(path, folder / name)
