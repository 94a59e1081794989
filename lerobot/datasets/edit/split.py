"""A dataset cut into several."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.core import hub
from lerobot.core.errors import DatasetError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import Copy, check_episodes
from lerobot.datasets.edit.target import Target
from lerobot.datasets.metadata import LeRobotDatasetMetadata

Splits = Mapping[str, float | list[int]]


def split_dataset(
    dataset: LeRobotDataset, splits: Splits, output_dir: str | Path | None = None, *, reencode: bool = False
) -> dict[str, LeRobotDataset]:
    """New datasets `<repo_id>_<name>`, one per split, in `<output_dir>/<name>`; `dataset` stays as it is.

    Args:
        splits: name -> episode numbers, or the share of the episodes (0..1), taken in order.
        reencode: encode episodes again that another writer did not begin and end at key frames.

    Raises:
        DatasetError: a share is not in 0..1, they exceed 1 together, an episode is in two splits or does not
            exist, or a folder exists.
    """
    copies = plan_split(dataset.meta, splits, output_dir, may_encode=reencode)
    return {name: one.run() for name, one in copies.items()}


def plan_split(
    meta: LeRobotDatasetMetadata, splits: Splits, output_dir: str | Path | None = None, **options: Any
) -> dict[str, Copy]:
    """One copy per split."""
    copies = {}
    for name, episodes in _episodes(meta, splits).items():
        repo_id = f"{meta.repo_id}_{name}"
        root = hub.lerobot_home() / repo_id if output_dir is None else Path(output_dir).expanduser() / name
        picks = [(meta, episode) for episode in episodes]
        target = Target(repo_id=repo_id, root=root)
        copies[name] = Copy(target=target, picks=picks, features=meta.features, **options)
    return copies


def _episodes(meta: LeRobotDatasetMetadata, splits: Splits) -> dict[str, list[int]]:
    total = meta.total_episodes
    bad = [name for name in splits if not name or "/" in name or name.startswith(".")]
    if bad:
        raise DatasetError(f"splits={splits}: {bad[0]!r} cannot be the name of a dataset.")
    shares = {name: share for name, share in splits.items() if isinstance(share, (int, float))}
    if shares and len(shares) < len(splits):
        raise DatasetError(f"splits={splits}: give either shares or episode numbers, not both.")
    if any(not 0 < share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise DatasetError(f"splits={splits}: shares lie between 0 and 1 and add up to 1 at most.")
    if shares:
        found, start, sum_so_far = {}, 0, 0.0
        for name, share in shares.items():
            sum_so_far += share
            end = round(sum_so_far * total)
            found[name], start = list(range(start, end)), end
        empty = [name for name, episodes in found.items() if not episodes]
        if empty:
            raise DatasetError(f"splits={splits}: {empty[0]!r} gets none of the {total} episodes.")
        return found
    listed = {
        name: check_episodes(meta, episodes)
        for name, episodes in splits.items()
        if not isinstance(episodes, (int, float))
    }
    flat = [episode for episodes in listed.values() for episode in episodes]
    twice = [episode for episode, times in Counter(flat).items() if times > 1]
    if twice or not flat:
        raise DatasetError(
            f"splits={splits}: {f'episode {twice[0]} is in two splits' if twice else 'empty'}."
        )
    return listed
