"""Files of a dataset read by byte ranges: from this machine where they are, else from the Hub, never whole.

RangeSource.open(name) -> path of a local file | RemoteFile (read, seek, tell)
RemoteFile.read(n)     -> blocks of a cache that all files share -> one request per run of missing blocks

Requests go to the commit that meta/ came from, so that a push in between changes nothing.
"""

import io
import logging
import re
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lerobot.core import hub
from lerobot.core.errors import DatasetError
from lerobot.core.hub import HubError
from lerobot.datasets.location import Location

logger = logging.getLogger(__name__)

BLOCK_BYTES = 256 * 1024  # smallest piece that is fetched and kept
LONGEST_BLOCKS = 16  # blocks of one request: 4 MiB
CACHE_BYTES = 256 * 1024**2
TIMEOUT_S = 30.0
ATTEMPTS = 6  # of one request
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0  # between attempts; doubled each time
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # answers after which the same request may succeed
COMMIT = re.compile(r"[0-9a-f]{40}")
STALE = (400, 401, 403, 404, 410)  # answers of a redirected address that has expired


class RangeSource:
    """Opens the files of one dataset; safe for several threads, for one process.

    Args:
        location: the dataset's folder, and the Hub revision that its other files are on.
        cache_bytes: blocks of remote files kept in memory.
    """

    def __init__(self, location: Location, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.location = location
        self.cache = BlockCache(cache_bytes)
        self.remote = HubRanges(location) if location.revision is not None else None
        self._sizes: dict[Path, int] = {}

    @property
    def fetched_bytes(self) -> int:
        """Bytes that came from the Hub so far, without meta/."""
        return self.remote.fetched_bytes if self.remote else 0

    def open(self, name: Path) -> "str | RemoteFile":
        """A file by its path below the root, as what PyAV and pyarrow open.

        Raises:
            DatasetError: it is neither on this machine nor on the Hub.
        """
        path = self.location.root / name
        if path.is_file():
            return str(path)
        if self.remote is None:
            raise DatasetError(
                f"{path} is missing, and this dataset is read from that folder alone. Copy the file there, "
                "or give force_cache_sync=True to read it from the Hub."
            )
        if name not in self._sizes:
            self._sizes[name] = self.remote.size(name)
        return RemoteFile(self, name, size=self._sizes[name])


class HubRanges:
    """Range requests to one commit of one repository, repeated when the network fails for a moment."""

    def __init__(self, location: Location) -> None:
        assert location.revision is not None
        self.repo = hub.Repo(repo_id=location.repo_id, repo_type="dataset", token=location.token)
        is_cached = location.root.is_relative_to(hub.dataset_cache())
        found = location.root.name if is_cached else location.revision
        self.revision = found if COMMIT.fullmatch(found) else self.repo.resolve(found)
        self.fetched_bytes = 0
        self._redirects: dict[Path, str] = {}  # where the Hub sent us last time, which saves one round trip

    def size(self, name: Path) -> int:
        """A file's size in bytes."""
        return self._ask(name, 0, 1)[1]

    def read(self, name: Path, start: int, stop: int) -> bytes:
        """Bytes start..stop of a file.

        Raises:
            HubError: the Hub does not have the file, refuses, or was not reached in several attempts.
        """
        return self._ask(name, start, stop)[0]

    def _ask(self, name: Path, start: int, stop: int) -> tuple[bytes, int]:
        """The bytes, and the size of the whole file."""
        if hub.is_offline():
            raise HubError(
                f"HF_HUB_OFFLINE is set and {name} of {self.repo.repo_id!r} is not on this machine."
            )
        wait_s, why, is_stale = FIRST_WAIT_S, "", False
        for attempt in range(1, ATTEMPTS + 1):
            address = None if is_stale else self._redirects.get(name)
            try:
                response = self._get(address or self._address(name), start, stop, is_hub=address is None)
            except self._network_errors() as error:
                why = hub.explain(error)
            else:
                status = response.status_code
                if status in (200, 206):
                    data, size = self._taken(name, response, start, stop)
                    if len(data) == min(stop, size) - start:
                        self._redirects.update(self._redirected(name, str(response.url)))
                        self.fetched_bytes += len(data)
                        return data, size
                    why = f"it sent {len(data)} of {min(stop, size) - start} bytes"
                elif address is not None and status in STALE:
                    is_stale = True  # the Hub gives a new one, at once
                    continue
                elif status not in TRANSIENT:
                    raise self._refused(name, response)
                else:
                    why, wait_s = f"it answered {status}", max(wait_s, _asked_wait_s(response))
            logger.info("%s, bytes %d to %d: %s (attempt %d)", name, start, stop, why, attempt)
            if attempt < ATTEMPTS:
                time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        raise HubError(
            f"{name} of dataset {self.repo.repo_id!r} was not read from {hub.endpoint()} in {ATTEMPTS} "
            f"attempts: {why}. Check the network and go on, or download the dataset: streaming=False."
        )

    def _address(self, name: Path) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            self.repo.repo_id,
            name.as_posix(),
            repo_type="dataset",
            revision=self.revision,
            endpoint=hub.endpoint(),
        )

    def _get(self, address: str, start: int, stop: int, *, is_hub: bool) -> Any:
        from huggingface_hub.utils import build_hf_headers, get_session

        # The token is for the Hub, not for where it sends us.
        headers = build_hf_headers(token=self.repo.token) if is_hub else {}
        headers |= self._headers(start, stop)
        return get_session().get(address, headers=headers, timeout=TIMEOUT_S)

    def _headers(self, start: int, stop: int) -> dict[str, str]:
        # Compressed answers would count other bytes.
        return {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}

    def _taken(self, name: Path, response: Any, start: int, stop: int) -> tuple[bytes, int]:
        if response.status_code == 206:
            return response.content, int(response.headers["Content-Range"].rsplit("/", 1)[1])
        size = int(response.headers.get("Content-Length", len(response.content)))
        if size > stop:
            raise HubError(
                f"{hub.endpoint()} sends {name} whole ({size} bytes) when asked for a part of it, so it "
                "cannot be streamed. Download the dataset: streaming=False."
            )
        return response.content[start:stop], size

    def _redirected(self, name: Path, address: str) -> dict[Path, str]:
        is_elsewhere = urlsplit(address).netloc != urlsplit(hub.endpoint()).netloc
        return {name: address} if is_elsewhere else {}

    def _refused(self, name: Path, response: Any) -> HubError:
        from huggingface_hub.utils import hf_raise_for_status

        try:
            hf_raise_for_status(response)
        except OSError as error:
            return HubError(f"{name} of dataset {self.repo.repo_id!r}: {hub.explain(error)}.")
        return HubError(f"{name} of dataset {self.repo.repo_id!r}: it answered {response.status_code}.")

    def _network_errors(self) -> tuple[type[Exception], ...]:
        from huggingface_hub.errors import HfHubHTTPError

        return (HfHubHTTPError.__bases__[0], OSError)  # of requests, httpx or httpx2, whichever it uses


def _asked_wait_s(response: Any) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 60.0) if text.isdigit() else 0.0


class BlockCache:
    """Blocks of remote files, the least recently used dropped first; no two threads fetch the same one."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._blocks: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._flying: dict[tuple[Path, int], threading.Event] = {}
        self._lock = threading.Lock()

    def get(self, file: "RemoteFile", number: int, run: int) -> bytes:
        """One block; when it is missing, up to `run` missing blocks from it on are fetched at once."""
        while True:
            with self._lock:
                key = (file.name, number)
                if key in self._blocks:
                    self._blocks.move_to_end(key)
                    return self._blocks[key]
                other = self._flying.get(key)
                if other is None:
                    claimed = self._claim(file.name, number, run)
                    break
            other.wait()  # then it is there, or its reader failed and we try
        try:
            data = file.fetch(number * BLOCK_BYTES, (number + len(claimed)) * BLOCK_BYTES)
            blocks = [data[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES] for i in range(len(claimed))]
            self._put(claimed, blocks)
            return blocks[0]
        finally:
            with self._lock:
                event = self._flying[claimed[0]]
                for key in claimed:
                    del self._flying[key]
            event.set()

    def _claim(self, name: Path, number: int, run: int) -> list[tuple[Path, int]]:
        claimed, event = [(name, number)], threading.Event()
        for key in ((name, number + i) for i in range(1, run)):
            if key in self._blocks or key in self._flying:
                break
            claimed.append(key)
        self._flying.update(dict.fromkeys(claimed, event))
        return claimed

    def _put(self, keys: list[tuple[Path, int]], blocks: list[bytes]) -> None:
        with self._lock:
            for key, block in zip(keys, blocks, strict=True):
                self._blocks[key] = block
                self.size += len(block)
            while self.size > self.limit and self._blocks:
                self.size -= len(self._blocks.popitem(last=False)[1])


class RemoteFile(io.RawIOBase):
    """A file on the Hub, read where it is asked for. For one thread at a time; blocks are shared."""

    def __init__(self, source: RangeSource, name: Path, *, size: int) -> None:
        super().__init__()
        assert source.remote is not None
        self.source, self.remote = source, source.remote
        self.name, self.size = name, size
        self._at = 0
        self._run, self._next = 1, 0  # blocks of the next request, and where it would go on
        self._expected = (0, 0)  # bytes that will all be needed

    def expect(self, start: int, stop: int) -> None:
        """Say that these bytes will be read: fetched in long requests, and nothing behind them."""
        self._expected = (start, min(stop, self.size))

    def fetch(self, start: int, stop: int) -> bytes:
        """Bytes straight from the Hub."""
        self._run, self._next = min(2 * (stop - start) // BLOCK_BYTES, LONGEST_BLOCKS), stop // BLOCK_BYTES
        return self.remote.read(self.name, start, min(stop, self.size))

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes from here on; all that follow for -1."""
        stop = self.size if size is None or size < 0 else min(self._at + size, self.size)
        pieces = []
        while self._at < stop:
            number = self._at // BLOCK_BYTES
            block = self.source.cache.get(self, number, self._run_from(number, stop))
            piece = block[self._at - number * BLOCK_BYTES : stop - number * BLOCK_BYTES]
            pieces.append(piece)
            self._at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _run_from(self, number: int, stop: int) -> int:
        """Blocks to fetch at once from here: what is asked, what was announced, more when reading on."""
        last = max(number, (stop - 1) // BLOCK_BYTES)
        if self._expected[0] <= self._at < self._expected[1]:
            last = max(last, (self._expected[1] - 1) // BLOCK_BYTES)
        elif number == self._next:
            last = max(last, number + self._run - 1)
        return min(last - number + 1, LONGEST_BLOCKS, -(-self.size // BLOCK_BYTES) - number)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place of the file; returns it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True
