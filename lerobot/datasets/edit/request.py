"""Which dataset is edited and where the result goes, as a command line says it."""

from dataclasses import dataclass
from pathlib import Path

from lerobot.core import hub
from lerobot.core.errors import ConfigError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.target import Target, in_place
from lerobot.datasets.metadata import LeRobotDatasetMetadata


@dataclass(frozen=True, kw_only=True)
class Request:
    """The names and folders on a command line."""

    repo_id: str | None = None
    root: Path | None = None
    new_repo_id: str | None = None
    new_root: Path | None = None

    @property
    def name(self) -> str:
        """The dataset's name; a folder given alone is called after itself.

        Raises:
            ConfigError: neither a name nor a folder was given.
        """
        if self.repo_id is not None:
            return self.repo_id
        if self.root is None:
            raise ConfigError("--repo_id must be given (or --root, the dataset's folder).")
        folder = self.root.expanduser().resolve()
        return f"{folder.parent.name or 'local'}/{folder.name}"

    def source(self, *, needs_files: bool = True) -> LeRobotDatasetMetadata:
        """The dataset that is edited; its files are on this machine afterwards."""
        return self.open(self.name, self.root, needs_files=needs_files)

    def open(self, repo_id: str, root: Path | None, *, needs_files: bool = True) -> LeRobotDatasetMetadata:
        """A dataset on this machine or, downloaded, from the Hub."""
        if not needs_files:
            return LeRobotDatasetMetadata(repo_id, root)
        return LeRobotDataset(repo_id, root=root).meta

    def target(
        self, meta: LeRobotDatasetMetadata, *, suffix: str | None = None, root: Path | None = None
    ) -> Target:
        """Where the result goes: the new name or folder, else the name with a suffix, else in place.

        Args:
            suffix: what a result without a new name is called; None edits in place.
            root: an older spelling of the new folder.
        """
        new_root = self.new_root or root
        if self.new_repo_id is None and new_root is None:
            return in_place(meta) if suffix is None else self.new_target(f"{meta.repo_id}{suffix}")
        target = self.new_target(self.new_repo_id or meta.repo_id, new_root)
        if target.root.resolve() == meta.root.resolve():
            if suffix is not None:
                raise ConfigError(f"{meta.root} would be replaced; say so with --operation.overwrite=true.")
            return in_place(meta)
        return target

    def new_target(self, repo_id: str, root: Path | None = None) -> Target:
        """A dataset of its own."""
        folder = root or self.new_root
        where = folder.expanduser() if folder is not None else hub.lerobot_home() / repo_id
        return Target(repo_id=repo_id, root=where)
