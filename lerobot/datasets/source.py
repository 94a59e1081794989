"""Which datasets a command reads, and how: the `dataset.*` flags of training and evaluation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lerobot.core.config import extra
from lerobot.datasets.config import CACHE_BYTES
from lerobot.datasets.transforms.config import ImageTransformsConfig


@dataclass(kw_only=True)
class DatasetConfig:
    """A dataset or several, the part that is used, and how pictures are read."""

    repo_id: (
        str | list[str]
    )  # user/name on the Hub, or below the local home of datasets; [a, b] mixes several, [] is none
    repo_type: str = "dataset"  # kind of Hub repository
    root: Path | list[Path] | None = (
        None  # the dataset's folder, or one per dataset; null looks in the local home, then on the Hub
    )
    episodes: list[int] | None = None  # only these episodes
    image_transforms: ImageTransformsConfig = field(default_factory=ImageTransformsConfig)  # random changes
    revision: str | None = None  # branch, tag or commit on the Hub
    use_imagenet_stats: bool = True  # normalise colour cameras with ImageNet's mean and std
    video_backend: str | None = None  # accepted for old commands; frames are always decoded by PyAV
    return_uint8: bool = False  # kept in files; training always moves uint8 pictures to the device
    depth_output_unit: str = "mm"  # unit of depth cameras, mm or m
    streaming: bool = False  # read what is needed while training instead of downloading first
    eval_split: float = 0.0  # share of each task's episodes held out for the validation loss
    download_videos: bool = extra(True)  # fetch videos too when the dataset comes from the Hub
    tasks: list[str] | None = extra(None)  # only episodes with one of these task texts
    eval_split_seed: int | None = extra(None)  # which episodes are held out; null takes each task's last ones
    buffer_size: int = extra(1000)  # frames among which a streamed one is picked; they take memory
    cache: Literal["ram", "disk"] | None = extra(None)  # keep decoded pictures after their first use
    cache_bytes: int = extra(CACHE_BYTES)  # most bytes of decoded pictures that are kept
    weights: list[float] | None = extra(None)  # share of each dataset in a mixture; null follows their sizes
    stats: Literal["merged", "per_dataset"] = extra("merged")  # what a mixture's numbers are normalised with
    feature_map: dict[str, dict[str, str | None]] = extra(
        factory=dict
    )  # dataset: {its feature: name in the mixture, or null to leave it out}

    def __post_init__(self) -> None:
        if not 0 <= self.eval_split < 1:
            raise ValueError(
                f"eval_split={self.eval_split}: expected a share from 0 up to, not including, 1."
            )
        if self.depth_output_unit not in ("mm", "m"):
            raise ValueError(f"depth_output_unit={self.depth_output_unit!r}: expected 'mm' or 'm'.")
        if self.buffer_size < 1:
            raise ValueError(f"buffer_size={self.buffer_size}: expected at least 1.")
        if self.streaming and (len(self.names) > 1 or self.feature_map or self.cache):
            what = "cache" if self.cache else "feature_map" if self.feature_map else "several datasets"
            raise ValueError(f"streaming=true and {what}: one dataset is streamed as it is, without a cache.")
        if self.cache_bytes < 1:
            raise ValueError(f"cache_bytes={self.cache_bytes}: expected at least 1.")
        self._check_mixture()

    def _check_mixture(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise ValueError(f"repo_id={names}: expected names, each once.")
        if self.root is not None and len(self.roots) != len(names):
            raise ValueError(f"root={self.roots}: expected one folder per dataset, {len(names)} of them.")
        if self.weights is not None and (
            len(self.weights) != len(names) or not all(weight > 0 for weight in self.weights)
        ):
            raise ValueError(f"weights={self.weights}: expected {len(names)} numbers greater than 0.")
        if len(names) > 1 and self.episodes is not None:
            raise ValueError("episodes chooses from one dataset; with several, choose by tasks.")
        strangers = [name for name in self.feature_map if name not in names]
        if strangers:
            raise ValueError(f"feature_map names {strangers[0]!r}; the datasets are {', '.join(names)}.")

    @property
    def names(self) -> list[str]:
        """The datasets' names, in order; one of them is the common case."""
        return [self.repo_id] if isinstance(self.repo_id, str) else list(self.repo_id)

    @property
    def roots(self) -> list[Path | None]:
        """Each dataset's folder, where it was given."""
        if isinstance(self.root, list):
            return list(self.root)
        return [self.root] if self.root is not None else [None] * len(self.names)

    @property
    def label(self) -> str:
        """The names in one text."""
        return " + ".join(self.names) or "nothing recorded"
