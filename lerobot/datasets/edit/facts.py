"""What a dataset is, in lines for a person: the `info` operation."""

import glob
import json

from lerobot.datasets.compact import MIB
from lerobot.datasets.edit.change import Tell
from lerobot.datasets.edit.target import HIDDEN
from lerobot.datasets.metadata import LeRobotDatasetMetadata


class Facts:
    """A job that only says something."""

    total = 0

    def __init__(self, meta: LeRobotDatasetMetadata, *, show_features: bool) -> None:
        self.meta, self.show_features = meta, show_features

    def lines(self) -> list[str]:
        """See `facts`."""
        return facts(self.meta, show_features=self.show_features)

    def run(self, tell: Tell) -> None:
        """Nothing is changed."""


def facts(meta: LeRobotDatasetMetadata, *, show_features: bool = False) -> list[str]:
    """Id, counts, averages, size; with `show_features` also the table of features."""
    episodes, frames = meta.total_episodes, meta.total_frames
    files = [path for path in meta.root.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files if ".cache" not in path.relative_to(meta.root).parts)
    lines = [
        f"Repository: {meta.repo_id}",
        f"Folder: {meta.root}",
        f"Format: {meta.info['codebase_version']}",
        f"Robot: {meta.robot_type or 'not said'}",
        f"Episodes: {episodes}",
        f"Tasks: {len(meta.tasks)}",
        f"Frames: {frames}",
        f"Frames per episode: {frames / episodes:.1f} on average" if episodes else "Frames per episode: none",
        f"Seconds per episode: {frames / episodes / meta.fps:.2f} on average"
        if episodes
        else "Seconds: none",
        f"Frames per second: {meta.fps}",
        f"Size: {size / MIB:.1f} MB in {len(files)} files",
    ]
    interrupted = sorted(meta.root.parent.glob(f"{glob.escape(HIDDEN.format(name=meta.root.name))}*"))
    lines += [f"Left by an interrupted edit, cleaned up by the next one: {path}" for path in interrupted]
    if show_features:
        shaped = {name: {**one, "shape": list(one["shape"])} for name, one in meta.features.items()}
        lines += ["Features:", json.dumps(shaped, indent=4, ensure_ascii=False)]
    return lines
