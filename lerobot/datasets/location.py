"""Where a dataset is: the folder that was given, the local home, or a snapshot from the Hub, in this order.

root given                -> root, filled from the Hub if it holds no dataset
$HF_LEROBOT_HOME/<id>     -> used when it holds a dataset
$HF_LEROBOT_HOME/hub      -> snapshot of the wanted revision, only the files that are needed
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lerobot.core import hub, keys
from lerobot.core.errors import DatasetError

META_PATTERN = "meta/*"
OLD_DOWNLOAD_MARK = ".cache/huggingface/download"  # older releases downloaded straight into the local home
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
        is_old_download = root is None and (folder / OLD_DOWNLOAD_MARK).exists()
        is_usable = not is_old_download or hub.is_offline()
        if holds_dataset(folder) and not force and is_usable:
            return cls(root=folder, repo_id=repo_id)
        looked = [f"{folder} ({'holds no ' + keys.INFO_FILE if folder.is_dir() else 'does not exist'})"]
        if root is None:
            looked.append(f"{hub.dataset_cache()} (snapshots from the Hub)")
        try:
            return cls._download_meta(repo_id, root=root, revision=revision, force=force, token=token)
        except hub.HubError as error:
            places = "".join(f"\n  {place}" for place in looked)
            raise DatasetError(
                f"Dataset {repo_id!r} was not found. Looked at:{places}\n  the Hub: {error}\n"
                "Give the folder that holds meta/info.json with --dataset.root=FOLDER, or check the name."
            ) from error

    @classmethod
    def _download_meta(
        cls, repo_id: str, *, root: str | Path | None, revision: str, force: bool, token: str | None
    ) -> "Location":
        repo = hub.Repo(repo_id=repo_id, repo_type="dataset", token=token)
        if hub.parse_version(revision) and not hub.is_offline():
            revision = hub.choose_version(repo.versions(), revision)
        folder = Path(root).expanduser() if root is not None else None
        cache = hub.dataset_cache()
        found = repo.snapshot(
            revision=revision, patterns=[META_PATTERN], cache=cache, folder=folder, force=force
        )
        if not holds_dataset(found):
            raise hub.HubError(f"{repo_id!r} at revision {revision!r} has no {keys.INFO_FILE}.")
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
                f"{self._missing_text(missing)} Load it with force_cache_sync=True to download them."
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
            raise DatasetError(f"{self._missing_text(missing)} {error}") from error
        still = [name for name in missing if not (self.root / name).is_file()]
        if still:
            raise DatasetError(f"{self._missing_text(still)} The Hub does not have them either.")

    def _missing_text(self, missing: list[Path]) -> str:
        named = "".join(f"\n  {name}" for name in missing[:MAX_NAMED])
        more = f"\n  and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        return f"{len(missing)} files of dataset {self.repo_id!r} are missing in {self.root}:{named}{more}\n"


def holds_dataset(folder: Path) -> bool:
    """Whether the folder has a dataset's meta/info.json."""
    return (folder / keys.INFO_FILE).is_file()
