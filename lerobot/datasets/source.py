"""Which dataset a command reads, and how: the `dataset.*` flags of training and evaluation."""

from dataclasses import dataclass, field
from pathlib import Path

from lerobot.core.config import extra
from lerobot.datasets.transforms.config import ImageTransformsConfig


@dataclass(kw_only=True)
class DatasetConfig:
    """A dataset, the part of it that is used, and how its pictures are read."""

    repo_id: str  # user/name on the Hub, or below the local home of datasets
    repo_type: str = "dataset"  # kind of Hub repository
    root: Path | None = None  # folder that holds the dataset; null looks in the local home, then on the Hub
    episodes: list[int] | None = None  # only these episodes
    image_transforms: ImageTransformsConfig = field(default_factory=ImageTransformsConfig)  # random changes
    revision: str | None = None  # branch, tag or commit on the Hub
    use_imagenet_stats: bool = True  # normalise colour cameras with ImageNet's mean and std
    video_backend: str | None = None  # accepted for old commands; frames are always decoded by PyAV
    return_uint8: bool = False  # kept in files; training always moves uint8 pictures to the device
    depth_output_unit: str = "mm"  # unit of depth cameras, mm or m
    streaming: bool = False  # read while downloading instead of downloading first
    eval_split: float = 0.0  # share of each task's episodes held out for the validation loss
    download_videos: bool = extra(True)  # fetch videos too when the dataset comes from the Hub

    def __post_init__(self) -> None:
        if not 0 <= self.eval_split < 1:
            raise ValueError(
                f"eval_split={self.eval_split}: expected a share from 0 up to, not including, 1."
            )
        if self.depth_output_unit not in ("mm", "m"):
            raise ValueError(f"depth_output_unit={self.depth_output_unit!r}: expected 'mm' or 'm'.")
