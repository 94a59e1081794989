"""The summaries from which a dataset's statistics are made, kept beside them so that they stay exact.

    meta/sketches/dataset.json     all features over the first K episodes; replaced now and then by a rename
    meta/sketches/episodes.jsonl   a line per episode with its cameras; appended before the episode's row

Numbers of an episode are always there to be counted again, in its data file; the pictures that were sampled
are not, so each episode keeps how often each level occurred. Both files are aids that other programs ignore:
whoever finds them missing, or not in step with the episode table, falls back on `aggregate_stats`.
Shapes: T frames of an episode.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core import files, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import tables
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import IMAGE_DTYPES, TEXT_DTYPES, is_depth, is_numeric, numbers
from lerobot.datasets.stats import Stats, picture_stats
from lerobot.datasets.summary import Summary

logger = logging.getLogger(__name__)

Summaries = dict[str, Summary]
EPISODES_PER_SAVE = 64  # an interrupted recording counts at most this many episodes again
UNREADABLE = (OSError, ValueError, KeyError, TypeError)
NOT_ALL = "some episodes have no sketches of them"
RELATIVE = (
    "%s: statistics of actions in meta/stats.json are of relative actions. They will be those of the stored "
    "actions again: run lerobot-edit-dataset --operation.type=recompute_stats "
    "--operation.relative_action=true afterwards."
)


class Ledger:
    """Summaries of the features of one dataset, over all its episodes.

    `totals` lacks the features of which some episode's summary is not known.
    """

    def __init__(self, root: Path, features: dict[str, dict]) -> None:
        self.root, self.features = root, features
        self.totals: Summaries = {}
        self.num_episodes, self.num_frames = 0, 0

    @classmethod
    def open(cls, meta: LeRobotDatasetMetadata) -> "Ledger":
        """The ledger of a dataset as it is on disk, brought up to its last episode."""
        self = cls(meta.root, meta.features)
        if not len(meta.episodes):
            return self
        kept = stored_totals(meta)
        if kept is None:
            tell_approximate(
                meta.root, "it has no sketches", what="what is recorded now", repo_id=meta.repo_id
            )
        else:
            self.totals, self.num_episodes, self.num_frames = kept
            self._catch_up(meta)
            if has_relative_actions(meta):
                logger.warning(RELATIVE, meta.root)
        self.num_episodes, self.num_frames = len(meta.episodes), meta.total_frames
        return self

    def note(self, summaries: Summaries, *, episode: int) -> None:
        """Keep the cameras of an episode whose row is about to be written; durable on return."""
        if not self.num_episodes:  # from now on there are totals to catch up from
            first = Ledger(self.root, self.features)
            first.add(summaries)
            first.save()
        cameras = {
            name: one for name, one in summaries.items() if self.features[name]["dtype"] in IMAGE_DTYPES
        }
        if cameras:
            self._append(_line(episode, cameras))

    def add(self, summaries: Summaries) -> None:
        """Take in the next episode."""
        if self.num_episodes:
            self.totals = {
                name: Summary.merged([total, summaries[name]])
                for name, total in self.totals.items()
                if name in summaries
            }
        else:
            self.totals = dict(summaries)
        self.num_episodes += 1
        self.num_frames += next((one.rows for n, one in summaries.items() if n == keys.INDEX), 0)

    def stats(self) -> Stats:
        """Statistics of the whole dataset, of the features in `totals`."""
        return stats_of(self.totals, self.features)

    def save(self) -> None:
        """Replace meta/sketches/dataset.json durably."""
        if self.totals:
            plain = {
                "episodes": self.num_episodes,
                "frames": self.num_frames,
                "features": {name: one.to_json() for name, one in self.totals.items()},
            }
            path = self.root / keys.SKETCHES_FILE
            files.write_text(path, json.dumps(plain, separators=(",", ":")))

    def _append(self, line: str) -> None:
        path = self.root / keys.EPISODE_SKETCHES_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # the line before was cut off when its recording died
                    file.write(b"\n")
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if not size:
            files.sync_folders(path.parent)

    def _catch_up(self, meta: LeRobotDatasetMetadata) -> None:
        """Take in the episodes that were saved after the file was."""
        known = stored_cameras(meta) if self.num_episodes < len(meta.episodes) else {}
        for episode in range(self.num_episodes, len(meta.episodes)):
            path = meta.root / meta.get_data_file_path(episode)
            row = meta.episodes[episode]
            table = tables.read_parquet(path, [n for n, f in self.features.items() if is_numeric(f)])
            cameras = matching(known.get(episode, []), meta.episodes.stats(episode), self.features)
            self.add(summaries_of(rows_of_episode(table, row), self.features) | cameras)
        lost = without_sketches(self.totals, self.features)
        if lost:
            tell_approximate(meta.root, NOT_ALL, what=", ".join(lost), repo_id=meta.repo_id)


def tell_approximate(root: Path, why: str, *, what: str, repo_id: str) -> None:
    """Log that quantiles of `what` are not exact, and what makes those of `repo_id` exact."""
    logger.warning(
        "%s: %s, so quantiles of %s are count-weighted means of the episodes' quantiles, which is "
        "approximate. Exact ones: lerobot-edit-dataset --repo_id=%s --operation.type=recompute_stats "
        "--operation.skip_image_video=false --operation.overwrite=true",
        root,
        why,
        what,
        repo_id,
    )


def without_sketches(totals: Summaries, features: dict[str, dict]) -> list[str]:
    """The features that ought to have a summary and have none."""
    return [name for name, one in features.items() if one["dtype"] not in TEXT_DTYPES and name not in totals]


def has_relative_actions(meta: LeRobotDatasetMetadata) -> bool:
    """Whether the statistics of actions in meta/stats.json are of windows instead of the stored actions."""
    counted = meta.stats.get(keys.ACTION, {}).get("count")
    behind = meta.stats.get(keys.INDEX, {}).get("count")
    return counted is not None and behind is not None and not np.array_equal(counted, behind)


def stats_of(summaries: Summaries, features: dict[str, dict]) -> Stats:
    """Statistics as they are stored: pictures (C, 1, 1) in 0..1, the rest (D,); in the features' order."""
    found: Stats = {}
    for name, feature in features.items():
        if name in summaries:
            stats, is_camera = summaries[name].stats(), feature["dtype"] in IMAGE_DTYPES
            found[name] = picture_stats(stats, is_colour=not is_depth(feature)) if is_camera else stats
    return found


def summaries_of(table: pa.Table, features: dict[str, dict], *, is_strict: bool = False) -> Summaries:
    """Summaries of the columns of an episode's rows that hold numbers.

    A column with an empty cell, NaN or infinity has none: that is logged, or an error when `is_strict`.

    Raises:
        DatasetError: says which column and row.
    """
    found = {}
    for name, feature in features.items():
        if is_numeric(feature):
            where = f"Feature {name!r}"
            try:
                found[name] = Summary.of_rows(numbers(table.column(name), feature, where=where))
            except DatasetError as error:
                words = str(error) if str(error).startswith(where) else f"{where}: {error}"
                if is_strict:
                    raise DatasetError(words) from error
                logger.warning("%s", words)
    return found


def rows_of_episode(table: pa.Table, row: dict[str, Any]) -> pa.Table:
    """The rows of one episode out of those of its data file.

    Raises:
        DatasetError: they are not all there.
    """
    index = table.column(keys.INDEX).to_numpy()
    start, end = np.searchsorted(index, [row["dataset_from_index"], row["dataset_to_index"]])
    if end - start != row["length"]:
        raise DatasetError(
            f"The data file of episode {row['episode_index']} holds {end - start} of its {row['length']} "
            "frames. lerobot-doctor says what else is wrong with the dataset."
        )
    return table.slice(start, end - start)


def stored_totals(meta: LeRobotDatasetMetadata) -> tuple[Summaries, int, int] | None:
    """Summaries in meta/sketches/dataset.json and how many episodes and frames they cover.

    None when there are none, or not of this dataset as it is now.
    """
    path = meta.root / keys.SKETCHES_FILE
    if not path.is_file():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        episodes, frames = int(plain["episodes"]), int(plain["frames"])
        totals = {name: Summary.from_json(one) for name, one in plain["features"].items()}
    except UNREADABLE as error:
        logger.warning("%s cannot be used (%s); it is passed over.", path, error)
        return None
    lengths = np.asarray(meta.episodes["length"])
    numeric = {name for name, feature in meta.features.items() if is_numeric(feature)}
    if not 0 < episodes <= len(lengths) or lengths[:episodes].sum() != frames or numeric - set(totals):
        logger.warning("%s is not in step with meta/episodes; it is passed over.", path)
        return None
    return {name: one for name, one in totals.items() if name in meta.features}, episodes, frames


def stored_cameras(meta: LeRobotDatasetMetadata) -> dict[int, list[Summaries]]:
    """Summaries of pictures by episode, from meta/sketches/episodes.jsonl; see `matching`."""
    path = meta.root / keys.EPISODE_SKETCHES_FILE
    found: dict[int, list[Summaries]] = {}
    if path.is_file():
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    plain = json.loads(line)
                    cameras = {name: Summary.from_json(one) for name, one in plain["features"].items()}
                    found.setdefault(int(plain["episode"]), []).append(cameras)
                except UNREADABLE as error:
                    logger.warning("%s, line %d cannot be used (%s); it is passed over.", path, number, error)
    return found


def matching(lines: list[Summaries], stats: Stats, features: dict[str, dict]) -> Summaries:
    """Of several lines about one episode, the summaries that belong to its stored statistics.

    There is another line when an episode was lost before its row was written and then recorded anew, or when
    a recomputation was interrupted; none may fit when another program has changed the statistics.
    """
    found: Summaries = {}
    for cameras in lines:
        for name, made in stats_of(cameras, features).items():
            if name in stats and _agree(made, stats[name]):
                found[name] = cameras[name]
    return found


def _agree(made: dict[str, np.ndarray], stored: dict[str, np.ndarray]) -> bool:
    return all(
        stat in stored and np.allclose(np.ravel(made[stat]), np.ravel(stored[stat]), rtol=1e-9, atol=1e-12)
        for stat in ("count", "min", "max", "mean", "std")
    )


def write_cameras(root: Path, episodes: Iterable[tuple[int, Summaries]]) -> None:
    """Replace meta/sketches/episodes.jsonl by lines of these episodes."""
    lines = [_line(episode, cameras) for episode, cameras in episodes if cameras]
    if lines:
        files.write_text(root / keys.EPISODE_SKETCHES_FILE, "".join(lines))


def _line(episode: int, cameras: Summaries) -> str:
    plain = {"episode": episode, "features": {name: one.to_json() for name, one in cameras.items()}}
    return json.dumps(plain, separators=(",", ":")) + "\n"
