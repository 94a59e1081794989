"""How much each item counts in the loss: `--sample_weighting.*`.

    rabc     progress of a frame's task, as a reward model predicts it -> gain over the next chunk -> weight
    column   a column of the dataset, one number per frame
    tasks    every task counts the same, however many frames it has
    uniform  1

    batch["index"] -> table of weights, on the device -> batch["loss_weight"] (B,)

RA-BC is reward-aligned behaviour cloning, equations 8 and 9 of Chen et al. 2025, "SARM: Stage-Aware Reward
Modeling for Long Horizon Robot Manipulation". The loss is the weighted mean over all micro-batches and
processes of a step, so only ratios of weights matter.
Shapes: F frames of all datasets together, N frames of one, B items of a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import ConfigError, DatasetError
from lerobot.core.hub import Repo
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.mixture import DatasetMixture
from lerobot.datasets.tables import read_parquet
from lerobot.training.config import TrainConfig
from lerobot.training.sampling.data import Batch
from lerobot.training.sampling.difficulty import frame_values, parts_of
from lerobot.training.sampling.source import Source
from lerobot.training.sampling.stream import StreamedSource
from lerobot.training.sections import SampleWeightingConfig

PROGRESS_FILE = "sarm_progress.parquet"  # in a dataset's folder
ON_THE_HUB = "hf://datasets/"  # user/name/path of the file


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """The weights of all frames, on the device."""

    table: Tensor  # (F,) by the number that batches call `index`
    summary: str  # one line for the header

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the weight of each item."""
        weight = self.table[batch[keys.INDEX]]
        if keys.LOSS_WEIGHT in batch:  # 0 in a filler, which counts nothing
            weight = weight * batch[keys.LOSS_WEIGHT]
        return type(batch)(batch | {keys.LOSS_WEIGHT: weight})

    @staticmethod
    def numbers(batch: Batch) -> dict[str, Tensor]:
        """What to log of a batch: the mean weight, and the shares of items that count nothing or fully."""
        weight = batch[keys.LOSS_WEIGHT]
        return {
            "sample_weighting/mean_weight": weight.mean(),
            "sample_weighting/zero_share": (weight == 0).float().mean(),
            "sample_weighting/full_share": (weight >= 1).float().mean(),
        }


def build_weighting(
    cfg: TrainConfig, source: Source | StreamedSource, device: torch.device
) -> Weighting | None:
    """The weighting that a config describes, if any.

    Raises:
        ConfigError: its kind, or a setting of it, is not known, or the policy has no chunk.
        DatasetError: the progress of a dataset is not there, or does not fit it.
    """
    settings = cfg.sample_weighting
    if settings is None or isinstance(source, StreamedSource):  # which the config refuses
        return None
    whole = source.dataset
    members = whole.parts if isinstance(whole, DatasetMixture) else [whole]
    make, extra = KINDS[settings.type]
    given = {name: settings.extra_params.get(name, default) for name, default in extra.items()}
    weights = make(cfg, settings, members, given)
    everything = np.concatenate([np.ones(0), *weights])
    wrong = np.flatnonzero(~np.isfinite(everything) | (everything < 0))
    if len(wrong):
        raise ConfigError(
            f"--sample_weighting.type={settings.type}: frame {wrong[0]} would have the weight "
            f"{everything[wrong[0]]}; expected 0 or more ({len(wrong)} frames are like this)."
        )
    trained = _trained_frames(source)
    if not everything[trained].any():
        raise ConfigError(
            f"--sample_weighting.type={settings.type}: each of the {len(trained)} frames to train on would "
            "have the weight 0."
        )
    chosen = everything[trained]
    summary = (
        f"by {settings.type}, mean weight {chosen.mean():.3g}; {np.mean(chosen == 0):.0%} of the frames "
        "count nothing"
    )
    return Weighting(table=torch.from_numpy(everything).float().to(device), summary=summary)


def _trained_frames(source: Source) -> np.ndarray:
    """The numbers that batches call `index` of the frames that are trained on."""
    dataset, parts = source.dataset, parts_of(source)
    if isinstance(dataset, LeRobotDataset):
        return _absolute(dataset, parts[0].frames.numpy())
    return np.concatenate(
        [
            _absolute(member, part.frames.numpy() - int(item)) + int(first)
            for member, part, item, first in zip(
                dataset.parts, parts, dataset.starts, dataset.first_frames, strict=True
            )
        ]
    )


def _absolute(dataset: LeRobotDataset, items: np.ndarray) -> np.ndarray:
    """Item numbers of the loaded episodes as numbers in the whole dataset."""
    columns = dataset.reader.columns
    frames = columns.frames(items)
    return columns.starts[frames.episode] + frames.offset


# ------------------------------------------------------------------------------------------- kinds
Members = Sequence[LeRobotDataset]


def _uniform(cfg: TrainConfig, settings: SampleWeightingConfig, members: Members, given: dict) -> list:
    return [np.ones(one.meta.total_frames) for one in members]


def _column(cfg: TrainConfig, settings: SampleWeightingConfig, members: Members, given: dict) -> list:
    name = given["column"]
    if name is None:
        raise ConfigError(
            "--sample_weighting.type=column needs the column of weights: "
            "--sample_weighting.extra_params={column: NAME}"
        )
    found = []
    for one in members:
        weights = np.ones(one.meta.total_frames)
        values = frame_values(one, str(name), flag=f"--sample_weighting.extra_params={{column: {name}}}")
        weights[_absolute(one, np.arange(len(values)))] = values
        found.append(weights)
    return found


def _tasks(cfg: TrainConfig, settings: SampleWeightingConfig, members: Members, given: dict) -> list:
    """A frame counts the more, the fewer frames its task has; 1 in the mean."""
    texts = []
    for one in members:
        numbers = frame_values(one, keys.TASK_INDEX, flag="--sample_weighting.type=tasks").astype(int)
        texts.append(np.array([one.meta.tasks.name(number) for number in numbers]))
    names, counts = np.unique(np.concatenate(texts), return_counts=True)
    weight = counts.sum() / (len(names) * counts)  # of each task
    found = []
    for one, own in zip(members, texts, strict=True):
        weights = np.ones(one.meta.total_frames)
        weights[_absolute(one, np.arange(len(own)))] = weight[np.searchsorted(names, own)]
        found.append(weights)
    return found


def _rabc(cfg: TrainConfig, settings: SampleWeightingConfig, members: Members, given: dict) -> list:
    if settings.progress_path is not None and len(members) > 1:
        raise ConfigError(
            f"--sample_weighting.progress_path={settings.progress_path} is one file, and there are "
            f"{len(members)} datasets. Leave it out and give each dataset its own {PROGRESS_FILE}."
        )
    chunk = given["chunk_size"] or getattr(cfg.policy, "chunk_size", None)
    if chunk is None:
        assert cfg.policy is not None
        raise ConfigError(
            f"--sample_weighting.type=rabc looks one chunk ahead, and {cfg.policy.type} has no chunk_size. "
            "Give the number of frames: --sample_weighting.extra_params={chunk_size: 16}"
        )
    found = []
    for one in members:
        path = progress_file(settings.progress_path, one)
        index, episode, progress = read_progress(path, head=settings.head_mode)
        gains = gains_of(index, episode, progress, chunk=int(chunk))
        weights = np.full(one.meta.total_frames, float(given["fallback_weight"]))
        if len(index) and not 0 <= index.min() <= index.max() < len(weights):
            raise DatasetError(
                f"{path} speaks of frames {index.min()} to {index.max()}; {one.meta.repo_id} has "
                f"{len(weights)}. It is of another dataset, or of an earlier state of this one: make it anew."
            )
        known = np.isfinite(gains)
        weights[index[known]] = weights_of(gains, kappa=settings.kappa, epsilon=settings.epsilon)[known]
        found.append(weights)
    return found


def progress_file(given: str | None, dataset: LeRobotDataset) -> Path:
    """Where a dataset's table of progress is: the path that was given, a file on the Hub, or its own."""
    if given is None:
        if dataset.meta.location.revision is not None:  # from the Hub, where its table may be as well
            dataset.meta.location.need([Path(PROGRESS_FILE)])
        return dataset.meta.root / PROGRESS_FILE
    if not given.startswith(ON_THE_HUB):
        return Path(given).expanduser()
    owner, name, file = (*given.removeprefix(ON_THE_HUB).split("/", 2), "", "")[:3]
    return Repo(repo_id=f"{owner}/{name}", repo_type="dataset").file(file)


def read_progress(path: Path, *, head: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame numbers, episodes and progress (N,) of a progress table, in the order of the frames.

    Raises:
        DatasetError: the file is not there, is damaged, or lacks the head's column.
    """
    if not path.is_file():
        raise DatasetError(
            f"There is no table of progress at {path}. Name it: "
            "--sample_weighting.progress_path=FILE.parquet, with the columns index, episode_index and "
            "progress_sparse or progress_dense."
        )
    table, column = read_parquet(path), f"progress_{head}"
    missing = [name for name in (keys.INDEX, keys.EPISODE_INDEX, column) if name not in table.column_names]
    if missing:
        heads = [n.removeprefix("progress_") for n in table.column_names if n.startswith("progress_")]
        advice = f" Type: --sample_weighting.head_mode={heads[0]}" if column in missing and heads else ""
        raise DatasetError(
            f"{path} has no column {missing[0]}; it has {', '.join(table.column_names)}.{advice}"
        )
    index, episode, progress = (_numbers(table, name) for name in (keys.INDEX, keys.EPISODE_INDEX, column))
    order = np.argsort(index, kind="stable")
    return index[order].astype(np.int64), episode[order].astype(np.int64), progress[order]


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)


def gains_of(index: np.ndarray, episode: np.ndarray, progress: np.ndarray, *, chunk: int) -> np.ndarray:
    """How much further the task is (N,) a chunk later, or at the episode's end; NaN where that is not known.

    Args:
        index, episode, progress: (N,) each, `index` ascending, the frames of an episode together.
    """
    last = np.append(np.flatnonzero(np.diff(episode)), len(index) - 1)  # row of each episode's last frame
    end = index[last[np.searchsorted(last, np.arange(len(index)))]]  # (N,)
    wanted = np.minimum(index + chunk, end)
    place = np.searchsorted(index, wanted)  # there is one: the end at the latest
    return np.where(index[place] == wanted, progress[place] - progress, np.nan)


def weights_of(gains: np.ndarray, *, kappa: float, epsilon: float) -> np.ndarray:
    """The weight (N,) of each gain: 1 above kappa, 0 below 0, between them by its place among all gains.

    That place runs from 0 at two standard deviations below the mean to 1 at two above it.
    """
    known = gains[np.isfinite(gains)]
    mean, spread = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
    place = np.clip((gains - (mean - 2 * spread)) / (4 * spread + epsilon), 0, 1)
    return np.where(gains > kappa, 1.0, np.where(gains >= 0, place, 0.0))


Kind = Callable[[TrainConfig, SampleWeightingConfig, Members, dict[str, Any]], list[np.ndarray]]
# Name of a kind: how it makes the weights (N,) of each dataset, and its extra_params with their defaults.
KINDS: Mapping[str, tuple[Kind, Mapping[str, Any]]] = {
    "rabc": (_rabc, {"fallback_weight": 1.0, "chunk_size": None}),
    "column": (_column, {"column": None}),
    "tasks": (_tasks, {}),
    "uniform": (_uniform, {}),
}
