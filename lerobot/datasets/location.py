"""Where a dataset is: the folder that was given, the local home, or a snapshot from the Hub, in this order.

root given                -> root, filled from the Hub if it holds no dataset
$HF_LEROBOT_HOME/<id>     -> used when it holds a dataset
$HF_LEROBOT_HOME/hub      -> snapshot of the wanted revision, only the files that are needed
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lerobot.core import hub, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.legacy.view import is_sharded

logger = logging.getLogger(__name__)

META_PATTERN = "meta/*"
DOWNLOAD_MARK = ".cache/huggingface/download"  # in a folder that files were downloaded straight into
DATASET_PARTS = ("meta", "data", "videos")
MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Location:
    """A dataset's folder, and the Hub revision that missing files come from (None: a local dataset)."""

    root: Path
    repo_id: str
    revision: str | None = None
    token: str | None = None

    @classmethod
    def find(
        cls, repo_id: str, *, root: str | Path | None, revision: str, force: bool, token: str | None = None
    ) -> "Location":
        """The folder that holds the dataset's `meta/`, downloaded if it must be.

        Raises:
            DatasetError: it is nowhere; names every place, and what the Hub answered.
        """
        folder = Path(root).expanduser() if root is not None else hub.lerobot_home() / repo_id
        is_download = (folder / DOWNLOAD_MARK).exists()
        is_usable = root is not None or not is_download or hub.is_offline()
        if holds_dataset(folder) and not force and is_usable:
            commit = downloaded_commit(folder) if root is not None else None
            return cls(root=folder, repo_id=repo_id, revision=commit, token=token)
        if not force and not is_download:
            check_not_broken(folder)
        try:
            return cls._download_meta(repo_id, root=root, revision=revision, force=force, token=token)
        except hub.HubError as error:
            here = f"{folder} {f'holds no {keys.INFO_FILE}' if folder.is_dir() else 'does not exist'}"
            cache = f", {hub.dataset_cache()} has no snapshot of it" if root is None else ""
            raise DatasetError(
                f"Dataset {repo_id!r} was not found: {here}{cache}; the Hub: {error} Give the folder that "
                f"holds {keys.INFO_FILE} with --dataset.root=FOLDER, or check the name."
            ) from error

    @classmethod
    def _download_meta(
        cls, repo_id: str, *, root: str | Path | None, revision: str, force: bool, token: str | None
    ) -> "Location":
        repo = hub.Repo(repo_id=repo_id, repo_type="dataset", token=token)
        folder = Path(root).expanduser() if root is not None else None
        cache, wanted = hub.dataset_cache(), revision
        if hub.parse_version(wanted):
            revision = hub.choose_version(versions(repo, cache, is_cached=folder is None), wanted)

        def fetch(*patterns: str) -> Path:
            return repo.snapshot(
                revision=revision, patterns=patterns, cache=cache, folder=folder, force=force
            )

        found = fetch(META_PATTERN)
        if not holds_dataset(found):
            raise hub.HubError(f"{repo_id!r} at revision {revision!r} has no {keys.INFO_FILE}.")
        if is_sharded(found):  # where its episodes lie is only found in the shards themselves
            fetch(META_PATTERN, "data/*", "videos/*")
        if revision != wanted and (hub.parse_version(revision) or (3,)) < (3,):
            logger.info("%s has no %s on the Hub; its %s is read as it is.", repo_id, wanted, revision)
        return cls(root=found, repo_id=repo_id, revision=revision, token=token)

    def need(self, names: Iterable[Path], *, force: bool = False) -> None:
        """Return when these files, relative to the root, are there.

        Raises:
            DatasetError: some are missing and cannot be downloaded.
        """
        names = list(dict.fromkeys(names))
        missing = names if force else [name for name in names if not (self.root / name).is_file()]
        if not missing:
            return
        if self.revision is None:
            raise DatasetError(
                f"{self._missing_text(missing)}Load it with force_cache_sync=True to download them, or type: "
                f"lerobot-doctor {self.root}"
            )
        repo = hub.Repo(repo_id=self.repo_id, repo_type="dataset", token=self.token)
        is_cached = self.root.is_relative_to(hub.dataset_cache())
        try:
            repo.snapshot(
                revision=self.root.name
                if is_cached
                else self.revision,  # the very commit that meta/ came from
                patterns=[name.as_posix() for name in missing],
                cache=hub.dataset_cache(),
                folder=None if is_cached else self.root,
                force=force,
            )
        except hub.HubError as error:
            raise DatasetError(f"{self._missing_text(missing)}{error}") from error
        still = [name for name in missing if not (self.root / name).is_file()]
        if still:
            raise DatasetError(f"{self._missing_text(still)}The Hub does not have them either.")

    def _missing_text(self, missing: list[Path]) -> str:
        named = "".join(f"\n  {name}" for name in missing[:MAX_NAMED])
        more = f"\n  and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        return f"{len(missing)} files of dataset {self.repo_id!r} are missing in {self.root}:{named}{more}\n"


def holds_dataset(folder: Path) -> bool:
    """Whether the folder has a dataset's meta/info.json."""
    return (folder / keys.INFO_FILE).is_file()


def versions(repo: hub.Repo, cache: Path, *, is_cached: bool) -> list[str]:
    """Branches and tags of a repository, of its snapshots on this machine where the Hub does not answer.

    Raises:
        HubError: the Hub does not answer and there are none, or it refuses.
    """
    cached = repo.cached_versions(cache) if is_cached else []
    if hub.is_offline() and cached:
        return cached
    try:
        return repo.versions()
    except hub.HubError as error:
        if not (error.is_unreachable and cached):
            raise
        logger.warning("%s The snapshot of %s on this machine is read.", error, repo.repo_id)
        return cached


def check_not_broken(folder: Path) -> None:
    """Return unless parts of a dataset are here without what says how to read them.

    Raises:
        DatasetError: meta/info.json is missing and meta/, data/ or videos/ are not; the Hub has no say in it.
    """
    if holds_dataset(folder):
        return
    parts = [f"{name}/" for name in DATASET_PARTS if (folder / name).is_dir()]
    if parts:
        raise DatasetError(
            f"{folder} holds {' and '.join(parts)} but no {keys.INFO_FILE}, so it cannot be read. Type: "
            f"lerobot-doctor {folder}   or load it with force_cache_sync=True to download it from the Hub."
        )


def downloaded_commit(folder: Path) -> str | None:
    """The commit that a folder's meta/info.json was downloaded from; None for a dataset made here."""
    note = folder / DOWNLOAD_MARK / f"{keys.INFO_FILE}.metadata"
    first = note.read_text(encoding="utf-8").partition("\n")[0].strip() if note.is_file() else ""
    return first if len(first) == 40 else None
