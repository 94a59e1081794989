"""What a dataset says about itself: `meta/` of a folder in format v3.0, checked when it is opened.

meta/info.json (schema, counters, paths) + tasks.parquet + episodes/ + stats.json -> LeRobotDatasetMetadata
"""

import json
import logging
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import files, hub, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import capture, config, depth, tables
from lerobot.datasets.damage import pointing_to_doctor
from lerobot.datasets.episodes import EpisodeTable
from lerobot.datasets.legacy.view import open_view, refusal
from lerobot.datasets.location import Location
from lerobot.datasets.schema import declared_features, is_depth
from lerobot.datasets.tables import TaskTable

logger = logging.getLogger(__name__)

CODEBASE_VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
MAX_ATTEMPTS = 20  # at reading a dataset that another process is changing
NEEDED_INFO = ("fps", "features", "total_episodes", "total_frames", "data_path")


class LeRobotDatasetMetadata:
    """Schema, episodes, tasks and statistics of one dataset; frames are read by `LeRobotDataset`.

    Raises:
        DatasetError: nothing is found at the places that are looked at, or files contradict each other.
    """

    episodes: EpisodeTable
    old_layout: str | None = None  # "v2.1" and the like for a dataset that is only read
    missing_columns: tuple[str, ...] = ()  # default columns that its data files lack

    def __init__(
        self,
        repo_id: str,
        root: str | Path | None = None,
        revision: str | None = None,
        force_cache_sync: bool = False,
        *,
        token: str | None = None,
    ) -> None:
        self.repo_id = repo_id
        self.revision = revision or CODEBASE_VERSION
        self.location = Location.find(
            repo_id, root=root, revision=self.revision, force=force_cache_sync, token=token
        )
        with pointing_to_doctor(self.root):
            self.reload()

    @classmethod
    def create(
        cls,
        repo_id: str,
        fps: int,
        features: dict[str, dict],
        robot_type: str | None = None,
        root: str | Path | None = None,
        use_videos: bool = True,
        *,
        chunks_size: int = config.CHUNKS_SIZE,
        data_files_size_in_mb: float = config.DATA_FILES_SIZE_IN_MB,
        video_files_size_in_mb: float = config.VIDEO_FILES_SIZE_IN_MB,
    ) -> "LeRobotDatasetMetadata":
        """A new, empty dataset on disk.

        Raises:
            DatasetError: the folder exists, fps is not positive, or a feature's declaration is not accepted.
        """
        folder = Path(root) if root is not None else hub.lerobot_home() / repo_id
        if folder.exists():
            raise DatasetError(
                f"{folder} exists already. Choose another root, or add episodes to it with "
                "LeRobotDataset.resume()."
            )
        for name, value in (("fps", fps), ("chunks_size", chunks_size)):
            if not value > 0:
                raise DatasetError(f"{name}={value!r}: expected a number greater than 0.")
        table = declared_features(features, use_videos=use_videos)
        has_video = any(feature["dtype"] == "video" for feature in table.values())
        info = {
            "codebase_version": CODEBASE_VERSION,
            "fps": fps,
            "features": table,
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": chunks_size,
            "data_files_size_in_mb": data_files_size_in_mb,
            "video_files_size_in_mb": video_files_size_in_mb,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if has_video else None,
            "robot_type": robot_type,
            "splits": {},
        }
        self = cls.__new__(cls)
        self.repo_id, self.revision = repo_id, CODEBASE_VERSION
        self.info, self.stats = info, {}
        self.tasks, self.episodes = TaskTable([]), EpisodeTable.empty()
        self.is_behind = False
        # The folder appears at once, with its info.json: a process that dies here leaves no half dataset,
        # and of two that create the same dataset one is refused.
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{files.PART_SUFFIX}")
        self.location = Location(root=aside, repo_id=repo_id)
        try:
            self.save_info()
            aside.rename(folder)
            files.sync_folder(folder.parent)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise DatasetError(f"{folder} cannot be made: {error}. Choose another root.") from error
        self.location = Location(root=folder, repo_id=repo_id)
        self._identity = self._info_identity()
        return self

    def reload(self) -> None:
        """Read everything from the folder; once more when a recording adds an episode or ends meanwhile.

        Raises:
            DatasetError: files are missing, damaged or contradict each other.
        """
        for attempt in range(MAX_ATTEMPTS):
            self._identity = self._info_identity()
            try:
                self._load_once()
            except DatasetError:
                if attempt == MAX_ATTEMPTS - 1 or not self.has_changed():
                    raise
            else:
                if not self.has_changed():
                    return

    def has_changed(self) -> bool:
        """Whether somebody has added episodes, or ended a recording, since this was read."""
        return self._info_identity() != self._identity

    def _info_identity(self) -> tuple[int, int] | None:
        """What changes whenever meta/info.json is replaced."""
        try:
            found = (self.root / keys.INFO_FILE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _load_once(self) -> None:
        view = open_view(self.root)
        if view is not None:
            self.old_layout, self.missing_columns = view.layout, view.missing_columns
            self.info = check_info(self.root / keys.INFO_FILE, view.info)
            self.episodes, self.tasks, self.stats = view.episodes, view.tasks, view.stats
        else:
            self.info = load_info(self.root)
            self.episodes = EpisodeTable.load(self.root)
            has_tasks = (self.root / keys.TASKS_FILE).is_file() or self.total_frames > 0
            self.tasks = TaskTable.load(self.root) if has_tasks else TaskTable([])
            self.stats = load_stats(self.root)
        self._trust_episode_table()
        self._check_counts()

    def _trust_episode_table(self) -> None:
        """One episode more in the table than in info.json: a recording stopped between the two writes."""
        self.is_behind = len(self.episodes) == self.total_episodes + 1
        if self.is_behind:
            logger.warning(
                "%s: the last episode was saved but meta/info.json was not updated; it is counted.", self.root
            )
            self.set_totals()

    def _check_counts(self) -> None:
        lengths, starts, ends = (
            np.asarray(self.episodes.column(name), dtype=np.int64)
            for name in ("length", "dataset_from_index", "dataset_to_index")
        )
        if len(self.episodes) != self.total_episodes:
            raise DatasetError(
                f"{self.root / keys.INFO_FILE} counts {self.total_episodes} episodes, meta/episodes holds "
                f"{len(self.episodes)}. If recording was interrupted before finalize(), the missing ones "
                "are lost; "
                "otherwise load with force_cache_sync=True."
            )
        if lengths.sum() != self.total_frames:
            raise DatasetError(
                f"{self.root / keys.INFO_FILE} counts {self.total_frames} frames, "
                f"the episodes in meta/episodes add up to {lengths.sum()}."
            )
        wrong = np.flatnonzero((ends - starts != lengths) | (starts != np.cumsum(lengths) - lengths))
        if len(wrong):
            row = self.episodes[int(wrong[0])]
            raise DatasetError(
                f"{self.root}/meta/episodes: episode {wrong[0]} covers frames {row['dataset_from_index']} to "
                f"{row['dataset_to_index']} and has length {row['length']}; this does not follow the one "
                "before."
            )

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.location.root

    @property
    def fps(self) -> int | float:
        """Frames per second."""
        return self.info["fps"]

    @property
    def features(self) -> dict[str, dict]:
        """Every column: the recorded ones and the five default ones; shapes are tuples."""
        return self.info["features"]

    @property
    def robot_type(self) -> str | None:
        """The robot's name."""
        return self.info.get("robot_type")

    @property
    def total_episodes(self) -> int:
        """Episodes in the whole dataset."""
        return self.info["total_episodes"]

    @property
    def total_frames(self) -> int:
        """Frames in the whole dataset."""
        return self.info["total_frames"]

    @property
    def total_tasks(self) -> int:
        """Different tasks."""
        return self.info.get("total_tasks", len(self.tasks))

    @property
    def video_keys(self) -> list[str]:
        """Cameras stored as video."""
        return [name for name, feature in self.features.items() if feature["dtype"] == "video"]

    @property
    def image_keys(self) -> list[str]:
        """Cameras stored as pictures inside the data files."""
        return [name for name, feature in self.features.items() if feature["dtype"] == "image"]

    @property
    def camera_keys(self) -> list[str]:
        """All cameras."""
        return [name for name, feature in self.features.items() if feature["dtype"] in ("video", "image")]

    @property
    def depth_keys(self) -> list[str]:
        """Cameras that hold distances."""
        return [name for name in self.camera_keys if is_depth(self.features[name])]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Declared shape of every feature; pictures are usually (H, W, C)."""
        return {name: tuple(feature["shape"]) for name, feature in self.features.items()}

    @property
    def names(self) -> dict[str, Any]:
        """Names of the components of every feature."""
        return {name: feature.get("names") for name, feature in self.features.items()}

    @property
    def chunks_size(self) -> int:
        """Files per chunk folder."""
        return self.info.get("chunks_size", config.CHUNKS_SIZE)

    @property
    def data_files_size_in_mb(self) -> float:
        """Size, MiB, past which a new data file is begun."""
        return self.info.get("data_files_size_in_mb", config.DATA_FILES_SIZE_IN_MB)

    @property
    def video_files_size_in_mb(self) -> float:
        """Size, MiB, past which a new video file is begun."""
        return self.info.get("video_files_size_in_mb", config.VIDEO_FILES_SIZE_IN_MB)

    def get_data_file_path(self, ep_index: int) -> Path:
        """The data file of an episode, relative to the root."""
        self.episodes.check(ep_index)
        chunk, file = (self.episodes.columns[f"data/{part}_index"][ep_index] for part in ("chunk", "file"))
        return self.data_file(chunk, file)

    def get_video_file_path(self, ep_index: int, vid_key: str) -> Path:
        """The video file of an episode and camera, relative to the root."""
        self.episodes.check(ep_index)
        columns = [self.episodes.columns.get(f"videos/{vid_key}/{part}_index") for part in ("chunk", "file")]
        chunk, file = (column[ep_index] if column is not None else None for column in columns)
        if chunk is None or file is None:
            raise DatasetError(
                f"{self.root}/meta/episodes does not say where episode {ep_index} of {vid_key!r} is."
            )
        return self.video_file(vid_key, chunk, file)

    def files_of(
        self, episodes: np.ndarray, *, video_key: str | None = None
    ) -> tuple[list[Path], np.ndarray]:
        """The different data files, or video files of one camera, that hold these episodes.

        Returns:
            Paths relative to the root in the order that the episodes (E,) come to them, and for each episode
            (E,) which of them.

        Raises:
            DatasetError: meta/episodes does not say where an episode of the camera is.
        """
        series = "data" if video_key is None else f"videos/{video_key}"
        places = [self._places(f"{series}/{part}_index", episodes) for part in ("chunk", "file")]
        pairs = np.stack(places, axis=1)  # (E, 2)
        _, firsts, which = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(firsts)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        found = [tuple(pair) for pair in pairs[firsts[order]].tolist()]
        paths = [
            self.data_file(*pair) if video_key is None else self.video_file(video_key, *pair)
            for pair in found
        ]
        return paths, rank[which.reshape(-1)]

    def _places(self, name: str, episodes: np.ndarray) -> np.ndarray:
        """Chunk or file numbers (E,) of some episodes."""
        column = self.episodes.columns.get(name)
        values = np.full(len(episodes), None) if column is None else np.asarray(column)[episodes]
        if values.dtype == object:
            missing = [int(e) for e, value in zip(episodes, values, strict=True) if value is None]
            if missing:
                raise DatasetError(
                    f"{self.root}/meta/episodes does not say where episode {missing[0]} is: it lacks {name}."
                )
        return values.astype(np.int64)

    def data_file(self, chunk: int, file: int) -> Path:
        """A data file's path, relative to the root."""
        return Path(self.info["data_path"].format(chunk_index=chunk, file_index=file))

    def video_file(self, key: str, chunk: int, file: int) -> Path:
        """A video file's path, relative to the root."""
        if not self.info.get("video_path"):
            raise DatasetError(
                f"{self.root / keys.INFO_FILE} declares the video {key!r} and has no video_path."
            )
        return Path(self.info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file))

    def use_depth_unit(self, unit: str) -> None:
        """Express the statistics of depth cameras in "mm" or "m"."""
        for name in self.depth_keys:
            stored = (self.features[name].get("info") or {}).get("depth_unit")
            factor = depth.factor(stored, unit)
            if name in self.stats and factor != 1.0:
                self.stats[name] = {k: v if k == "count" else v * factor for k, v in self.stats[name].items()}

    def set_totals(self) -> None:
        """Make the counters of info.json agree with the episode table and the tasks."""
        self.info |= {
            "total_episodes": len(self.episodes),
            "total_frames": int(np.asarray(self.episodes.column("length"), dtype=np.int64).sum()),
            "total_tasks": len(self.tasks),
        }
        if len(self.episodes):
            self.info["splits"] = {"train": f"0:{len(self.episodes)}"}

    def check_writable(self) -> None:
        """Return when this dataset may be changed.

        Raises:
            DatasetError: it is in an older layout; says how to convert it.
        """
        if self.old_layout is not None:
            raise refusal(self.root, self.repo_id, self.old_layout)

    def save_info(self) -> None:
        """Write meta/info.json durably."""
        self.check_writable()
        files.write_json(self.root / keys.INFO_FILE, self._plain_info())

    def save_stats(self) -> None:
        """Write meta/stats.json durably."""
        self.check_writable()
        files.write_json(self.root / keys.STATS_FILE, self._plain_stats())

    def save_counters(self) -> None:
        """Write meta/info.json and meta/stats.json durably, in about the time of one."""
        self.check_writable()
        files.write_jsons(
            {self.root / keys.STATS_FILE: self._plain_stats(), self.root / keys.INFO_FILE: self._plain_info()}
        )

    def _plain_info(self) -> dict[str, Any]:
        shaped = {name: {**one, "shape": list(one["shape"])} for name, one in self.features.items()}
        return {**self.info, "features": shaped}

    def _plain_stats(self) -> dict[str, Any]:
        return {
            name: {stat: np.asarray(v).tolist() for stat, v in one.items()}
            for name, one in self.stats.items()
        }

    def cadence(self, episode: int) -> capture.Cadence:
        """The rate that an episode was really recorded at: fps, worst gap, late and repeated frames.

        Raises:
            DatasetError: the episode was recorded by something that does not keep it.
        """
        return capture.cadence(self.episodes[episode], where=f"Episode {episode} of {self.root}")

    def capture_times(self, episode: int) -> dict[str, np.ndarray]:
        """Seconds since 1970 at which an episode's rows ("", (T,)) and each camera's pictures were captured.

        Empty when they were not kept.
        """
        return capture.times(self.episodes.stored(episode, tables.CAPTURE_PREFIX))

    def repeated_frames(self, episode: int) -> dict[str, np.ndarray]:
        """Per camera, the frames of an episode that show the picture before them again (N,)."""
        return capture.repeated(self.episodes.stored(episode, tables.CAPTURE_PREFIX))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.repo_id!r}, episodes={self.total_episodes}, "
            f"frames={self.total_frames}, "
            f"fps={self.fps}, features={list(self.features)})"
        )


def load_info(root: Path) -> dict[str, Any]:
    """meta/info.json with shapes as tuples; keys that are not known are kept.

    Raises:
        DatasetError: it is not JSON, lacks something, or is of another format version.
    """
    path = root / keys.INFO_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    _check_version(path, str(info.get("codebase_version", "")))
    return check_info(path, info)


def check_info(path: Path, info: dict[str, Any]) -> dict[str, Any]:
    """The contents of meta/info.json with shapes as tuples.

    Raises:
        DatasetError: it lacks something.
    """
    missing = [name for name in NEEDED_INFO if name not in info]
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(missing)}.")
    if not isinstance(info["fps"], (int, float)) or not 0 < info["fps"] < float("inf"):
        raise DatasetError(f"{path}: fps={info['fps']!r}, expected a number greater than 0.")
    for name, feature in info["features"].items():
        if "dtype" not in feature or "shape" not in feature:
            raise DatasetError(f"{path}: feature {name!r} lacks dtype or shape.")
        feature["shape"] = tuple(feature["shape"])
    return info


def _check_version(path: Path, version: str) -> None:
    found, wanted = hub.parse_version(version), hub.parse_version(CODEBASE_VERSION)
    assert wanted is not None
    if found is None:
        raise DatasetError(f"{path}: codebase_version is {version!r}, expected {CODEBASE_VERSION!r}.")
    if found[0] < wanted[0]:
        raise refusal(path.parent.parent, path.parent.parent.name, version)
    if found[0] > wanted[0]:
        raise DatasetError(f"{path.parent.parent} is in the newer format {version}. Install a newer lerobot.")


def load_stats(root: Path) -> dict[str, dict[str, np.ndarray]]:
    """meta/stats.json, every leaf an array of one dimension or more; empty when there is no such file."""
    path = root / keys.STATS_FILE
    if not path.is_file():
        return {}
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    return {
        name: {stat: np.atleast_1d(np.array(v)) for stat, v in one.items()} for name, one in plain.items()
    }
