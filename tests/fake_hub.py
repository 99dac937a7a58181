"""A local fake of the Hugging Face Hub's endpoints for pulling a model, and of their failures."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests import HANG


@dataclass
class Repository:
    files: dict[str, bytes]
    commit: str = "1234567890" * 4
    gated: bool = False
    lies: dict[str, bytes] = field(default_factory=dict)  # content sent instead of a file's
    endless: set[str] = field(default_factory=set)  # files whose content goes on, without a length
    cut: int = 0  # the weights stop after this many bytes, until `go_on`
    go_on: threading.Event = field(default_factory=threading.Event)
    ranges: list[str | None] = field(default_factory=list)  # the weights' requested ranges

    @classmethod
    def of(cls, folder: Path, **more: Any) -> Repository:
        return cls({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}, **more)

    def siblings(self) -> list[dict[str, object]]:
        found = []
        for name, data in self.files.items():
            one: dict[str, object] = {"rfilename": name, "size": len(data)}
            one["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if name.endswith((".safetensors", ".bin")):
                one["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            found.append(one)
        return found


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.tokens: list[tuple[str, str | None]] = []  # path, authorization

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.tokens.append((self.path, self.headers.get("Authorization")))
        parts = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            repository, rest = self.server.repositories.get("/".join(parts[2:4])), parts[4:]
            revision = rest[1] if rest[:1] == ["revision"] else "main"
            if repository is None:
                self._refuse(404, "RepoNotFound")
            elif repository.gated:
                self._refuse(401, "GatedRepo")
            elif revision not in ("main", "v1", repository.commit):
                self._refuse(404, "RevisionNotFound")
            else:
                made = {"id": "/".join(parts[2:4]), "sha": repository.commit, "siblings": repository.siblings()}
                self._send(json.dumps(made).encode(), Content_Type="application/json")
            return
        repository = self.server.repositories.get("/".join(parts[:2]))
        if repository is None or parts[2:3] != ["resolve"] or parts[-1] not in repository.files:
            self._refuse(404, "EntryNotFound")
            return
        self._file(repository, parts[-1], repository.lies.get(parts[-1], repository.files[parts[-1]]))

    def _file(self, repository: Repository, name: str, data: bytes) -> None:
        wanted = self.headers.get("Range")
        weights = name == "model.safetensors"
        if weights:
            repository.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = data[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.commit)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if name in repository.endless:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in repository.endless:
            self._more_than(body)
        elif weights and repository.cut:
            self.wfile.write(body[: repository.cut])
            self.wfile.flush()
            repository.go_on.wait(HANG)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _more_than(self, body: bytes) -> None:
        """Sends `body`, then more until the client goes away; in the end too, so that a client without a limit ends."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(body)
            for _ in range(100):
                self.wfile.write(bytes(1 << 20))
