"""The operations of `lerobot-edit-dataset`: what each is told, and the jobs it makes of it.

--operation.type=NAME --operation.FIELD=...  ->  config  --jobs(request)-->  [job, ...]  ->  lines() or run()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lerobot.core.errors import ConfigError
from lerobot.core.registry import Choice
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig

if TYPE_CHECKING:
    from lerobot.datasets.dataset import LeRobotDataset
    from lerobot.datasets.edit.change import Tell
    from lerobot.datasets.edit.request import Request

Reencode = Literal["never", "allowed"]


class Job(Protocol):
    """One dataset that is going to be made."""

    @property
    def total(self) -> int:
        """Frames, as progress is counted; everything is planned once it is known. 0: nothing to do."""

    def lines(self) -> list[str]:
        """What it will do."""

    def run(self, tell: Tell) -> LeRobotDataset | None:
        """Do it; None when there was only something to say."""


@dataclass(kw_only=True)
class OperationConfig(Choice, package="lerobot.datasets.edit.operations"):
    """One edit."""

    def jobs(self, request: Request) -> list[Job]:
        """The datasets that are made, planned and checked; nothing is written yet."""
        raise NotImplementedError


@OperationConfig.register_subclass("delete_episodes")
@dataclass(kw_only=True)
class DeleteEpisodesConfig(OperationConfig):
    """A dataset without some of its episodes."""

    episode_indices: list[int]  # the episodes that go, such as [0, 5]
    reencode: Reencode = "never"  # allowed: encode just those episodes that cannot be cut at key frames

    def jobs(self, request: Request) -> list[Job]:
        """One dataset without the episodes."""
        from lerobot.datasets.edit.delete import plan_delete

        meta = request.source()
        options = {"may_encode": self.reencode == "allowed"}
        return [plan_delete(meta, self.episode_indices, target=request.target(meta), **options)]


@OperationConfig.register_subclass("split")
@dataclass(kw_only=True)
class SplitConfig(OperationConfig):
    """Several datasets made of one."""

    splits: dict[str, float | list[int]]  # {train: 0.9, val: 0.1}, or episodes: {train: [0, 1], val: [2]}
    reencode: Reencode = "never"  # allowed: encode just those episodes that cannot be cut at key frames

    def jobs(self, request: Request) -> list[Job]:
        """A dataset `<repo_id>_<name>` per split."""
        from lerobot.datasets.edit.split import plan_split

        options = {"may_encode": self.reencode == "allowed"}
        return [*plan_split(request.source(), self.splits, request.new_root, **options).values()]


@OperationConfig.register_subclass("merge")
@dataclass(kw_only=True)
class MergeConfig(OperationConfig):
    """One dataset made of several."""

    repo_ids: list[str]  # the datasets, in the order their episodes will have
    roots: list[Path] | None = None  # their folders, when they are not in the local home of datasets
    concatenate_videos: bool = True  # put videos of several files into one, up to the size limit
    concatenate_data: bool = True  # the same for rows
    reencode: Reencode = "never"  # allowed: encode just those episodes that cannot be cut at key frames

    def __post_init__(self) -> None:
        if not self.repo_ids:
            raise ConfigError("--operation.repo_ids is empty; name at least one dataset.")
        if self.roots is not None and len(self.roots) != len(self.repo_ids):
            raise ConfigError(
                f"--operation.roots has {len(self.roots)} folders for {len(self.repo_ids)} repo_ids."
            )

    def jobs(self, request: Request) -> list[Job]:
        """One dataset under the new name."""
        from lerobot.datasets.edit.merge import plan_merge

        if request.new_repo_id is None:
            raise ConfigError("--new_repo_id must be given: the name of the merged dataset.")
        roots: Sequence[Path | None] = self.roots or [None] * len(self.repo_ids)
        metas = [request.open(name, root) for name, root in zip(self.repo_ids, roots, strict=True)]
        return [
            plan_merge(
                metas,
                target=request.new_target(request.new_repo_id),
                joins_videos=self.concatenate_videos,
                joins_data=self.concatenate_data,
                may_encode=self.reencode == "allowed",
            )
        ]


@OperationConfig.register_subclass("remove_feature")
@dataclass(kw_only=True)
class RemoveFeatureConfig(OperationConfig):
    """A dataset without some of its features."""

    feature_names: list[str] | str  # columns or cameras that go

    def jobs(self, request: Request) -> list[Job]:
        """One dataset without them."""
        from lerobot.datasets.edit.features import plan_features

        meta = request.source()
        return [plan_features(meta, target=request.target(meta), remove=self.feature_names)]


@OperationConfig.register_subclass("add_feature")
@dataclass(kw_only=True)
class AddFeatureConfig(OperationConfig):
    """A dataset with further columns."""

    features: dict[str, Any]  # {NAME: {dtype, shape, names, and file: F.npy or F.parquet, or value: V}}

    def jobs(self, request: Request) -> list[Job]:
        """One dataset with them."""
        from lerobot.datasets.edit.features import plan_features
        from lerobot.datasets.edit.values import read_features

        meta = request.source()
        add = read_features(self.features, num_frames=meta.total_frames)
        return [plan_features(meta, target=request.target(meta), add=add)]


@OperationConfig.register_subclass("rename_feature")
@dataclass(kw_only=True)
class RenameFeatureConfig(OperationConfig):
    """A dataset whose features are called otherwise."""

    names: dict[str, str]  # {OLD: NEW}

    def jobs(self, request: Request) -> list[Job]:
        """One dataset with the new names."""
        from lerobot.datasets.edit.features import plan_rename

        meta = request.source()
        return [plan_rename(meta, self.names, target=request.target(meta))]


@OperationConfig.register_subclass("modify_tasks")
@dataclass(kw_only=True)
class ModifyTasksConfig(OperationConfig):
    """A dataset whose episodes have other tasks."""

    new_task: str | None = None  # task of every frame that the other two say nothing about
    episode_tasks: dict[int, str] | None = None  # {EPISODE: task}; counts most
    task_replacements: dict[str, str] | None = None  # {task that is there: new text}

    def jobs(self, request: Request) -> list[Job]:
        """One dataset with the new tasks."""
        from lerobot.datasets.edit.tasks import plan_tasks

        meta = request.source()
        return [
            plan_tasks(
                meta,
                target=request.target(meta),
                new_task=self.new_task,
                episode_tasks=self.episode_tasks,
                task_replacements=self.task_replacements,
            )
        ]


@OperationConfig.register_subclass("convert_image_to_video")
@dataclass(kw_only=True)
class ConvertImageToVideoConfig(OperationConfig):
    """A dataset whose cameras are videos instead of pictures."""

    output_dir: Path | None = None  # older spelling of --new_root
    rgb_encoder: RGBEncoderConfig = field(default_factory=RGBEncoderConfig)  # for colour cameras
    depth_encoder: DepthEncoderConfig = field(default_factory=DepthEncoderConfig)  # for depth cameras
    episode_indices: list[int] | None = None  # only these episodes
    num_workers: int = 4  # episodes that are encoded at the same time
    max_episodes_per_batch: int | None = None  # no effect: an episode leaves memory when it is encoded
    max_frames_per_batch: int | None = None  # no effect, for the same reason

    def jobs(self, request: Request) -> list[Job]:
        """One dataset, by default `<repo_id>_video`."""
        from lerobot.datasets.edit.pictures import plan_image_to_video

        meta = request.source()
        return [
            plan_image_to_video(
                meta,
                target=request.target(meta, suffix="_video", root=self.output_dir),
                rgb_encoder=self.rgb_encoder,
                depth_encoder=self.depth_encoder,
                episodes=self.episode_indices,
                num_workers=self.num_workers,
            )
        ]


@OperationConfig.register_subclass("convert_video_to_image")
@dataclass(kw_only=True)
class ConvertVideoToImageConfig(OperationConfig):
    """A dataset whose cameras are pictures instead of videos."""

    episode_indices: list[int] | None = None  # only these episodes

    def jobs(self, request: Request) -> list[Job]:
        """One dataset, by default `<repo_id>_image`."""
        from lerobot.datasets.edit.pictures import plan_video_to_image

        meta = request.source()
        target = request.target(meta, suffix="_image")
        return [plan_video_to_image(meta, target=target, episodes=self.episode_indices)]


@OperationConfig.register_subclass("reencode_videos")
@dataclass(kw_only=True)
class ReencodeVideosConfig(OperationConfig):
    """A dataset whose videos are encoded anew, frame by frame at the same times."""

    rgb_encoder: RGBEncoderConfig = field(default_factory=RGBEncoderConfig)  # for colour cameras
    depth_encoder: DepthEncoderConfig = field(default_factory=DepthEncoderConfig)  # for depth; scale stays
    num_workers: int = 0  # episodes that are encoded at the same time; 0 is one
    encoder_threads: int | None = None  # threads of one encoder; null leaves it to the codec
    overwrite: bool = False  # in place; the original is kept as <folder>_old

    def jobs(self, request: Request) -> list[Job]:
        """One dataset, by default `<repo_id>_reencoded`."""
        from lerobot.datasets.edit.reencode import plan_reencode

        meta = request.source()
        return [
            plan_reencode(
                meta,
                target=request.target(meta, suffix=None if self.overwrite else "_reencoded"),
                rgb_encoder=self.rgb_encoder,
                depth_encoder=self.depth_encoder,
                encoder_threads=self.encoder_threads,
                num_workers=self.num_workers,
            )
        ]


@OperationConfig.register_subclass("recompute_stats")
@dataclass(kw_only=True)
class RecomputeStatsConfig(OperationConfig):
    """A dataset with statistics that follow from its data."""

    skip_image_video: bool = True  # cameras keep the statistics they have
    relative_action: bool = False  # statistics of actions relative to the state
    relative_exclude_joints: list[str] | None = None  # joints that stay absolute; null is those of grippers
    chunk_size: int = 50  # frames of a window of relative actions
    num_workers: int = 0  # threads that decode pictures
    overwrite: bool = False  # in place; the original is kept as <folder>_old

    def jobs(self, request: Request) -> list[Job]:
        """One dataset, by default `<repo_id>_recomputed_stats`."""
        from lerobot.datasets.edit.recount import Recount

        meta = request.source()
        options = {
            "skip_image_video": self.skip_image_video,
            "relative_action": self.relative_action,
            "relative_exclude_joints": self.relative_exclude_joints,
            "chunk_size": self.chunk_size,
            "num_workers": self.num_workers,
        }
        target = request.target(meta, suffix=None if self.overwrite else "_recomputed_stats")
        return [Recount(meta, target, options)]


@OperationConfig.register_subclass("repack")
@dataclass(kw_only=True)
class RepackConfig(OperationConfig):
    """A dataset with files of other sizes."""

    data_files_size_in_mb: float | None = None  # MiB; null keeps the dataset's own limit
    video_files_size_in_mb: float | None = None  # MiB; null keeps the dataset's own limit
    reencode: Reencode = "never"  # allowed: encode just those episodes that cannot be cut at key frames

    def jobs(self, request: Request) -> list[Job]:
        """One dataset with files filled up to the sizes."""
        from lerobot.datasets.edit.repack import plan_repack

        meta = request.source()
        return [
            plan_repack(
                meta,
                target=request.target(meta),
                data_files_size_in_mb=self.data_files_size_in_mb,
                video_files_size_in_mb=self.video_files_size_in_mb,
                may_encode=self.reencode == "allowed",
            )
        ]


@OperationConfig.register_subclass("convert")
@dataclass(kw_only=True)
class ConvertConfig(OperationConfig):
    """A dataset in format v2.0 or v2.1 made into v3.0."""

    data_files_size_in_mb: float = 100  # MiB up to which data files are filled
    video_files_size_in_mb: float = 200  # MiB up to which video files are filled

    def jobs(self, request: Request) -> list[Job]:
        """One dataset in format v3.0."""
        from lerobot.datasets.edit.conversion import Conversion

        sizes = {"data_mb": self.data_files_size_in_mb, "video_mb": self.video_files_size_in_mb}
        return [Conversion(request, **sizes)]


@OperationConfig.register_subclass("info")
@dataclass(kw_only=True)
class InfoConfig(OperationConfig):
    """What a dataset is."""

    show_features: bool = False  # also print the table of features

    def jobs(self, request: Request) -> list[Job]:
        """Something to read."""
        from lerobot.datasets.edit.facts import Facts

        return [Facts(request.source(needs_files=False), show_features=self.show_features)]
