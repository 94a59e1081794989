"""The folder that the doctor looks into: the one given, that of the local home, or a whole download."""

from pathlib import Path

from lerobot.core import hub
from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor.folder import holds_traces

EVERYTHING = ("meta/*", "data/*", "videos/*")
VERSIONS = "v3.0"


def find_folder(root: Path | None, repo_id: str | None = None, *, revision: str | None = None) -> Path:
    """The dataset's folder; a name that this machine does not know is downloaded whole.

    Raises:
        DatasetError: a folder was given and is none.
        HubError: the name is not on this machine and the Hub does not give it.
    """
    if root is not None:
        if not root.expanduser().is_dir():
            raise DatasetError(f"{root} is no folder. Give the folder that holds a dataset's meta/info.json.")
        return root.expanduser()
    assert repo_id is not None
    local = hub.lerobot_home() / repo_id
    if revision is None and holds_traces(local):
        return local
    repo = hub.Repo(repo_id=repo_id, repo_type="dataset")
    if revision is None and not hub.is_offline():
        revision = hub.choose_version(repo.versions(), VERSIONS)
    try:
        return repo.snapshot(revision=revision or VERSIONS, patterns=EVERYTHING, cache=hub.dataset_cache())
    except hub.HubError as error:
        raise DatasetError(
            f"Dataset {repo_id!r} was not found. Looked at {local} and at the Hub: {error}"
        ) from error
