"""A robot dataset read while it is used: shuffled items from the Hub or a folder, by byte ranges.

dataset = StreamingLeRobotDataset("org/name")     for item in dataset: ...          # one epoch, shuffled
                                                  for batch in dataset.batches(8): ...

    part of this process and worker -> several runs open, decoded by threads -> shuffle buffer -> items

Only meta/ is downloaded. Memory: the buffer holds `buffer_size` items with their pictures as bytes, and up to
8 more for each open run; a picture that several windows share is held once.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from lerobot.core.errors import DatasetError
from lerobot.datasets import depth
from lerobot.datasets.delta import frame_deltas
from lerobot.datasets.depth import DepthScale
from lerobot.datasets.item import Item
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import is_depth
from lerobot.datasets.selection import choose_episodes, needed_files
from lerobot.datasets.stream.epochs import EpochCounter
from lerobot.datasets.stream.ranges import RangeSource
from lerobot.datasets.stream.readahead import ReadAhead
from lerobot.datasets.stream.reel import Entry, Reel
from lerobot.datasets.stream.rowgroups import holds_runs
from lerobot.datasets.stream.shards import Run, Segment, ShuffleBuffer, group_by_file, part_of, shuffled

logger = logging.getLogger(__name__)

NUM_THREADS = 4


class StreamingLeRobotDataset(IterableDataset):
    """Items of a dataset in shuffled order, without downloading it; each iterator is one epoch.

    Items are those of `LeRobotDataset`: same keys, types and shapes. The order follows from seed and epoch.
    Processes (`rank` of `num_ranks`) and DataLoader workers read parts that have no frame in common and
    together hold every frame once; parts are equally long, give or take a frame.

    Args:
        repo_id: name on the Hub, "org/name"; also the folder's name under $HF_LEROBOT_HOME.
        root: the dataset's folder, when it is elsewhere. Files that are there are read from there.
        episodes: only these.
        image_transforms: applied to the colour pictures ([T,] C, H, W) of each item.
        delta_timestamps: per feature, offsets in seconds; the feature gains a time axis T and
            `<name>_is_pad`.
        tolerance_s: how far timestamps may be from a multiple of 1 / fps.
        revision: branch, tag or commit on the Hub; the tag of this format version by default.
        force_cache_sync: ask the Hub for meta/ again, and read from there what the folder lacks.
        streaming: False downloads the files first and reads them here.
        buffer_size: items that are mixed; the next one is picked among them.
        max_num_shards: runs of frames, of different episodes, that are read side by side into the buffer.
        seed: of the order.
        rng: draws the seed instead.
        shuffle: False gives the frames in the dataset's order, each part its stretch of it.
        return_uint8: colour pictures as uint8 instead of float32 in 0..1.
        depth_output_unit: "mm" or "m".
        repo_type: only "dataset".
        tasks: only the episodes in which one of these texts is a task; with `episodes`, those in both.
        rank, num_ranks: which part this process reads; those of torch.distributed when it is set up.
        drop_n_last_frames: frames at the end of each episode that are not items of their own.
        num_threads: threads that fetch and decode, per process.

    Raises:
        DatasetError: the dataset is not found, is damaged, or does not have what was asked for.
    """

    def __init__(
        self,
        repo_id: str,
        root: str | Path | None = None,
        episodes: Sequence[int] | None = None,
        image_transforms: Callable[[Tensor], Tensor] | None = None,
        delta_timestamps: dict[str, list[float]] | None = None,
        tolerance_s: float = 1e-4,
        revision: str | None = None,
        force_cache_sync: bool = False,
        streaming: bool = True,
        buffer_size: int = 1000,
        max_num_shards: int = 16,
        seed: int = 42,
        rng: np.random.Generator | None = None,
        shuffle: bool = True,
        return_uint8: bool = False,
        depth_output_unit: str = "mm",
        *,
        repo_type: str = "dataset",
        token: str | None = None,
        tasks: Sequence[str] | None = None,
        rank: int | None = None,
        num_ranks: int | None = None,
        drop_n_last_frames: int = 0,
        num_threads: int = NUM_THREADS,
    ) -> None:
        super().__init__()
        _check_choice("depth_output_unit", depth_output_unit, ("mm", "m"))
        _check_choice("repo_type", repo_type, ("dataset",))
        for name, value in (("max_num_shards", max_num_shards), ("num_threads", num_threads)):
            if value < 1:
                raise DatasetError(f"{name}={value}: expected at least 1.")
        if buffer_size < 0 or drop_n_last_frames < 0:
            raise DatasetError("buffer_size and drop_n_last_frames are numbers of frames, 0 or more.")
        self.repo_id, self.image_transforms = repo_id, image_transforms
        self.delta_timestamps, self.tolerance_s = delta_timestamps, tolerance_s
        self.streaming, self.buffer_size, self.max_num_shards = streaming, buffer_size, max_num_shards
        self.seed = seed if rng is None else int(rng.integers(2**63))
        self.shuffle, self.return_uint8, self.depth_output_unit = shuffle, return_uint8, depth_output_unit
        self.num_threads, self.drop_n_last_frames = num_threads, drop_n_last_frames
        self.rank, self.num_ranks = _rank_of(rank, num_ranks)
        self.meta = LeRobotDatasetMetadata(repo_id, root, revision, force_cache_sync, token=token)
        self.revision = self.meta.revision
        self.meta.use_depth_unit(depth_output_unit)
        self.episodes = choose_episodes(self.meta, episodes=episodes, tasks=tasks)
        self._deltas = frame_deltas(
            delta_timestamps or {}, fps=self.fps, tolerance_s=tolerance_s, known=list(self.features)
        )
        if not streaming:
            self.meta.location.need(
                needed_files(self.meta, np.array(self._chosen), videos=self.meta.video_keys)
            )
        self._epochs = EpochCounter()
        self._progress: dict[str, int] | None = None  # of this process's last iterator
        self._resumed: dict[str, Any] | None = None
        self._groups: list[list[Run]] | None = None
        self._reel: Reel | None = None
        self._process = os.getpid()

    @property
    def root(self) -> Path:
        """The dataset's folder; of a dataset on the Hub, the folder with its meta/."""
        return self.meta.root

    @property
    def fps(self) -> int | float:
        """Frames per second."""
        return self.meta.fps

    @property
    def features(self) -> dict[str, dict]:
        """Every column; see `LeRobotDatasetMetadata.features`."""
        return self.meta.features

    @property
    def num_frames(self) -> int:
        """Frames of the chosen episodes that are items, of all processes together."""
        return sum(len(segment) for segment in self._segments)

    @property
    def num_episodes(self) -> int:
        """Chosen episodes."""
        return len(self._chosen)

    @property
    def fetched_bytes(self) -> int:
        """Bytes this process has read from the Hub, without meta/."""
        return self._reel.source.fetched_bytes if self._reel is not None else 0

    def __len__(self) -> int:
        """Items of one epoch of this process, of all its DataLoader workers together."""
        total = self.num_frames
        return total * (self.rank + 1) // self.num_ranks - total * self.rank // self.num_ranks

    def __iter__(self) -> Iterator[Item]:
        """The items of the next epoch."""
        entries = self._begin()
        return (self._item(entry) for entry in entries)

    def batches(self, batch_size: int) -> Iterator[dict[str, Any]]:
        """The next epoch as stacked items, like `LeRobotDataset.batch`; the last batch may be shorter."""
        entries = self._begin()
        return (self._stacked(part) for part in iter(lambda: list(islice(entries, batch_size)), []))

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Make the next iterator give this epoch, without the first `position` items of this process."""
        self._epochs.set(epoch)
        self._progress = None
        self._resumed = {"epoch": epoch, "position": position, **self._part(), **self._order()}
        if not position:
            self._resumed = None

    def state_dict(self) -> dict[str, Any]:
        """Where this process's last iterator is: after the items it has given.

        Raises:
            DatasetError: DataLoader workers read the dataset; each has a state of its own.
        """
        if self._resumed is not None:
            return dict(self._resumed)
        if get_worker_info() is None and self._epochs.is_read_by_workers:
            raise DatasetError(
                "This dataset is read by DataLoader workers, which have the state. Ask them (torchdata's "
                "StatefulDataLoader does), or read it with num_workers=0 or by batches()."
            )
        progress = self._progress or {"epoch": self._epochs.next, "position": 0, **self._part()}
        return {**progress, **self._order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iterator go on where `state_dict` says, with the very next item.

        What lay in the buffer is read again, nothing else.

        Raises:
            DatasetError: the state is of another order: another seed, buffer, choice of episodes ...
        """
        wrong = [name for name, value in self._order().items() if state.get(name) != value]
        if wrong:
            raise DatasetError(
                f"This state is of another order: {wrong[0]}={state.get(wrong[0])!r}, here "
                f"{self._order()[wrong[0]]!r}. Open the dataset as it was, or begin an epoch: set_epoch()."
            )
        self._resumed, self._progress = dict(state), None

    def _begin(self) -> Iterator[Entry]:
        part = self._part()
        resumed, self._resumed = self._resumed, None
        if resumed is not None and any(resumed[name] != value for name, value in part.items()):
            raise DatasetError(
                f"This state is of part {resumed['part']} of {resumed['num_parts']}, and this process reads "
                f"part {part['part']} of {part['num_parts']}: the number of processes or workers changed. "
                f"Begin the epoch anew with set_epoch({resumed['epoch']})."
            )
        epoch = self._epochs.begin(resumed["epoch"] if resumed is not None else None)
        position = resumed["position"] if resumed is not None else 0
        self._progress = {"epoch": epoch, "position": position, **part}
        return self._entries(self._progress)

    def _entries(self, progress: dict[str, int]) -> Iterator[Entry]:
        """The entries of one epoch and part from a position on; `progress` follows."""
        epoch, position = progress["epoch"], progress["position"]
        reel = self._own_reel()
        runs = self._runs(epoch, progress["part"], progress["num_parts"])
        seeds = [self.seed, epoch, progress["part"], progress["num_parts"]]
        order = ShuffleBuffer(
            [sum(map(len, run)) for run in runs],
            num_open=self.max_num_shards,
            size=self.buffer_size,
            rng=np.random.default_rng(seeds) if self.shuffle else None,
        )
        waiting = order.skip(position)
        ahead = ReadAhead(reel, runs, num_threads=self.num_threads, first_new=order.num_opened)
        try:
            held = ahead.fetch(waiting)
            for give, read in order:
                if read is not None:
                    held[read] = ahead.take(read)
                if give is not None:
                    progress["position"] += 1
                    yield held.pop(give)
            progress |= {"epoch": epoch + 1, "position": 0}
        finally:
            ahead.close()

    def _runs(self, epoch: int, part: int, num_parts: int) -> list[Run]:
        if self._groups is None:
            paths, which = self.meta.files_of(np.array([s.episode for s in self._segments], dtype=np.int64))
            files = [paths[k] for k in which]
            self._groups = group_by_file(self._segments, files, is_joined=self._must_read_in_order(files))
        if not self.shuffle:
            return part_of([run for group in self._groups for run in group], part, num_parts)
        return part_of(shuffled(self._groups, np.random.default_rng([self.seed, epoch])), part, num_parts)

    def _must_read_in_order(self, files: list[Path]) -> bool:
        """Whether pictures of many episodes share a row group, judged by the first file."""
        if not self.meta.image_keys or not files:
            return False
        paths, which = self.meta.files_of(np.arange(self.meta.total_episodes))
        num_episodes = int((which == paths.index(files[0])).sum())
        return holds_runs(self._own_reel().data.footer(files[0]), num_episodes)

    @cached_property
    def _segments(self) -> list[Segment]:
        lengths = np.asarray(self.meta.episodes["length"])[self._chosen] - self.drop_n_last_frames
        return [Segment(e, 0, int(n)) for e, n in zip(self._chosen, lengths, strict=True) if n > 0]

    @property
    def _chosen(self) -> list[int]:
        return self.episodes if self.episodes is not None else list(range(self.meta.total_episodes))

    def _part(self) -> dict[str, int]:
        """The part that this process, or DataLoader worker, reads."""
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        return {"part": self.rank * count + number, "num_parts": self.num_ranks * count}

    def _order(self) -> dict[str, Any]:
        """Everything but epoch and part that the order follows from."""
        names = ("seed", "shuffle", "buffer_size", "max_num_shards", "num_frames")
        return {name: getattr(self, name) for name in names}

    def _own_reel(self) -> Reel:
        """The files of this process: a forked one begins with none, its parent's are not shared."""
        if self._reel is None or self._process != os.getpid():
            self._process = os.getpid()
            self._reel = Reel(
                self.meta, RangeSource(self.meta.location), deltas=self._deltas, tolerance_s=self.tolerance_s
            )
        return self._reel

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reel": None}

    def _item(self, entry: Entry) -> Item:
        batch = self._stacked([entry])
        return Item({name: values[0] for name, values in batch.items()})

    def _stacked(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """Entries as one batch: numbers (B, [T,] ...), pictures (B, [T,] C, H, W), lists of texts."""
        batch: dict[str, Any] = dict.fromkeys(self.features)
        for name in entries[0].chunk:
            values = [entry.chunk[name][entry.at] for entry in entries]
            batch[name] = torch.stack(values) if isinstance(values[0], Tensor) else values
        for name in self.meta.camera_keys:
            batch[name] = self._finished(name, _stacked_pictures([entry.pictures[name] for entry in entries]))
        return batch

    def _finished(self, name: str, pictures: np.ndarray) -> Tensor:
        """Pictures as users get them: depth in its unit, colours as bytes or floats, transformed."""
        feature = self.features[name]
        if is_depth(feature):
            return torch.from_numpy(self._distances(name, pictures))
        colours = torch.from_numpy(pictures)
        if not self.return_uint8:
            colours = colours.float() / 255
        if self.image_transforms is not None:
            colours = torch.stack([self.image_transforms(one) for one in colours])
        return colours

    def _distances(self, name: str, stored: np.ndarray) -> np.ndarray:
        if self.features[name]["dtype"] == "video":
            scale = DepthScale.from_info(self.features[name].get("info") or {}, name=name)
            return scale.dequantize(stored, unit=self.depth_output_unit)
        factor = depth.factor(depth.unit_of(stored.dtype), self.depth_output_unit)
        return stored.astype(np.float32) * np.float32(factor)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.repo_id!r}, {self.num_episodes} episodes, {self.num_frames} "
            f"frames, {self.fps} fps, part {self.rank} of {self.num_ranks})"
        )


def _stacked_pictures(items: Sequence[np.ndarray | tuple[np.ndarray, ...]]) -> np.ndarray:
    """(B, [T,] C, H, W) of B frames, or of B windows of T frames; each frame is copied once."""
    frames = [frame for item in items for frame in (item if isinstance(item, tuple) else (item,))]
    stacked = np.empty((len(frames), *frames[0].shape), frames[0].dtype)
    for at, frame in enumerate(frames):
        stacked[at] = frame
    return stacked.reshape(len(items), -1, *stacked.shape[1:]) if isinstance(items[0], tuple) else stacked


def _rank_of(rank: int | None, num_ranks: int | None) -> tuple[int, int]:
    """The given part, else this process's place in torch.distributed, else the whole."""
    if rank is None and num_ranks is None:
        import torch.distributed as processes

        if not (processes.is_available() and processes.is_initialized()):
            return 0, 1
        rank, num_ranks = processes.get_rank(), processes.get_world_size()
        logger.info("This process streams part %d of %d.", rank, num_ranks)
    if rank is None or num_ranks is None or not 0 <= rank < num_ranks:
        raise DatasetError(f"rank={rank}, num_ranks={num_ranks}: expected both, and 0 <= rank < num_ranks.")
    return rank, num_ranks


def _check_choice(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise DatasetError(f"{name}={given!r}: expected {' or '.join(map(repr, known))}.")
