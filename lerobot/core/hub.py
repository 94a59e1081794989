"""Where files live on this machine, and the Hub they come from and go to.

HF_HOME -> HF_LEROBOT_HOME -> <org>/<name>          local datasets
                           -> hub/                  downloaded snapshots of datasets
                           -> cache/                column caches and the like, or below HF_DATASETS_CACHE
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE               as in every Hugging Face program
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lerobot.core.errors import ConfigError, UserError

TRUE_WORDS = ("1", "true", "yes", "on")
OLDEST_VERSION = (2, 0, 0)  # of datasets that are read
VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


class HubError(UserError):
    """The Hub was not reached, refused, or does not have what was asked for."""

    is_unreachable = False  # it did not answer at all


def hf_home() -> Path:
    """Base folder of Hugging Face programs: HF_HOME, else ~/.cache/huggingface."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME") or default).expanduser()


def lerobot_home() -> Path:
    """Folder of local datasets and calibrations: HF_LEROBOT_HOME, else $HF_HOME/lerobot.

    Raises:
        ConfigError: the variable LEROBOT_HOME of old releases is set.
    """
    if "LEROBOT_HOME" in os.environ:
        raise ConfigError(
            f"The variable LEROBOT_HOME={os.environ['LEROBOT_HOME']!r} is no longer read. "
            f"Type: export HF_LEROBOT_HOME={os.environ['LEROBOT_HOME']}; unset LEROBOT_HOME"
        )
    return Path(os.environ.get("HF_LEROBOT_HOME") or hf_home() / "lerobot").expanduser()


def dataset_cache() -> Path:
    """Folder of dataset snapshots, one sub-folder per repository and commit."""
    return lerobot_home() / "hub"


def cache_home() -> Path:
    """Folder of what can be made again: $HF_DATASETS_CACHE/lerobot, else $HF_LEROBOT_HOME/cache."""
    base = os.environ.get("HF_DATASETS_CACHE")
    return Path(base).expanduser() / "lerobot" if base else lerobot_home() / "cache"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in TRUE_WORDS


def has_token() -> bool:
    """Whether somebody is logged in, by HF_TOKEN or by `hf auth login`."""
    from huggingface_hub import get_token

    return get_token() is not None


def endpoint() -> str:
    """Address of the Hub."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def explain(error: Exception) -> str:
    """A failed Hub call in one line."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = str(error).strip().splitlines()
    first = text[0].rstrip(". ") if text else type(error).__name__
    if status in (401, 403):
        return f"it answered {status}: private, gated or missing. Type: hf auth login"
    if status == 404:
        return "it answered 404: no such repository, revision or file, or it is private (type: hf auth login)"
    if status is not None:
        return f"it answered {status}: {first}"
    return f"{type(error).__name__}: {first}"


@dataclass(frozen=True, kw_only=True)
class Repo:
    """A repository on the Hub, of models or of datasets; methods raise HubError when the Hub refuses."""

    repo_id: str
    repo_type: str = "model"
    token: str | None = None

    def versions(self) -> list[str]:
        """Names of its branches and tags."""
        refs = self._call("list_repo_refs")
        return [ref.name for ref in (*refs.branches, *refs.tags)]

    def resolve(self, revision: str) -> str:
        """The commit that a branch or tag points to now."""
        return str(self._call("repo_info", revision=revision).sha)

    def cached_versions(self, cache: Path) -> list[str]:
        """Names of the branches and tags that a cache holds a snapshot of."""
        refs = cache / f"{self.repo_type}s--{self.repo_id.replace('/', '--')}" / "refs"
        return [path.name for path in refs.iterdir()] if refs.is_dir() else []

    def snapshot(
        self,
        *,
        revision: str | None = None,
        patterns: Sequence[str] | None = None,
        cache: Path | None = None,
        folder: Path | None = None,
        force: bool = False,
    ) -> Path:
        """Folder with the matching files of one revision, in the cache or in `folder`."""
        return Path(
            self._call(
                "snapshot_download",
                revision=revision,
                allow_patterns=list(patterns) if patterns else None,
                cache_dir=cache,
                local_dir=folder,
                force_download=force,
                local_files_only=is_offline(),
            )
        )

    def file(self, name: str, *, revision: str | None = None) -> Path:
        """One file, in the cache."""
        return Path(
            self._call("hf_hub_download", filename=name, revision=revision, local_files_only=is_offline())
        )

    def create(self, *, private: bool | None = None) -> "Repo":
        """The repository, made if it is not there, under its full name: `name` alone becomes `user/name`."""
        full_name = self._call("create_repo", private=private, exist_ok=True).repo_id
        return replace(self, repo_id=full_name)

    def branch(self, name: str) -> None:
        """Make a branch if it is not there."""
        self._call("create_branch", branch=name, exist_ok=True)

    def upload(
        self,
        folder: Path,
        *,
        message: str,
        revision: str | None = None,
        patterns: Iterable[str] | None = None,
        ignore: Iterable[str] | None = None,
    ) -> str:
        """Commit the files of a folder; returns the commit's address."""
        info = self._call(
            "upload_folder",
            folder_path=folder,
            commit_message=message,
            revision=revision,
            allow_patterns=list(patterns) if patterns else None,
            ignore_patterns=list(ignore) if ignore else None,
        )
        return str(info.commit_url)

    def contents(self, *, revision: str | None = None) -> dict[str, str]:
        """Every file of a revision -> what identifies its contents, as `fingerprint` gives it."""
        found = self._call("list_repo_tree", revision=revision, recursive=True)
        return {
            one.path: one.lfs.sha256 if one.lfs else one.blob_id
            for one in self._all(found)
            if hasattr(one, "blob_id")  # folders have none
        }

    def commit(
        self,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        revision: str | None = None,
        deleted: Iterable[str] = (),
    ) -> str:
        """One commit of files by their names in the repository; returns its address."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in deleted]
        for name, content in files.items():
            source = content if isinstance(content, bytes) else str(content)
            operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=source))
        info = self._call("create_commit", operations=operations, commit_message=message, revision=revision)
        return str(info.commit_url)

    def tag(self, name: str, *, revision: str | None = None) -> None:
        """Put a tag on a revision, moving it if it exists."""
        if name in self.versions():
            self._call("delete_tag", tag=name)
        self._call("create_tag", tag=name, revision=revision)

    def _call(self, method: str, **arguments: Any) -> Any:
        # These two work without the network: they fall back on the cache by themselves.
        if is_offline() and method not in ("snapshot_download", "hf_hub_download"):
            raise HubError(f"HF_HUB_OFFLINE is set, so {self.repo_id!r} was not looked up on the Hub.")
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint(), token=self.token)
        with self._explained():
            return getattr(api, method)(repo_id=self.repo_id, repo_type=self.repo_type, **arguments)

    def _all(self, pages: Iterable[Any]) -> list[Any]:
        """What a listing holds, which is asked for page by page."""
        with self._explained():
            return list(pages)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Failures of the Hub as HubError, in one line."""
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        # Network errors come from requests, httpx or httpx2, depending on its version; this one's first base.
        network_error: type[Exception] = HfHubHTTPError.__bases__[0]
        try:
            yield
        except HFValidationError as error:
            raise HubError(f"{self.repo_id!r} is not a repository name: {error}") from error
        except LocalEntryNotFoundError as error:
            where = "HF_HUB_OFFLINE is set and it is not in the cache" if is_offline() else explain(error)
            raise HubError(f"{self.repo_type} {self.repo_id!r} could not be downloaded: {where}.") from error
        except (HfHubHTTPError, network_error, OSError, RuntimeError) as error:
            # A failed upload is told by a RuntimeError that names the file.
            why = error.__cause__ if isinstance(error, RuntimeError) else error
            if not isinstance(why, (HfHubHTTPError, network_error, OSError)):
                raise
            failed = HubError(f"{endpoint()} and {self.repo_type} {self.repo_id!r}: {explain(why)}.")
            failed.is_unreachable = getattr(why, "response", None) is None
            raise failed from error


def fingerprint(content: Path | bytes) -> tuple[str, str]:
    """What identifies contents on the Hub: SHA-256 of a large file, git's blob hash of a small one."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    large, small = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if isinstance(content, bytes):
        blocks: Iterable[bytes] = [content]
    else:
        blocks = _blocks(content)
    for block in blocks:
        large.update(block)
        small.update(block)
    return large.hexdigest(), small.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def choose_version(names: Iterable[str], wanted: str) -> str:
    """Among branches and tags, the one that a reader of format `wanted` ("v3.0") opens.

    The exact version; else the highest of the same major version that is not newer; else the highest of an
    older one from v2.0 on.

    Raises:
        HubError: none fits; says which there are.
    """
    found = {name: version for name in names if (version := parse_version(name))}
    if not found:
        raise HubError(f"It has no version tag such as {wanted}. Give revision='main' to read it as it is.")
    target = parse_version(wanted)
    assert target is not None
    exact = [name for name, version in found.items() if version == target]
    if exact:
        return exact[0]
    older = {name: version for name, version in found.items() if OLDEST_VERSION <= version < target}
    if older:
        return max(older, key=lambda name: older[name])
    there = ", ".join(sorted(found))
    if all(version < OLDEST_VERSION for version in found.values()):
        raise HubError(
            f"It is in a format older than v2.0 ({there}), which is not read. Convert it to v2.0 with an old "
            "release of LeRobot first."
        )
    raise HubError(f"It is in a newer format ({there}) than {wanted}. Install a newer lerobot.")


def parse_version(name: str) -> tuple[int, int, int] | None:
    """(major, minor, patch) of "v3.0" or "3.0.1", None for a name that is not a version."""
    match = VERSION.fullmatch(name)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None
