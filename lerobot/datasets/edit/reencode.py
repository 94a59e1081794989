"""A dataset whose videos are encoded anew, frame by frame at the same times."""

from pathlib import Path

from lerobot.core.errors import DatasetError
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import Copy, all_episodes
from lerobot.datasets.edit.target import Target, in_place, new_target
from lerobot.datasets.encoder_info import with_stored_scale
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import is_depth


def reencode_dataset(
    dataset: LeRobotDataset,
    rgb_encoder: RGBEncoderConfig | None = None,
    depth_encoder: DepthEncoderConfig | None = None,
    encoder_threads: int | None = None,
    num_workers: int | None = None,
    *,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """The dataset with videos in another encoding.

    Without `output_dir` and `repo_id` it takes the dataset's place, which is kept as `<folder>_old`. Every
    episode begins with a key frame afterwards; depth keeps its scale.

    Args:
        num_workers: threads that encode.

    Raises:
        DatasetError: there is no video, or encoding failed; nothing is replaced then.
    """
    is_new = output_dir is not None or repo_id is not None
    target = (
        new_target(repo_id or f"{dataset.repo_id}_reencoded", output_dir)
        if is_new
        else in_place(dataset.meta)
    )
    return plan_reencode(
        dataset.meta,
        target=target,
        rgb_encoder=rgb_encoder,
        depth_encoder=depth_encoder,
        encoder_threads=encoder_threads,
        num_workers=num_workers or 0,
    ).run()


def plan_reencode(
    meta: LeRobotDatasetMetadata,
    *,
    target: Target,
    rgb_encoder: RGBEncoderConfig | None = None,
    depth_encoder: DepthEncoderConfig | None = None,
    encoder_threads: int | None = None,
    num_workers: int = 0,
) -> Copy:
    """The copy whose videos are encoded anew, each episode by itself."""
    if not meta.video_keys:
        raise DatasetError(f"{meta.repo_id!r} has no videos to encode again.")
    rgb, depth = rgb_encoder or RGBEncoderConfig(), depth_encoder or DepthEncoderConfig()
    encoders = {
        key: with_stored_scale(depth if is_depth(meta.features[key]) else rgb, meta.features[key])
        for key in meta.video_keys
    }
    return Copy(
        target=target,
        picks=all_episodes(meta),
        features=meta.features,
        stats=meta.stats,
        encoders=encoders,
        num_workers=num_workers,
        encoder_threads=encoder_threads,
    )
