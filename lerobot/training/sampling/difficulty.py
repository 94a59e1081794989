"""How hard each episode is: its length, a column of the dataset, numbers in a file, or a loss to be measured.

--curriculum.difficulty -> number per episode -> Curriculum
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core.errors import ConfigError, suggest
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.mixture import DatasetMixture
from lerobot.distributed.world import World
from lerobot.training.config import TrainConfig
from lerobot.training.sampling.curriculum import Curriculum, Part
from lerobot.training.sampling.source import Source
from lerobot.training.sampling.stream import StreamedSource
from lerobot.training.sections import COLUMN, LOSS


def build_curriculum(cfg: TrainConfig, source: Source | StreamedSource, world: World) -> Curriculum | None:
    """The curriculum that a config describes, if any.

    Raises:
        ConfigError: the difficulty is a column or a file that is not there, or lacks an episode.
    """
    settings = cfg.curriculum
    if settings.difficulty is None or isinstance(source, StreamedSource):  # which the config refuses
        return None
    parts = parts_of(source)
    return Curriculum(
        settings,
        parts,
        num_episodes=source.dataset.meta.total_episodes,
        difficulty=None if settings.difficulty == LOSS else difficulties(settings.difficulty, source, parts),
        world=world,
    )


def parts_of(source: Source) -> list[Part]:
    """The frames to train on of each dataset, with the numbers of their episodes."""
    dataset, order = source.dataset, source.sampler
    if isinstance(dataset, LeRobotDataset):
        return [_part(dataset, order.frames)]
    return [
        _part(part, frames, first_item=int(item), first_episode=int(episode))
        for part, frames, item, episode in zip(
            dataset.parts, order.frames, dataset.starts, dataset.first_episodes, strict=True
        )
    ]


def _part(dataset: LeRobotDataset, frames: Any, *, first_item: int = 0, first_episode: int = 0) -> Part:
    columns = dataset.reader.columns
    own = columns.frames(frames.numpy() - first_item).episode
    return Part(frames=frames, episodes=columns.episodes[own] + first_episode)


def difficulties(kind: str, source: Source, parts: Iterable[Part]) -> np.ndarray:
    """The difficulty (E,) of every episode, NaN for those that are not trained on.

    Raises:
        ConfigError: a column or a file is not there, or an episode has no number.
    """
    dataset = source.dataset
    trained = np.unique(np.concatenate([part.episodes for part in parts]))
    members = dataset.parts if isinstance(dataset, DatasetMixture) else [dataset]
    if kind == "length":
        found = np.concatenate([np.asarray(one.meta.episodes.column("length"), float) for one in members])
    elif kind.startswith(COLUMN):
        name = kind.removeprefix(COLUMN)
        found = np.concatenate(
            [episode_means(one, name, flag=f"--curriculum.difficulty={kind}") for one in members]
        )
    else:
        found = _from_file(Path(kind), trained, num_episodes=dataset.meta.total_episodes)
    wrong = trained[~np.isfinite(found[trained])]
    if len(wrong):
        raise ConfigError(
            f"--curriculum.difficulty={kind}: episode {wrong[0]} has {found[wrong[0]]}, which cannot be "
            f"ranked ({len(wrong)} episodes are like this)."
        )
    return found


def episode_means(dataset: LeRobotDataset, name: str, *, flag: str) -> np.ndarray:
    """The mean (E,) of a column over each episode of a dataset, NaN for those that are not loaded.

    Args:
        name: a column of meta/episodes with one number per episode, or of the frames.
        flag: what was typed, for messages.
    """
    table, means = dataset.meta.episodes, np.full(dataset.meta.total_episodes, np.nan)
    if name in table.columns:
        try:
            return np.asarray(table.column(name), dtype=np.float64).reshape(len(means))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{flag}: {name} holds no single numbers. {_columns(dataset)}") from error
    columns = dataset.reader.columns
    everything = columns.frames(np.arange(columns.num_frames))
    values = frame_values(dataset, name, flag=flag)
    sums = np.bincount(everything.episode, weights=values, minlength=len(columns.episodes))
    means[columns.episodes] = sums / columns.lengths
    return means


def frame_values(dataset: LeRobotDataset, name: str, *, flag: str) -> np.ndarray:
    """A column of the frames (N,) of a dataset, float64.

    Raises:
        ConfigError: there is none with one number per frame.
    """
    columns = dataset.reader.columns
    known = [n for n, values in columns.numbers.items() if values[:1].numel() == 1]
    if name not in known:
        raise ConfigError(
            f"{flag}: there is no column {name!r} with one number.{suggest(name, known)} {_columns(dataset)}"
        )
    values = columns.values(name, columns.frames(np.arange(columns.num_frames)))
    return values.reshape(-1).double().numpy()


def _columns(dataset: LeRobotDataset) -> str:
    frames = [n for n, values in dataset.reader.columns.numbers.items() if values[:1].numel() == 1]
    return f"Per frame there are {', '.join(sorted(frames))}."


def _from_file(path: Path, trained: np.ndarray, *, num_episodes: int) -> np.ndarray:
    """Numbers (E,) from a JSON object {episode: number}."""
    flag = f"--curriculum.difficulty={path}"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        numbers = {int(episode): float(number) for episode, number in tree.items()}
    except OSError as error:
        raise ConfigError(f"{flag} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f'{flag}: expected a JSON object {{"0": 1.5, "1": 0.2, ...}}: {error}.') from error
    missing = [int(episode) for episode in trained if int(episode) not in numbers]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConfigError(
            f"{flag} has no number for episode{'s' * (len(missing) > 1)} "
            f"{', '.join(map(str, missing[:5]))}{more}. Add them, or choose others with --dataset.episodes."
        )
    found = np.full(num_episodes, np.nan)
    for episode, number in numbers.items():
        if 0 <= episode < num_episodes:
            found[episode] = number
    return found
