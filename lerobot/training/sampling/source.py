"""What a run reads: one dataset or a mixture, opened with the frames its policy needs, in which order.

DatasetConfig -> metadata (before the policy is built) -> datasets -> sampler over the episodes to train on
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lerobot.core.errors import DatasetError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.delta import resolve_delta_timestamps
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.mixture import DatasetMixture, MixtureMetadata
from lerobot.datasets.sampler import EpisodeAwareSampler, MixtureSampler
from lerobot.datasets.stats import check_shapes
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.training.config import TrainConfig
from lerobot.training.logs.metrics import Row
from lerobot.training.sampling.curriculum import Curriculum, StagedLoader
from lerobot.training.sampling.data import BatchLoader
from lerobot.training.sampling.split import frames_of, split_episodes
from lerobot.training.sampling.stream import StreamedSource, StreamLoader, open_stream

Metadata = LeRobotDatasetMetadata | MixtureMetadata
Dataset = LeRobotDataset | DatasetMixture


@dataclass(frozen=True, kw_only=True)
class Source:
    """The frames to train on, in order, and those held out."""

    dataset: Dataset
    sampler: EpisodeAwareSampler | MixtureSampler
    held_out: list[int]  # items of the dataset


def read_metadata(cfg: TrainConfig) -> Metadata:
    """What the run's data says about itself.

    Raises:
        DatasetError: a dataset is not found, is damaged, has no episodes or statistics of another shape.
        FeatureMismatchError: the datasets of a mixture do not fit each other.
    """
    data = cfg.dataset
    found = [
        LeRobotDatasetMetadata(name, root=root, revision=data.revision)
        for name, root in zip(data.names, data.roots, strict=True)
    ]
    for meta in found:
        if not meta.total_episodes:
            raise DatasetError(
                f"{meta.root} has no episodes yet, so there is nothing to learn from. Record some, with "
                "lerobot-record or lerobot-collect and --resume=true."
            )
        check_shapes(meta.stats, meta.features, root=meta.root)
    if len(found) == 1 and not data.feature_map:
        return found[0]
    names = [data.feature_map.get(name, {}) for name in data.names]
    return MixtureMetadata(parts=found, names=names, sizes=picture_sizes(cfg))


def open_source(
    cfg: TrainConfig, meta: Metadata, *, rank: int = 0, num_ranks: int = 1
) -> Source | StreamedSource:
    """The datasets with the frames each item of the policy needs, and the order they are trained in.

    Raises:
        DatasetError: files are missing or damaged, or no frame is left.
        ConfigError: every episode would be held out.
    """
    assert cfg.policy is not None
    if cfg.dataset.streaming:
        assert isinstance(meta, LeRobotDatasetMetadata)
        return open_stream(cfg, meta, rank=rank, num_ranks=num_ranks)
    deltas = resolve_delta_timestamps(cfg.policy, meta, cfg.rename_map) or {}
    if isinstance(meta, LeRobotDatasetMetadata):
        part = open_dataset(cfg, meta, {name: name for name in meta.features}, deltas)
        sampler, held_out = _order(cfg, part)
        return Source(dataset=part, sampler=sampler, held_out=held_out)
    parts = [open_dataset(cfg, one, kept, deltas) for one, kept in zip(meta.parts, meta.kept, strict=True)]
    mixture = DatasetMixture(meta, parts)
    orders = [_order(cfg, part) for part in parts]
    frames = [order.frames + int(start) for (order, _), start in zip(orders, mixture.starts, strict=True)]
    weights = cfg.dataset.weights or [len(one) for one in frames]
    held_out = [
        int(start) + item for (_, items), start in zip(orders, mixture.starts, strict=True) for item in items
    ]
    return Source(
        dataset=mixture, sampler=MixtureSampler(frames, weights, seed=cfg.seed or 0), held_out=held_out
    )


def build_loader(
    cfg: TrainConfig,
    source: Source | StreamedSource,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    curriculum: Curriculum | None = None,
) -> BatchLoader | StreamLoader:
    """Batches of the source for this process, in the order of the curriculum if there is one."""
    if isinstance(source, StreamedSource):
        return StreamLoader(source.dataset, batch_size=cfg.batch_size, prefetch=cfg.prefetch_factor)
    kind = BatchLoader if curriculum is None else partial(StagedLoader, curriculum)
    return kind(
        source.dataset,
        source.sampler,
        batch_size=cfg.batch_size,
        num_workers=cfg.num_workers,
        workers=cfg.loader_workers,
        prefetch=cfg.prefetch_factor,
        rank=rank,
        num_ranks=num_ranks,
    )


class Experience(Protocol):
    """What a policy lives through while it is trained, as far as a run is concerned."""

    @property
    def summary(self) -> str:
        """A line of the header."""

    def settle(self, folder: Path, *, timed: Callable[[], AbstractContextManager]) -> None:
        """Keep what has to be kept in the folder of a run; time spent acting is spent in `timed`."""

    def row(self) -> Row:
        """Numbers for the log."""

    def close(self) -> None:
        """Release what was opened."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""


class Data:
    """Where the batches of a run come from: recorded datasets. Online training has data of another kind."""

    experience: Experience | None = None  # what is lived through meanwhile

    def metadata(self, cfg: TrainConfig) -> Any:
        """What the data says about itself."""
        return read_metadata(cfg)

    def source(self, cfg: TrainConfig, meta: Any, *, rank: int, num_ranks: int) -> Source | StreamedSource:
        """The data, opened with the frames that each item of the policy needs."""
        return open_source(cfg, meta, rank=rank, num_ranks=num_ranks)

    def loader(
        self,
        cfg: TrainConfig,
        source: Source | StreamedSource,
        *,
        policy: PreTrainedPolicy,
        processors: Pair,
        curriculum: Curriculum | None,
        rank: int,
        num_ranks: int,
    ) -> Any:
        """Batches for ever, with the face of a `BatchLoader`; may act with the policy that is trained."""
        return build_loader(cfg, source, rank=rank, num_ranks=num_ranks, curriculum=curriculum)


def open_dataset(
    cfg: TrainConfig,
    meta: LeRobotDatasetMetadata,
    kept: Mapping[str, str],
    deltas: Mapping[str, list[float]],
) -> LeRobotDataset:
    """One dataset; `kept` maps its features to the names that `deltas` speaks of."""
    data, sizes = cfg.dataset, picture_sizes(cfg)
    own_sizes = {own: sizes[common] for own, common in kept.items() if common in sizes}
    return LeRobotDataset(
        meta.repo_id,
        root=data.roots[data.names.index(meta.repo_id)],
        episodes=data.episodes,
        tasks=data.tasks,
        revision=data.revision,
        delta_timestamps={own: deltas[common] for own, common in kept.items() if common in deltas} or None,
        tolerance_s=cfg.tolerance_s,
        download_videos=data.download_videos,
        return_uint8=True,
        depth_output_unit=data.depth_output_unit,
        cache=data.cache,
        cache_bytes=data.cache_bytes // len(data.names),
        image_sizes=own_sizes or None,
        skip_cameras=unused_cameras(cfg, meta, kept),
    )


def unused_cameras(cfg: TrainConfig, meta: LeRobotDatasetMetadata, kept: Mapping[str, str]) -> list[str]:
    """A dataset's cameras that the policy does not look at."""
    assert cfg.policy is not None
    looked_at = {
        own for own, name in kept.items() if cfg.rename_map.get(name, name) in cfg.policy.input_features
    }
    return [name for name in meta.camera_keys if name not in looked_at]


def picture_sizes(cfg: TrainConfig) -> dict[str, tuple[int, int]]:
    """Cameras, by the data's names, whose pictures are brought to (H, W) as they are read.

    That is done where it saves something or must be: in a cache, or so that the pictures of several datasets
    fit in one batch. Elsewhere the preprocessor does it on the device.
    """
    if cfg.dataset.cache is None and len(cfg.dataset.names) == 1:
        return {}
    old = {new: name for name, new in cfg.rename_map.items()}
    return {old.get(name, name): (shape[1], shape[2]) for name, shape in cfg.input_shapes.items()}


def _order(cfg: TrainConfig, dataset: LeRobotDataset) -> tuple[EpisodeAwareSampler, list[int]]:
    """The training frames of one dataset, shuffled anew in every epoch, and its held-out items."""
    assert cfg.policy is not None
    episodes, held_out = split_episodes(
        dataset, share=cfg.dataset.eval_split, seed=cfg.dataset.eval_split_seed
    )
    sampler = EpisodeAwareSampler(
        dataset.meta.episodes["dataset_from_index"],
        dataset.meta.episodes["dataset_to_index"],
        episode_indices_to_use=episodes,
        drop_n_last_frames=cfg.policy.drop_n_last_frames,
        shuffle=True,
        seed=cfg.seed or 0,
        absolute_to_relative_idx=dataset.absolute_to_relative_idx,
    )
    return sampler, frames_of(dataset, held_out)
