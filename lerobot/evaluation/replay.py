"""Compares what a policy would do with what was recorded, frame by frame of a dataset.

    frame -> preprocessor -> chunk (B, T, A) -> postprocessor -> minus the recorded actions of now and later

Every frame is a fresh start: the policy sees the recorded observation, plans its chunk, and all of the chunk
is compared; steps beyond the episode's end do not count. Errors are in the units of the dataset's actions.

Shapes: B frames, T actions of a chunk, A action size, E episodes, L frames of an episode.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import ConfigError, DatasetError
from lerobot.core.types import policy_features
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.delta import resolve_delta_timestamps
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.source import DatasetConfig
from lerobot.evaluation.actor import half_precision
from lerobot.evaluation.fit import check_fit, new_names
from lerobot.evaluation.progress import EpisodeProgress
from lerobot.evaluation.replay_result import Curve, ReplayResult
from lerobot.evaluation.rollout import undisturbed_randomness
from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.memory import draws_of
from lerobot.policies.policy import PreTrainedPolicy
from lerobot.processor.defaults import Pair
from lerobot.processor.rename import rename

IS_PAD = keys.ACTION + keys.PAD_SUFFIX


def replay(
    policy: PreTrainedPolicy,
    processors: Pair,
    cfg: DatasetConfig,
    *,
    n_episodes: int,
    batch_size: int,
    seed: int | None = 1000,
    rename_map: Mapping[str, str] | None = None,
    task: str | None = None,
    max_curves: int = 3,
    progress: EpisodeProgress | None = None,
) -> ReplayResult:
    """The errors of a policy's actions on the first `n_episodes` episodes of a dataset or of `cfg.episodes`.

    Args:
        batch_size: frames predicted at once; it does not change the result.
        seed: of the random numbers of a policy that draws some, each frame having its own; None leaves them
            to chance.
        rename_map: dataset's feature name -> policy's.
        task: task text for the policy instead of the dataset's.
        max_curves: so many first episodes are kept frame by frame.

    Raises:
        DatasetError: the dataset is not found or damaged, or has no action.
        FeatureMismatchError: dataset and policy do not fit.
    """
    started_s = time.perf_counter()
    dataset, names = opened(policy.config, processors, cfg, n_episodes, rename_map or {})
    episodes = list(range(dataset.num_episodes)) if dataset.episodes is None else list(dataset.episodes)
    shown_by = progress or EpisodeProgress(len(dataset), title="replaying", unit="frames")
    with undisturbed_randomness(), shown_by as shown:
        tally = Tally(episodes, list(episodes[:max_curves]))
        for start in range(0, len(dataset), batch_size):
            batch = dataset.batch(range(start, min(start + batch_size, len(dataset))))
            if task is not None:
                batch[keys.TASK] = [task] * len(batch[keys.TASK])
            seeds = [None if seed is None else seed_of(seed, int(frame)) for frame in batch[keys.INDEX]]
            planned = plan(policy, processors, rename(batch, names), seeds=seeds)  # (B, T, A)
            tally.add(planned, batch[keys.ACTION], batch[IS_PAD], batch[keys.EPISODE_INDEX])
            shown.update(min(start + batch_size, len(dataset)))
    squared, absolute, counts = tally.sums()
    return ReplayResult(
        repo_id=cfg.label,
        num_episodes_there=dataset.meta.total_episodes,
        joint_names=joint_names(dataset.features[keys.ACTION]),
        episodes=episodes,
        squared=squared,
        absolute=absolute,
        counts=counts,
        curves=list(tally.curves()),
        eval_s=time.perf_counter() - started_s,
        facts={
            "dataset_revision": dataset.revision,
            "dataset_episodes": dataset.meta.total_episodes,
            "dataset_frames": dataset.meta.total_frames,
        },
    )


def opened(
    config: PreTrainedConfig,
    processors: Pair,
    cfg: DatasetConfig,
    n_episodes: int,
    rename_map: Mapping[str, str],
) -> tuple[LeRobotDataset, dict[str, str]]:
    """The dataset with the frames and actions that the policy's chunks need, and its features' new names."""
    if cfg.streaming:
        raise ConfigError("--dataset.streaming=true cannot be replayed yet; leave it out.")
    if len(cfg.names) > 1:
        raise ConfigError(f"--dataset.repo_id={cfg.names}: one dataset is replayed at a time; give one name.")
    name, root = cfg.names[0], cfg.roots[0]
    meta = LeRobotDatasetMetadata(name, root=root, revision=cfg.revision)
    if keys.ACTION not in meta.features:
        raise DatasetError(
            f"Dataset {name!r} has no {keys.ACTION!r}, so there is nothing to compare with. "
            f"It has: {', '.join(meta.features)}."
        )
    source = f"dataset {name}"
    names = new_names(meta.features, rename_map, source=source)
    check_fit(config, rename(policy_features(meta.features), names), processors[0], source=source)
    deltas = resolve_delta_timestamps(config, meta, rename_map) or {}
    ahead = [index for index in config.action_delta_indices or [0] if index >= 0]
    deltas[keys.ACTION] = [index / meta.fps for index in ahead]
    episodes = cfg.episodes if cfg.episodes is not None else list(range(meta.total_episodes))
    dataset = LeRobotDataset(
        name,
        root=root,
        episodes=episodes[:n_episodes],
        tasks=cfg.tasks,
        delta_timestamps=deltas,
        revision=cfg.revision,
        depth_output_unit=cfg.depth_output_unit,
    )
    return dataset, names


@torch.no_grad()
def plan(
    policy: PreTrainedPolicy, processors: Pair, batch: Mapping[str, Any], *, seeds: Sequence[int | None]
) -> Tensor:
    """The actions (B, T, A) that the policy plans at each frame of a batch, in the dataset's units.

    Args:
        batch: observations (B, ...), or (B, O, ...) for a policy that looks back.
        seeds: of the random numbers of each frame, whichever batch it comes in.
    """
    before, after = processors
    policy.reset()
    observed = {name: value for name, value in batch.items() if name not in (keys.ACTION, IS_PAD)}
    draws = draws_of([policy.new_memory(seed=seed) for seed in seeds])
    with half_precision(policy):
        chunk = policy.predict_action_chunk(before(observed), draws=draws)
    return after(chunk).float().cpu()


def seed_of(seed: int, frame: int) -> int:
    """A seed for one frame of the dataset; both numbers mixed, since torch's generator reads 32 bits."""
    return int(np.random.SeedSequence((seed, frame)).generate_state(1)[0])


class Tally:
    """Sums errors batch by batch, and keeps the first episodes frame by frame."""

    def __init__(self, episodes: list[int], kept: list[int]) -> None:
        self.rows = {number: row for row, number in enumerate(episodes)}
        self.kept: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {number: [] for number in kept}
        self._sums: tuple[Tensor, ...] = ()

    def add(self, planned: Tensor, recorded: Tensor, is_pad: Tensor, episode: Tensor) -> None:
        """Count a batch: planned (B, T', A), recorded (B, T, A), is_pad (B, T), episode (B,)."""
        # A policy may plan fewer steps than it learns from, never more.
        steps = min(planned.shape[1], recorded.shape[1])
        errors = (planned[:, :steps] - recorded[:, :steps]).double()  # (B, T, A)
        valid = (~is_pad[:, :steps]).double()  # (B, T)
        rows = torch.tensor([self.rows[int(number)] for number in episode])  # (B,)
        if not self._sums:
            shape = (len(self.rows), *errors.shape[1:])
            self._sums = tuple(torch.zeros(s, dtype=torch.float64) for s in (shape, shape, shape[:2]))
        squared, absolute, counts = self._sums
        squared.index_add_(0, rows, errors.square() * valid[..., None])
        absolute.index_add_(0, rows, errors.abs() * valid[..., None])
        counts.index_add_(0, rows, valid)
        for i, number in enumerate(episode.tolist()):
            if number in self.kept:
                self.kept[number].append((recorded[i, 0].numpy(), planned[i, 0].numpy()))

    def sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Squared (E, T, A), absolute (E, T, A), counts (E, T)."""
        squared, absolute, counts = self._sums
        return squared.numpy(), absolute.numpy(), counts.numpy()

    def curves(self) -> Iterator[Curve]:
        """The episodes that were kept."""
        for number, pairs in self.kept.items():
            recorded, predicted = (np.stack(side) for side in zip(*pairs, strict=True))
            yield Curve(episode=number, recorded=recorded, predicted=predicted)


def joint_names(feature: Mapping[str, Any]) -> list[str]:
    """Names of the parts of an action, whichever way the dataset lists them; numbered where it does not."""
    names = feature.get("names")
    if isinstance(names, Mapping):  # {"motors": [...]} or {"pan": 0, "lift": 1}
        lists = [part for part in names.values() if isinstance(part, (list, tuple))]
        names = (
            [name for part in lists for name in part]
            if lists
            else sorted(names, key=lambda name: names[name])
        )
    size = feature["shape"][0]
    if not names or len(names) != size:
        return [f"{keys.ACTION}_{i}" for i in range(size)]
    return [str(name) for name in names]
