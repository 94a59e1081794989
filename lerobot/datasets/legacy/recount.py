"""Statistics of episodes that came without: of every number, and of sampled pictures.

Shapes: T frames of an episode, N sampled ones, C H W picture.
"""

from pathlib import Path

import numpy as np

from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.histogram import RunningQuantileStats
from lerobot.datasets.schema import data_features, is_depth, is_numeric, numbers
from lerobot.datasets.stats import Stats, get_feature_stats, picture_stats, sample_indices, thin_picture
from lerobot.datasets.tables import read_parquet

PICTURES_AT_ONCE = 32


def episode_stats(repo_id: str, root: Path, episodes: list[int]) -> dict[int, Stats]:
    """Statistics of the chosen episodes of a dataset in format v3.0, read from its files."""
    dataset = LeRobotDataset(repo_id, root=root, return_uint8=True)
    return {episode: _numbers(dataset, episode) | _pictures(dataset, episode) for episode in episodes}


def _numbers(dataset: LeRobotDataset, episode: int) -> Stats:
    columns = {k: f for k, f in data_features(dataset.features).items() if is_numeric(f)}
    row, path = dataset.meta.episodes[episode], dataset.root / dataset.meta.get_data_file_path(episode)
    table = read_parquet(path, list(columns))
    first = int(table.column("index")[0].as_py())
    table = table.slice(row["dataset_from_index"] - first, row["length"])
    found = {}
    for name, feature in columns.items():
        values = numbers(table.column(name), feature, where=f"{path}, column {name!r}")  # (T, *shape)
        found[name] = get_feature_stats(values, 0, values.ndim == 1)
    return found


def _pictures(dataset: LeRobotDataset, episode: int) -> Stats:
    row = dataset.meta.episodes[episode]
    running: dict[str, RunningQuantileStats] = {}
    sampled = sample_indices(int(row["length"]))
    for start in range(0, len(sampled), PICTURES_AT_ONCE):
        wanted = [int(row["dataset_from_index"]) + k for k in sampled[start : start + PICTURES_AT_ONCE]]
        batch = dataset.batch(wanted)
        for name in dataset.meta.camera_keys:
            pictures = batch[name].numpy()  # (N, C, H, W)
            if not is_depth(dataset.features[name]) and pictures.dtype != np.uint8:
                pictures = np.round(pictures * 255).astype(np.uint8)
            thin = np.stack([thin_picture(picture) for picture in pictures])  # (N, C, h, w)
            pixels = thin.transpose(0, 2, 3, 1).reshape(-1, thin.shape[1])  # (pixels, C)
            running.setdefault(name, RunningQuantileStats()).update(pixels)
    found = {}
    for name, one in running.items():
        stats = one.get_statistics() | {"count": np.array([len(sampled)])}
        found[name] = picture_stats(stats, is_colour=not is_depth(dataset.features[name]))
    return found
