"""Cameras from pictures inside the data files to videos, and back.

    image column --decode PNG, TIFF--> frames --encode--> one mp4 per episode --join--> video files
    video files --decode--> frames --PNG, TIFF--> image column

Shapes: T frames of an episode, C H W picture.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core.errors import DatasetError
from lerobot.datasets import images
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig, VideoEncoderConfig
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.depth import DepthScale, unit_of
from lerobot.datasets.edit.change import Change
from lerobot.datasets.edit.copying import Copy, all_episodes, check_episodes
from lerobot.datasets.edit.encoding import decode_segment
from lerobot.datasets.edit.target import Target, new_target
from lerobot.datasets.edit.videos import source_segments
from lerobot.datasets.encoder import encode_frames
from lerobot.datasets.encoder_info import probe_info
from lerobot.datasets.join import Segment
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import IMAGE_TYPE, is_depth

WAITING_PER_WORKER = 2  # episodes whose pictures are in memory, per thread


def convert_image_to_video_dataset(
    dataset: LeRobotDataset,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
    rgb_encoder: RGBEncoderConfig | None = None,
    depth_encoder: DepthEncoderConfig | None = None,
    episode_indices: list[int] | None = None,
    num_workers: int = 4,
    max_episodes_per_batch: int | None = None,
    max_frames_per_batch: int | None = None,
) -> LeRobotDataset:
    """A new dataset whose cameras are videos; tasks, statistics and everything else come along.

    Args:
        episode_indices: only these episodes; all by default.
        num_workers: episodes that are encoded at the same time.
        max_episodes_per_batch: accepted; an episode's pictures leave memory as soon as it is encoded.
        max_frames_per_batch: accepted, for the same reason without effect.

    Raises:
        DatasetError: there are no cameras stored as pictures, or the output folder exists.
    """
    return plan_image_to_video(
        dataset.meta,
        target=new_target(repo_id or f"{dataset.repo_id}_video", output_dir),
        rgb_encoder=rgb_encoder,
        depth_encoder=depth_encoder,
        episodes=episode_indices,
        num_workers=num_workers,
    ).run()


def convert_video_to_image_dataset(
    dataset: LeRobotDataset,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
    episode_indices: list[int] | None = None,
) -> LeRobotDataset:
    """A new dataset whose cameras are pictures inside the data files, each as the video shows it.

    Raises:
        DatasetError: there are no videos, or the output folder exists.
    """
    target = new_target(repo_id or f"{dataset.repo_id}_image", output_dir)
    return plan_video_to_image(dataset.meta, target=target, episodes=episode_indices).run()


def plan_image_to_video(
    meta: LeRobotDatasetMetadata,
    *,
    target: Target,
    rgb_encoder: RGBEncoderConfig | None = None,
    depth_encoder: DepthEncoderConfig | None = None,
    episodes: Sequence[int] | None = None,
    num_workers: int = 4,
) -> Copy:
    """The copy whose cameras are videos."""
    if not meta.image_keys:
        raise DatasetError(f"{meta.repo_id!r} has no camera that is stored as pictures.")
    rgb, depth = rgb_encoder or RGBEncoderConfig(), depth_encoder or DepthEncoderConfig()
    encoders: dict[str, VideoEncoderConfig] = {
        key: depth if is_depth(meta.features[key]) else rgb for key in meta.image_keys
    }
    features = {
        name: {**feature, "dtype": "video"} if name in encoders else feature
        for name, feature in meta.features.items()
    }
    picks = _picks(meta, episodes)
    copy = Copy(target=target, picks=picks, features=features, stats=meta.stats if episodes is None else None)
    copy.change = ToVideo(encoders, copy.features, fps=meta.fps, num_workers=num_workers)
    return copy


def plan_video_to_image(
    meta: LeRobotDatasetMetadata, *, target: Target, episodes: Sequence[int] | None = None
) -> Copy:
    """The copy whose cameras are pictures."""
    if not meta.video_keys:
        raise DatasetError(f"{meta.repo_id!r} has no camera that is stored as video.")
    picks = _picks(meta, episodes)
    features = {name: _as_image(feature) for name, feature in meta.features.items()}
    change = ToImage({key: source_segments(picks, key) for key in meta.video_keys}, meta.features)
    stats = meta.stats if episodes is None else None
    return Copy(target=target, picks=picks, features=features, change=change, stats=stats)


def _picks(meta: LeRobotDatasetMetadata, episodes: Sequence[int] | None) -> list[Any]:
    if episodes is None:
        return all_episodes(meta)
    return [(meta, episode) for episode in check_episodes(meta, episodes)]


def _as_image(feature: dict) -> dict:
    """A camera's declaration without what only videos have."""
    if feature["dtype"] != "video":
        return feature
    info = feature.get("info") or {}
    kept = {
        key: value for key, value in info.items() if not key.startswith(("video.", "has_audio", "audio."))
    }
    kept |= {"is_depth_map": True} if is_depth(feature) else {}
    plain = {key: value for key, value in feature.items() if key not in ("info", "video_info")}
    return {**plain, "dtype": "image", **({"info": kept} if kept else {})}


class ToVideo(Change):
    """Pictures of each episode are encoded by a few threads while further rows are copied."""

    def __init__(
        self,
        encoders: dict[str, VideoEncoderConfig],
        features: dict[str, dict],
        *,
        fps: float,
        num_workers: int,
    ) -> None:
        self.encoders, self.features, self.fps = encoders, features, fps
        self.makes_videos = tuple(encoders)
        self.num_workers = max(1, num_workers)
        self.made: dict[str, list[Future]] = {key: [] for key in encoders}

    def start(self, work: Path) -> None:
        """Threads wait for episodes."""
        self.work = work
        self.pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="encode")

    def rows(self, k: int, table: pa.Table) -> pa.Table:
        """The rows without pictures, which are being encoded."""
        for key in self.encoders:
            waiting = [future for future in self.made[key] if not future.done()]
            if len(waiting) >= WAITING_PER_WORKER * self.num_workers:
                waiting[0].result()
            cells = table.column(key)
            if k == 0:
                self._note_unit(key, cells)
            self.made[key].append(self.pool.submit(self._encode, k, key, cells))
        return table.drop_columns(list(self.encoders))

    def _note_unit(self, key: str, cells: pa.ChunkedArray) -> None:
        info = {**(self.features[key].get("info") or {}), "is_depth_map": is_depth(self.features[key])}
        if is_depth(self.features[key]):
            first = next(_decoded(cells.slice(0, 1), where=key, depth=True))
            info.setdefault("depth_unit", unit_of(first.dtype))
        self.features[key]["info"] = info

    def _encode(self, k: int, key: str, cells: pa.ChunkedArray) -> Segment:
        out, config = self.work / f"{key}-{k}.mp4", self.encoders[key]
        pictures = _decoded(cells, where=f"episode {k}, {key}", depth=is_depth(self.features[key]))
        if isinstance(config, DepthEncoderConfig):
            scale = DepthScale(
                depth_min=config.depth_min,
                depth_max=config.depth_max,
                shift=config.shift,
                use_log=config.use_log,
            )
            pictures = (scale.quantize(picture[0]) for picture in pictures)
        encode_frames(pictures, out, fps=self.fps, config=config)
        return Segment(path=out, start=0, length=len(cells))

    def segments(self, key: str) -> list[Segment]:
        """The encoded episodes; what info.json says about the camera is noted."""
        found = [future.result() for future in self.made[key]]
        self.features[key]["info"] |= probe_info(found[0].path, self.encoders[key])
        return found

    def stop(self) -> None:
        """No thread is left behind."""
        self.pool.shutdown(cancel_futures=True)

    def lines(self) -> list[str]:
        """What is encoded."""
        return [f"encodes the pictures of {key!r} with {one.codec}" for key, one in self.encoders.items()]


def _decoded(cells: pa.ChunkedArray, *, where: str, depth: bool) -> Iterator[np.ndarray]:
    """Pictures (C, H, W) of image cells."""
    for cell in cells:
        yield images.decode(cell["bytes"].as_py(), where=where, is_depth=depth)


class ToImage(Change):
    """Frames of each episode are decoded and become a column of pictures."""

    def __init__(self, videos: dict[str, list[Segment]], features: dict[str, dict]) -> None:
        self.videos, self.features = videos, features

    def rows(self, k: int, table: pa.Table) -> pa.Table:
        """The rows with a column of pictures per camera."""
        for key, segments in self.videos.items():
            has_depth = is_depth(self.features[key])
            cells = [
                {"bytes": images.encode(picture), "path": images.file_name(i, is_depth=has_depth)}
                for i, picture in enumerate(self._pictures(key, segments[k]))
            ]
            table = table.append_column(key, pa.array(cells, IMAGE_TYPE))
        return table

    def _pictures(self, key: str, segment: Segment) -> Iterator[np.ndarray]:
        """(C, H, W): colour uint8, depth in the unit it was recorded in."""
        info, convert = self.features[key].get("info") or {}, FrameConverter()
        if not is_depth(self.features[key]):
            for frame in decode_segment(segment):
                yield convert(frame, "rgb24").to_ndarray().transpose(2, 0, 1)
            return
        scale, unit = DepthScale.from_info(info, name=key), info.get("depth_unit") or "mm"
        for frame in decode_segment(segment):
            depth = scale.dequantize(convert(frame, "gray12le").to_ndarray(), unit=unit)
            yield depth.astype(np.uint16 if unit == "mm" else np.float32)[None]

    def lines(self) -> list[str]:
        """What is decoded."""
        return [f"decodes the videos of {key!r} into pictures" for key in self.videos]
