"""A stand-in for the Hugging Face Hub: serves local folders as repositories with branches on 127.0.0.1, and counts what it sends.

`huggingface_hub` reads HF_ENDPOINT when it is imported, so what talks to the stand-in runs in a process of its own (`Hub.run`).
"""

import hashlib
import json
import os
import re
import socket
import struct
import textwrap
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.subprocesses import python

DECLARED: dict[Path, str] = {}
"""sha256 of large files that need not be computed."""


@dataclass
class Trouble:
    """A request that goes wrong a few times, in a way."""

    path: str
    """Part of `METHOD path`, as a regular expression."""
    kind: str
    """`status`, `cut` (half of the content, then silence), `reset`, `slow`, `spoil` (one bit is wrong), `gone` (the branch vanishes)."""
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.5
    branch: tuple[str, str] = ("", "")


@dataclass
class Hub:
    """Repositories, what may not be read of them, and what was asked for."""

    home: Path
    """HF_HOME of the processes that `run` starts."""
    repositories: dict[str, dict[str, Path]] = field(default_factory=dict)
    tags: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    """Repositories for which the server answers 500."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes of content by file name."""

    def __enter__(self) -> "Hub":
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, repository: str, branch: str, folder: Path, *, tag: bool = False) -> None:
        (self.tags if tag else self.repositories).setdefault(repository, {})[branch] = folder
        self.repositories.setdefault(repository, {})

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {
            **kept,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": "5",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            **more,
        }

    def run(self, code: str, **environment: str) -> Any:
        """Run Python code in a process that knows only this Hub; `show(value)` hands a JSON value back."""
        prelude = (
            "import json, sys\n"
            "def show(value): print('\\x1e' + json.dumps(value), flush=True)\n"
            "from pathlib import Path\n"
            "from ontogeny.errors import BadInput, CheckpointError\n"
            "from ontogeny.lineage import *\n"
        )
        done = python(prelude + textwrap.dedent(code), env=self.environment(**environment))
        if done.returncode:
            raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        shown = [json.loads(line[1:]) for line in done.stdout.split("\n") if line.startswith("\x1e")]
        return shown[-1] if shown else None

    def refs(self, repository: str) -> dict[str, Path]:
        return {**self.tags.get(repository, {}), **self.repositories[repository]}

    def find(self, repository: str, revision: str) -> Path | None:
        for name, folder in self.refs(repository).items():
            if revision in (name, commit(folder)):
                return folder
        return None


def commit(folder: Path) -> str:
    """The stand-in's commit of a folder: changes with its files."""
    parts = [(path.relative_to(folder).as_posix(), sha256(path)) for path in files_of(folder)]
    return hashlib.sha1(repr(parts).encode()).hexdigest()


def files_of(folder: Path) -> list[Path]:
    """All files of a revision, those in folders too."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def sha256(path: Path) -> str:
    return DECLARED.get(path) or hashlib.sha256(path.read_bytes()).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """A file as the Hub lists it: weights lie in LFS and carry their sha256."""
    blob = hashlib.sha1(DECLARED[path].encode() if path in DECLARED else path.read_bytes()).hexdigest()
    found: dict[str, Any] = {"size": path.stat().st_size, "blob": blob}
    if path.suffix in (".safetensors", ".bin"):
        found["lfs"] = {"sha256": sha256(path), "size": path.stat().st_size, "pointerSize": 134}
    return found


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append((self.command, self.path))
        self.trouble = self._trouble()
        if self.trouble is not None and self.trouble.kind == "status":
            return self._error(self.trouble.status, None, self.trouble.headers)
        if self.trouble is not None and self.trouble.kind == "slow":
            time.sleep(self.trouble.seconds)
        url = urlsplit(self.path)
        path = unquote(url.path)
        if match := re.fullmatch(r"/api/models/(.+?)/(refs|revision|tree)(?:/(.+))?", path):
            self._api(*match.groups(), blobs="blobs" in parse_qs(url.query))
        elif match := re.fullmatch(r"/api/models/([^/]+(?:/[^/]+)?)", path):
            self._api(match[1], "revision", "main", blobs="blobs" in parse_qs(url.query))
        elif match := re.fullmatch(r"/(.+?)/resolve/(.+)", path):
            self._file(match[1], *self._split(match[1], match[2]))
        else:
            self._error(404, "EntryNotFound")

    def _split(self, repository: str, place: str) -> tuple[str, str]:
        """Revision and file; both may hold slashes, and the revision is one that there is."""
        ends = [i for i, letter in enumerate(place) if letter == "/"]
        known = [i for i in ends if repository in self.hub.repositories and self.hub.find(repository, place[:i])]
        end = (known or ends[-1:])[0]
        return place[:end], place[end + 1 :]

    def _trouble(self) -> Trouble | None:
        for trouble in self.hub.troubles:
            if trouble.times and re.search(trouble.path, f"{self.command} {self.path}"):
                trouble.times -= 1
                if trouble.kind == "gone":
                    self.hub.repositories[trouble.branch[0]].pop(trouble.branch[1], None)
                return trouble
        return None

    def _known(self, repository: str) -> bool:
        if repository in self.hub.broken:
            self._error(500, None)
        elif repository not in self.hub.repositories:
            # The real Hub answers like this to who is not logged in.
            self._error(401, "RepoNotFound")
        else:
            return True
        return False

    def _api(self, repository: str, what: str, revision: str | None, *, blobs: bool) -> None:
        if not self._known(repository):
            return
        if what == "refs":
            lists = {"branches": self.hub.repositories[repository], "tags": self.hub.tags.get(repository, {})}
            kinds = {"branches": "heads", "tags": "tags"}
            body = {
                kind: [
                    {"name": name, "ref": f"refs/{kinds[kind]}/{name}", "targetCommit": commit(folder)}
                    for name, folder in found.items()
                ]
                for kind, found in lists.items()
            }
            return self._json({**body, "converts": []})
        folder = self.hub.find(repository, revision or "main")
        if folder is None:
            return self._error(404, "RevisionNotFound")
        files = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
        if what == "tree":
            return self._json([self._entry(name, path) for name, path in files.items()])
        siblings = [self._sibling(name, path) if blobs else {"rfilename": name} for name, path in files.items()]
        self._json({"id": repository, "sha": commit(folder), "siblings": siblings, "private": False, "tags": []})

    @staticmethod
    def _sibling(name: str, path: Path) -> dict[str, Any]:
        found = describe(path)
        lfs = {"lfs": found["lfs"]} if "lfs" in found else {}
        return {"rfilename": name, "size": found["size"], "blobId": found["blob"], **lfs}

    @staticmethod
    def _entry(name: str, path: Path) -> dict[str, Any]:
        found = describe(path)
        lfs = {"lfs": {"oid": found["lfs"]["sha256"], **found["lfs"]}} if "lfs" in found else {}
        return {"type": "file", "path": name, "size": found["size"], "oid": found["blob"], **lfs}

    def _file(self, repository: str, revision: str, name: str) -> None:
        if not self._known(repository):
            return
        if repository in self.hub.gated:
            return self._error(403, "GatedRepo")
        folder = self.hub.find(repository, revision)
        if folder is None:
            return self._error(404, "RevisionNotFound")
        if not (folder / name).is_file():
            return self._error(404, "EntryNotFound")
        size = (folder / name).stat().st_size
        found = describe(folder / name)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(match[1]), min(int(match[2] or size) + 1, size)) if match else (0, size)
        self.send_response(206 if match else 200)
        self.send_header("ETag", f'"{found["lfs"]["sha256"] if "lfs" in found else found["blob"]}"')
        self.send_header("X-Repo-Commit", commit(folder))
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            with (folder / name).open("rb") as file:
                file.seek(start)
                self._send(name, file.read(stop - start))

    def _send(self, name: str, content: bytes) -> None:
        kind = self.trouble.kind if self.trouble is not None else ""
        if kind == "spoil":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if kind in ("cut", "reset"):
            content = content[: len(content) // 2]
            self.close_connection = True
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(content)
        self.wfile.write(content)
        if kind == "reset":  # a reset instead of an orderly end
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _json(self, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _error(self, status: int, code: str | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
