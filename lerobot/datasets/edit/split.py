"""A dataset cut into several."""

from pathlib import Path

from lerobot.core.errors import DatasetError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import check_episodes, copy_episodes, output_folder


def split_dataset(
    dataset: LeRobotDataset, splits: dict[str, float | list[int]], output_dir: str | Path | None = None
) -> dict[str, LeRobotDataset]:
    """New datasets `<repo_id>_<name>`, one per split; `dataset` stays as it is.

    Args:
        splits: name -> episode numbers, or the share of the episodes (0..1), taken in order.

    Raises:
        DatasetError: a share is not in 0..1, they exceed 1 together, an episode is in two splits or does not
            exist.
    """
    made = {}
    for name, episodes in _episodes(dataset, splits).items():
        repo_id = f"{dataset.repo_id}_{name}"
        root = output_folder(repo_id, None if output_dir is None else Path(output_dir) / name)
        picks = [(dataset.meta, episode) for episode in episodes]
        made[name] = copy_episodes(picks, repo_id=repo_id, root=root, features=dataset.meta.features)
    return made


def _episodes(dataset: LeRobotDataset, splits: dict[str, float | list[int]]) -> dict[str, list[int]]:
    total = dataset.meta.total_episodes
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
        name: check_episodes(dataset.meta, episodes)
        for name, episodes in splits.items()
        if not isinstance(episodes, (int, float))
    }
    flat = [episode for episodes in listed.values() for episode in episodes]
    twice = sorted({episode for episode in flat if flat.count(episode) > 1})
    if twice or not flat:
        raise DatasetError(
            f"splits={splits}: {f'episode {twice[0]} is in two splits' if twice else 'empty'}."
        )
    return listed
