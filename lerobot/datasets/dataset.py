"""A robot dataset in LeRobot's format v3.0: read items and batches of it, record episodes into it, share it.

dataset = LeRobotDataset("org/name")    dataset = LeRobotDataset.create("org/name", fps=30, features=...)
item = dataset[0]                       dataset.add_frame({..., "task": "..."})    # every tick
batch = dataset.batch([0, 5, 9])        dataset.save_episode()                     # durable on return
                                        dataset.finalize()
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lerobot.core.errors import DatasetError
from lerobot.datasets import config
from lerobot.datasets.capture import Captured
from lerobot.datasets.columns import ItemNumbers
from lerobot.datasets.config import DepthEncoderConfig, VideoEncoderConfig
from lerobot.datasets.damage import pointing_to_doctor
from lerobot.datasets.delta import frame_deltas
from lerobot.datasets.item import Item
from lerobot.datasets.metadata import MAX_ATTEMPTS, LeRobotDatasetMetadata
from lerobot.datasets.reader import FrameReader
from lerobot.datasets.selection import check_cameras, choose_episodes, needed_files
from lerobot.datasets.writer import EpisodeWriter

__all__ = ["LeRobotDataset", "LeRobotDatasetMetadata"]

# What `create`, or the reader, takes and `resume` accepts without using it.
UNUSED_IN_RESUME = {
    *("image_writer_processes", "batch_encoding_size", "metadata_buffer_size", "streaming_encoding"),
    *("video_backend", "revision", "force_cache_sync"),
}


class LeRobotDataset(torch.utils.data.Dataset):
    """Frames of a dataset by number, and the episodes that are recorded into it.

    `dataset[i]` is an `Item`: numbers as tensors (float32, int64, bool; shape-(1,) features are scalars),
    colour pictures (C, H, W) float32 in 0..1, depth (1, H, W), texts as str, and the task's text under
    "task".

    Args:
        repo_id: name on the Hub, "org/name"; also the folder's name under $HF_LEROBOT_HOME.
        root: the dataset's folder, when it is elsewhere.
        episodes: only load these; items are numbered through them in dataset order.
        image_transforms: applied to the colour pictures ([T,] C, H, W) of each item.
        delta_timestamps: per feature, offsets in seconds; the feature gains a time axis T and
            `<name>_is_pad`.
        tolerance_s: how far timestamps may be from a multiple of 1 / fps.
        revision: branch, tag or commit on the Hub; the tag of this format version by default.
        force_cache_sync: download again what this machine already has.
        download_videos: fetch missing videos when opening.
        video_backend: "pyav"; "torchcodec" and "video_reader" are accepted and read with PyAV.
        return_uint8: colour pictures as uint8.
        depth_output_unit: "mm" or "m".
        tasks: only load the episodes in which one of these texts is a task; with `episodes`, those in both.
        image_sizes: colour cameras that are resized, with antialiasing: name -> (height, width).
        cache: "ram" or "disk" keeps decoded colour pictures, at that size, for later epochs.
        cache_bytes: what they may take, all cameras together; 4 GiB by default.
        skip_cameras: cameras that are neither downloaded nor decoded, and not in the items.

    Raises:
        DatasetError: the dataset is not found, is damaged, or does not have what was asked for.

    Size: half of it are the documented signatures that existing scripts call.
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
        download_videos: bool = True,
        video_backend: str | None = None,
        return_uint8: bool = False,
        depth_output_unit: str = "mm",
        *,
        token: str | None = None,
        tasks: Sequence[str] | None = None,
        image_sizes: Mapping[str, tuple[int, int]] | None = None,
        cache: str | None = None,
        cache_bytes: int | None = None,
        skip_cameras: Collection[str] = (),
    ) -> None:
        if video_backend not in (None, "pyav", "torchcodec", "video_reader"):
            raise DatasetError(f"video_backend={video_backend!r} is not known; use 'pyav'.")
        if depth_output_unit not in ("mm", "m"):
            raise DatasetError(f"depth_output_unit={depth_output_unit!r}; expected 'mm' or 'm'.")
        self.repo_id = repo_id
        self.image_transforms = image_transforms
        self.delta_timestamps = delta_timestamps
        self.tolerance_s = tolerance_s
        self.return_uint8, self.depth_output_unit = return_uint8, depth_output_unit
        self.image_sizes, self.cache, self.cache_bytes = image_sizes, cache, cache_bytes
        self.skip_cameras = frozenset(skip_cameras)
        self.meta = LeRobotDatasetMetadata(repo_id, root, revision, force_cache_sync, token=token)
        self.revision = self.meta.revision
        check_cameras(self.meta, self.skip_cameras)
        self.writer: EpisodeWriter | None = None
        for attempt in range(MAX_ATTEMPTS):
            self._reader: FrameReader | None = None
            self.meta.use_depth_unit(depth_output_unit)
            self.episodes = choose_episodes(self.meta, episodes=episodes, tasks=tasks)
            chosen, is_remote = (
                episode_numbers(self.meta, self.episodes),
                self.meta.location.revision is not None,
            )
            try:
                videos = set(self.meta.video_keys) - self.skip_cameras if download_videos else set()
                need = needed_files(self.meta, chosen, videos=videos)
                with pointing_to_doctor(self.root):
                    self.meta.location.need(need, force=force_cache_sync and is_remote)
                _ = self.reader  # what is wrong with the files is said now
            except DatasetError:
                if attempt == MAX_ATTEMPTS - 1 or not self.meta.has_changed():
                    raise
                self.meta.reload()  # a recording ended just now, and joined its files
            else:
                break

    @classmethod
    def create(
        cls,
        repo_id: str,
        fps: int,
        features: dict[str, dict],
        root: str | Path | None = None,
        robot_type: str | None = None,
        use_videos: bool = True,
        tolerance_s: float = 1e-4,
        image_writer_processes: int = 0,
        image_writer_threads: int = 0,
        video_backend: str | None = None,
        batch_encoding_size: int = 1,
        rgb_encoder: VideoEncoderConfig | None = None,
        depth_encoder: DepthEncoderConfig | None = None,
        metadata_buffer_size: int = 10,
        streaming_encoding: bool = True,
        encoder_queue_maxsize: int = 30,
        encoder_threads: int | None = None,
        *,
        encoder_overflow: str = "wait",
        chunks_size: int = config.CHUNKS_SIZE,
        data_files_size_in_mb: float = config.DATA_FILES_SIZE_IN_MB,
        video_files_size_in_mb: float = config.VIDEO_FILES_SIZE_IN_MB,
    ) -> "LeRobotDataset":
        """A new dataset on disk that episodes are recorded into.

        Videos are always encoded while frames are added and every episode is on disk when `save_episode`
        returns: `image_writer_processes`, `batch_encoding_size`, `metadata_buffer_size` and
        `streaming_encoding` change nothing. `image_writer_threads` threads encode pictures (0: one per core,
        at most four).

        Args:
            features: name -> {"dtype", "shape", "names"}; the five default columns are added.
            rgb_encoder: encoder of colour cameras.
            depth_encoder: encoder of depth cameras.
            encoder_queue_maxsize: pictures per camera that may wait for the encoder.
            encoder_overflow: what happens to more: "wait" makes `add_frame` wait, "repeat" stores the picture
                before once more, which is logged and kept in `meta.repeated_frames(episode)`.

        Raises:
            DatasetError: the folder exists, a declaration is not accepted, or an encoder does not work here.
        """
        meta = LeRobotDatasetMetadata.create(
            repo_id,
            fps,
            features,
            robot_type,
            root,
            use_videos,
            chunks_size=chunks_size,
            data_files_size_in_mb=data_files_size_in_mb,
            video_files_size_in_mb=video_files_size_in_mb,
        )
        writer = EpisodeWriter.for_new(
            meta,
            rgb_encoder=rgb_encoder,
            depth_encoder=depth_encoder,
            queue_size=encoder_queue_maxsize,
            overflow=encoder_overflow,
            encoder_threads=encoder_threads,
            picture_threads=image_writer_threads,
        )
        return cls._recording(meta, writer, tolerance_s)

    @classmethod
    def resume(
        cls,
        repo_id: str,
        root: str | Path | None = None,
        tolerance_s: float = 1e-4,
        image_writer_threads: int = 0,
        rgb_encoder: VideoEncoderConfig | None = None,
        depth_encoder: DepthEncoderConfig | None = None,
        encoder_queue_maxsize: int = 30,
        encoder_threads: int | None = None,
        *,
        encoder_overflow: str = "wait",
        **unused: Any,
    ) -> "LeRobotDataset":
        """An existing dataset on this machine, opened to record more episodes; new episodes go to new files.

        What an interrupted recording left is put in order. Keywords that change nothing are accepted.

        Raises:
            DatasetError: there is no such dataset, it is damaged, or another process writes it.
        """
        unknown = set(unused) - UNUSED_IN_RESUME
        if unknown:
            raise DatasetError(f"resume() does not know {', '.join(sorted(unknown))}.")
        meta = LeRobotDatasetMetadata(repo_id, root)
        meta.check_writable()
        if meta.location.revision is not None and root is None:
            raise DatasetError(
                f"{repo_id!r} is only in the download cache, which is not changed. Copy it to a folder and "
                "give root."
            )
        writer = EpisodeWriter.for_existing(
            meta,
            rgb_encoder=rgb_encoder,
            depth_encoder=depth_encoder,
            queue_size=encoder_queue_maxsize,
            overflow=encoder_overflow,
            encoder_threads=encoder_threads,
            picture_threads=image_writer_threads,
        )
        self = cls._recording(meta, writer, tolerance_s)
        meta.location.need(needed_files(meta, episode_numbers(meta, None), videos=meta.video_keys))
        return self

    @classmethod
    def _recording(
        cls, meta: LeRobotDatasetMetadata, writer: EpisodeWriter, tolerance_s: float
    ) -> "LeRobotDataset":
        self = cls.__new__(cls)
        self.repo_id, self.revision, self.meta, self.writer = meta.repo_id, meta.revision, meta, writer
        self.episodes, self.image_transforms, self.delta_timestamps = None, None, None
        self.tolerance_s, self.return_uint8, self.depth_output_unit = tolerance_s, False, "mm"
        self.image_sizes, self.cache, self.cache_bytes = None, None, None
        self.skip_cameras = frozenset()
        self._reader = None
        return self

    @property
    def root(self) -> Path:
        """The dataset's folder."""
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
        """Frames in the chosen episodes."""
        if self.episodes is None:
            return self.meta.total_frames
        return int(np.asarray(self.meta.episodes.column("length"))[self.episodes].sum())

    @property
    def num_episodes(self) -> int:
        """Chosen episodes."""
        return self.meta.total_episodes if self.episodes is None else len(self.episodes)

    @property
    def absolute_to_relative_idx(self) -> Mapping[int, int] | None:
        """Frame number in the whole dataset -> item number here; None when all episodes are loaded."""
        if self.episodes is None:
            return None
        columns = self.reader.columns
        return ItemNumbers(columns.starts, columns.lengths)

    @property
    def reader(self) -> FrameReader:
        """Reads this dataset's frames; opened when first needed.

        Raises:
            DatasetError: episodes are being recorded.
        """
        if self.writer is not None and not self.writer.is_finalized:
            raise DatasetError(
                "This dataset is being recorded. Call finalize() before reading frames from it."
            )
        if self._reader is None:
            deltas = frame_deltas(
                self.delta_timestamps or {},
                fps=self.fps,
                tolerance_s=self.tolerance_s,
                known=list(self.features),
            )
            with pointing_to_doctor(self.root):
                self._reader = FrameReader(
                    self.meta,
                    episode_numbers(self.meta, self.episodes),
                    deltas=deltas,
                    tolerance_s=self.tolerance_s,
                    image_transforms=self.image_transforms,
                    return_uint8=self.return_uint8,
                    depth_output_unit=self.depth_output_unit,
                    image_sizes=self.image_sizes,
                    cache=self.cache,
                    cache_bytes=self.cache_bytes,
                    skip_cameras=self.skip_cameras,
                )
        return self._reader

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(range(*index.indices(len(self))))
        return self.__getitems__([int(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Several items at once; their video frames are decoded together."""
        if not len(indices):
            return []
        batch = self.batch(indices)
        columns = [values.unbind() if isinstance(values, Tensor) else values for values in batch.values()]
        return [Item(zip(batch, values, strict=True)) for values in zip(*columns, strict=True)]

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(len(self)))

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """Items stacked: numbers (B, [T,] ...), pictures (B, [T,] C, H, W), flags (B, T), lists of texts.

        May be called from several threads.
        """
        reader = self.reader
        with pointing_to_doctor(self.root):
            return reader.batch(indices)

    def add_frame(self, frame: dict[str, Any], *, captured_at_s: Captured = None) -> None:
        """Add one frame to the episode being recorded: every declared feature, and "task" (str).

        Accepts lists, arrays, tensors and PIL pictures; pictures (H, W, C) or (C, H, W), uint8 or floats in
        0..1. The caller may reuse its arrays afterwards.

        Args:
            captured_at_s: when it was captured, seconds since 1970: one number, or a number for each camera
                of a dict; what is not given is now. See `meta.capture_times`.

        Raises:
            FrameError: a feature is missing, unknown, or of another shape or type; NaN and infinity are
                refused.
            DatasetError: an encoder failed, or the disk is full.
        """
        self._recorder.add_frame(frame, captured_at_s)

    def save_episode(self) -> None:
        """Make the recorded frames an episode; it is on disk, whole, when this returns.

        Raises:
            DatasetError: there are no frames, a camera could not be encoded, or the disk is full. Nothing
                was saved then. After a full disk the frames are kept: make room and call it again.
        """
        self._reader = None
        self._recorder.save_episode()

    def clear_episode(self) -> None:
        """Throw away the frames of the episode being recorded."""
        self._recorder.clear()

    def clear_episode_buffer(self, delete_images: bool = True) -> None:
        """`clear_episode` under the name that other releases give it; there are no images to keep."""
        self.clear_episode()

    def has_pending_frames(self) -> bool:
        """Whether frames were added since the last episode was saved."""
        return self.writer is not None and self.writer.num_pending > 0

    def finalize(self) -> None:
        """End recording: small files are joined up to the size limits, and frames can be read."""
        if self.writer is not None:
            self.writer.finalize()
            self._reader = None

    def __enter__(self) -> Self:
        """`with LeRobotDataset.create(...) as dataset:` finalizes at the end, also after an error."""
        return self

    def __exit__(self, *error: object) -> None:
        self.finalize()

    def push_to_hub(
        self,
        branch: str | None = None,
        tags: Iterable[str] | None = None,
        license: str = "apache-2.0",
        tag_version: bool = True,
        push_videos: bool = True,
        private: bool | None = None,
        allow_patterns: Iterable[str] | None = None,
        **card_fields: Any,
    ) -> str:
        """Upload the dataset with a card and the tag of its format version; returns the commit's address.

        Raises:
            HubError: the Hub was not reached or refused.
        """
        from lerobot.datasets.publish import publish

        if self.has_pending_frames():
            raise DatasetError("Frames of an episode are not saved. Call save_episode() or clear_episode().")
        self.finalize()
        return publish(
            self.meta,
            branch=branch,
            tags=list(tags or []),
            license=license,
            tag_version=tag_version,
            push_videos=push_videos,
            private=private,
            patterns=allow_patterns,
            card_fields=card_fields,
        )

    @property
    def _recorder(self) -> EpisodeWriter:
        if self.writer is None:
            raise DatasetError(
                "This dataset was opened for reading. Use LeRobotDataset.resume(repo_id, root) to add "
                "episodes."
            )
        return self.writer

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.repo_id!r}, {self.num_episodes} episodes, {self.num_frames} "
            "frames, "
            f"{self.fps} fps)"
        )


def episode_numbers(meta: LeRobotDatasetMetadata, episodes: Sequence[int] | None) -> np.ndarray:
    """The chosen episodes (E,), or all, ascending."""
    return np.arange(meta.total_episodes) if episodes is None else np.array(episodes)
