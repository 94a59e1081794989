"""A Hub on this machine's loopback: repositories of models and datasets, kept in memory, over HTTP.

    with FakeHub() as hub:                      # hub.url is the value for HF_ENDPOINT
        hub.repos["dataset", "me/name"].files() # what was pushed

It answers what `huggingface_hub` asks when repositories are made, uploaded to, listed, tagged and downloaded.
Every request is noted in `hub.requests` as "METHOD path", the bytes that were sent of a file in `hub.served`.
With `hub.uploads_left = n` it refuses uploads of large files after n of them. `hub.faults` maps a request's
number among the range requests to what goes wrong with it: a status, or "cut". With `hub.tickets = n`
downloads are sent to another host, as the Hub does: an address good for n requests that takes no token.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

LFS_ENDINGS = (".parquet", ".mp4", ".safetensors", ".bin", ".png", ".arrow")
REPO = r"(?P<kind>models|datasets)/(?P<id>[\w.-]+/[\w.-]+)"


class FakeRepo:
    """Commits of one repository; branches and tags point to commits."""

    def __init__(self, kind: str, repo_id: str) -> None:
        self.kind, self.id = kind, repo_id
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit({}, "main")

    def commit(self, files: dict[str, bytes], branch: str) -> str:
        # Contents count: the cache of one test must not answer for another's repository of the same name.
        parts = [f"{self.kind}{self.id}{len(self.commits)}".encode()]
        parts += [part for name, data in sorted(files.items()) for part in (name.encode(), data)]
        oid = hashlib.sha1(b"\0".join(parts)).hexdigest()
        self.commits[oid], self.branches[branch] = dict(files), oid
        return oid

    def resolve(self, revision: str) -> str | None:
        known = {**self.branches, **self.tags}
        return known.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        oid = self.resolve(revision)
        assert oid is not None, f"{self.id} has no revision {revision}"
        return self.commits[oid]


class FakeHub:
    """The server; use as a context manager."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], FakeRepo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.served: dict[str, int] = {}
        self.ranges = 0  # range requests so far
        self.faults: dict[int, int | str] = {}
        self.tickets: int | None = None
        self.used: dict[str, int] = {}  # requests that each redirected address has answered
        self.uploads_left: int | None = None
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> "FakeHub":
        from huggingface_hub import constants

        self._was = (constants.HF_HUB_DISABLE_XET, constants.HF_HUB_OFFLINE)
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_OFFLINE = (
            True,
            False,
        )  # plain uploads; read at import only
        self.thread.start()
        return self

    def __exit__(self, *what) -> None:
        from huggingface_hub import constants

        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_OFFLINE = self._was
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo_type: str, repo_id: str, files: dict[str, bytes] | None = None) -> FakeRepo:
        """A repository that is there already; `repo_type` is "model" or "dataset"."""
        repo = self.repos[repo_type, repo_id] = FakeRepo(repo_type, repo_id)
        if files:
            repo.commit(files, "main")
        return repo


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # small answers would wait 40 ms

    def log_message(self, *what) -> None:
        pass

    def do_GET(self) -> None:
        self._route("GET")

    def do_HEAD(self) -> None:
        self._route("HEAD")

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def do_DELETE(self) -> None:
        self._route("DELETE")

    def _route(self, method: str) -> None:
        path = unquote(urlparse(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.hub.lock:
            self.hub.requests.append(f"{method} {path}")
            for verbs, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method in verbs:
                    getattr(self, answer)(body, **match.groupdict())
                    return
        self._json({"error": f"no such address: {method} {path}"}, status=404)

    # --- answers

    def _json(self, value, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, data: bytes, status: int, headers: dict[str, str], *, is_cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if is_cut else data)
        if is_cut:  # the connection ends in the middle of the answer
            self.close_connection = True

    def _missing(self, what: str) -> None:
        code = {"repository": "RepoNotFound", "revision": "RevisionNotFound", "file": "EntryNotFound"}[what]
        self._json(
            {"error": f"{what} not found"},
            404,
            {"X-Error-Code": code, "X-Error-Message": f"{what} not found"},
        )

    def _repo(self, kind: str, id: str) -> FakeRepo | None:
        repo = self.hub.repos.get((kind.removesuffix("s"), id))
        if repo is None:
            self._missing("repository")
        return repo

    def whoami(self, body: bytes) -> None:
        self._json(
            {"type": "user", "name": "me", "fullname": "Me", "orgs": [], "auth": {"type": "access_token"}}
        )

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repos:
            self._json({"error": "You already created this repo", "url": url}, 409)
            return
        self.hub.repos[kind, name] = FakeRepo(kind, name)
        self._json({"url": url, "name": name, "id": name})

    def validate(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, kind: str, id: str, revision: str) -> None:
        if self._repo(kind, id):
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(LFS_ENDINGS) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for one in json.loads(body)["files"]
            ]
            self._json({"files": files})

    def lfs_batch(self, body: bytes, **repo: str) -> None:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
            }
            # Contents that were uploaded before are not asked for again.
            | ({} if one["oid"] in self.hub.objects else {"actions": {"upload": self._place(one["oid"])}})
            for one in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _place(self, oid: str) -> dict:
        return {"href": f"{self.hub.url}/upload/{oid}", "header": {}}

    def lfs_put(self, body: bytes, oid: str) -> None:
        if self.hub.uploads_left is not None:
            if self.hub.uploads_left == 0:
                self._json({"error": "the line was cut"}, 403)
                return
            self.hub.uploads_left -= 1
        if hashlib.sha256(body).hexdigest() != oid:
            self._json({"error": "checksum"}, 400)
            return
        self.hub.objects[oid] = body
        self._json({})

    def commit(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        if repo is None:
            return
        if revision not in repo.branches:
            self._missing("revision")
            return
        files = dict(repo.files(revision))
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        oid = repo.commit(files, revision)
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{id}/commit/{oid}"
        self._json({"success": True, "commitOid": oid, "commitUrl": url, "pullRequestUrl": None})

    def info(self, body: bytes, kind: str, id: str, revision: str = "main") -> None:
        repo = self._repo(kind, id)
        if repo is None:
            return
        oid = repo.resolve(revision)
        if oid is None:
            self._missing("revision")
            return
        siblings = [
            {"rfilename": name, "size": len(data)} for name, data in sorted(repo.commits[oid].items())
        ]
        self._json({"id": id, "_id": oid, "sha": oid, "private": False, "tags": [], "siblings": siblings})

    def tree(self, body: bytes, kind: str, id: str, revision: str, folder: str | None = None) -> None:
        repo = self._repo(kind, id)
        if repo is None:
            return
        oid = repo.resolve(revision)
        if oid is None:
            self._missing("revision")
            return
        found = [
            {"type": "file", "path": name, "size": len(data)} | _identity(name, data)
            for name, data in sorted(repo.commits[oid].items())
            if folder is None or name.startswith(f"{folder}/")
        ]
        self._json(found)

    def refs(self, body: bytes, kind: str, id: str) -> None:
        repo = self._repo(kind, id)
        if repo is not None:
            branches, tags = (
                [{"name": k, "ref": f"refs/{what}/{k}", "targetCommit": v} for k, v in names.items()]
                for what, names in (("heads", repo.branches), ("tags", repo.tags))
            )
            self._json({"branches": branches, "tags": tags, "converts": []})

    def tag(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        if repo is None:
            return
        name = json.loads(body)["tag"]
        if name in repo.tags:
            self._json({"error": "Tag reference exists already"}, 409)
            return
        repo.tags[name] = repo.resolve(revision) or ""
        self._json({})

    def untag(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        if repo is not None:
            repo.tags.pop(revision, None)
            self._json({})

    def branch(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        if repo is None:
            return
        if revision in repo.branches:
            self._json({"error": "Reference already exists"}, 409)
            return
        repo.branches[revision] = repo.branches["main"]
        self._json({})

    def download(self, body: bytes, id: str, revision: str, name: str, kind: str | None = None) -> None:
        repo = self._repo(kind or "models", id)
        if repo is None:
            return
        oid = repo.resolve(revision)
        if oid is None:
            self._missing("revision")
            return
        data = repo.commits[oid].get(name)
        if data is None:
            self._missing("file")
            return
        if self.hub.tickets is not None and not self._has_ticket():
            return
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Content-Type": "application/octet-stream"}
        headers["Accept-Ranges"] = "bytes"
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if asked is None:
            self._count(name, len(data))
            self._send(data, 200, headers)
            return
        self.hub.ranges += 1
        fault = self.hub.faults.get(self.hub.ranges)
        if isinstance(fault, int):
            self._json({"error": "not now"}, fault)
            return
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        part = data[start:stop]
        self._count(name, len(part))
        self._send(part, 206, headers, is_cut=fault == "cut")

    def _has_ticket(self) -> bool:
        """Whether the file may be sent now; else the request is sent on, or refused."""
        port, ticket = self.hub.server.server_address[1], urlparse(self.path).query
        if not ticket:
            self.hub.used[f"ticket={len(self.hub.used)}"] = 0
            place = f"http://localhost:{port}{self.path}?ticket={len(self.hub.used) - 1}"
            self._send(b"", 302, {"Location": place})
            return False
        self.hub.used[ticket] += 1
        is_good = self.hub.used[ticket] <= (self.hub.tickets or 0) and "Authorization" not in self.headers
        if not is_good:
            self._json({"error": "expired, or a token was shown to a stranger"}, 403)
        return is_good

    def _count(self, name: str, size: int) -> None:
        if self.command == "GET":
            self.hub.served[name] = self.hub.served.get(name, 0) + size


def _identity(name: str, data: bytes) -> dict:
    """What a listing says about contents: git's hash of a small file, SHA-256 of a large one."""
    git = {"oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    if not name.endswith(LFS_ENDINGS):
        return git
    large = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return git | {"lfs": large}


REVISION = r"(?P<revision>[^/]+)"
ROUTES = (
    (("GET",), r"/api/whoami-v2", "whoami"),
    (("POST",), r"/api/repos/create", "create"),
    (("POST",), r"/api/validate-yaml", "validate"),
    (("POST",), rf"/api/{REPO}/preupload/{REVISION}", "preupload"),
    (("POST",), rf"/api/{REPO}/commit/{REVISION}", "commit"),
    (("GET",), rf"/api/{REPO}/refs", "refs"),
    (("GET",), rf"/api/{REPO}/revision/{REVISION}", "info"),
    (("GET",), rf"/api/{REPO}/tree/{REVISION}(?:/(?P<folder>.+))?", "tree"),
    (("POST",), rf"/api/{REPO}/tag/{REVISION}", "tag"),
    (("DELETE",), rf"/api/{REPO}/tag/{REVISION}", "untag"),
    (("POST",), rf"/api/{REPO}/branch/{REVISION}", "branch"),
    (("GET",), rf"/api/{REPO}", "info"),
    (("POST",), r"/(?:(?P<kind>datasets)/)?(?P<id>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", "lfs_batch"),
    (("PUT",), r"/upload/(?P<oid>\w+)", "lfs_put"),
    (
        ("GET", "HEAD"),
        rf"/(?:(?P<kind>datasets)/)?(?P<id>[\w.-]+/[\w.-]+)/resolve/{REVISION}/(?P<name>.+)",
        "download",
    ),
)
