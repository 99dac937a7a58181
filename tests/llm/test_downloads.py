"""Downloading texts from a local server that truncates, sends wrong content and refuses."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.data import corpora, corpus, downloads
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.training.plan import launch
from tui_llm.training.plan.corpus_check import corpus_size, kind
from tui_llm.training.run.settings import TrainingSettings

TEXT = b"To be, or not to be, that is the question.\n" * 20_000
RIGHT = hashlib.sha256(TEXT).hexdigest()


class Server(ThreadingHTTPServer):
    """The content to serve, and its faults."""

    text = TEXT
    mark: str | None = '"one"'
    cuts: list[int]  # number of bytes after which each of the next responses ends
    asked: list[str | None]  # the range of each request

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/text.txt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.headers.get("If-Range") == self.server.mark else 0
        body = self.server.text[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.server.text) - 1}/{len(self.server.text)}")
        if self.server.mark:
            self.send_header("ETag", self.server.mark)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.cuts, made.asked = [], []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.endswith(".lock")}


def test_an_address_is_a_corpus_and_is_downloaded_once(server: Server) -> None:
    told: list[str] = []
    assert corpora.place(server.address) == server.address
    run = launch.create("r", [server.address], TrainingSettings(), preset="toy")
    assert run.config().corpus == (server.address,) and server.asked == []
    assert corpus_size(server.address) is None and kind(server.address) == "downloaded once"
    for _ in range(2):
        made = corpus.load([server.address], byte_level(), 0.1, block_size=16, progress=told.append)
        assert len(made.train) + len(made.validation) == len(TEXT)
    assert server.asked == [None]
    assert any(line.startswith("downloading: 0.") and line.endswith(" of 0.9 MB") for line in told)


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 0]
    with pytest.raises(UserError, match=r"cut off after 1,000 of 860,000 bytes.*resumes where"):
        downloads.fetch(server.address, tmp_path / "t.txt", RIGHT)
    assert not (tmp_path / "t.txt").exists() and server.asked == [None, "bytes=1000-"]
    server.cuts = [5000, 7]  # each attempt gets some bytes
    downloads.fetch(server.address, tmp_path / "t.txt", RIGHT)
    assert server.asked[2:] == ["bytes=1000-", "bytes=6000-", "bytes=6007-"]
    assert (tmp_path / "t.txt").read_bytes() == TEXT and names(tmp_path) >= {"t.txt"}
    assert not [name for name in names(tmp_path) if "part" in name]


@pytest.mark.parametrize("mark", ['"two"', None, 'W/"weak"'])
def test_a_changed_file_is_downloaded_from_its_start(server: Server, tmp_path: Path, mark: str | None) -> None:
    server.cuts, server.mark = [1000, 0], '"one"' if mark and mark[0] == '"' else mark
    with pytest.raises(UserError):
        downloads.fetch(server.address, tmp_path / "t.txt", None)
    server.mark, server.text, server.cuts = mark, TEXT.upper(), []
    downloads.fetch(server.address, tmp_path / "t.txt", None)
    assert (tmp_path / "t.txt").read_bytes() == TEXT.upper()


def test_a_wrong_checksum_is_reported_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="SHA-256 is") as told:
        downloads.fetch(server.address, tmp_path / "t.txt", "0" * 64)
    assert "\n" not in str(told.value) and names(tmp_path) == set()


def test_no_file_and_no_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="404"):
        downloads.fetch(server.address.replace("text.txt", "missing"), tmp_path / "t.txt", None)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen: nobody else can at this port
        with pytest.raises(UserError, match=r"can't download .*refused"):
            downloads.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "t.txt", None)
    for address in ("http://", "https:///x", "http://[::1/x"):
        with pytest.raises(UserError, match="is not an address"):
            launch.create("r", [address], TrainingSettings(), preset="toy")
        with pytest.raises(UserError):
            downloads.fetch(address, tmp_path / "t.txt", None)
    assert names(tmp_path) <= {"tui-llm-home"}


def test_a_cancelled_download_keeps_its_partial_file(server: Server, tmp_path: Path) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloads.fetch(server.address, tmp_path / "t.txt", None, stop)
    downloads.fetch(server.address, tmp_path / "t.txt", None)
    assert server.asked[1] is not None and (tmp_path / "t.txt").read_bytes() == TEXT


def test_a_named_download_is_checked_every_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", (server.address, RIGHT))
    file = corpora.named("tinyshakespeare")
    assert file.read_bytes() == TEXT and file.parent == paths.cache_dir() / "texts"
    file.write_bytes(b"damaged")
    assert corpora.named("tinyshakespeare").read_bytes() == TEXT and len(server.asked) == 2
    monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", (server.address, "1" * 64))
    with pytest.raises(UserError, match="not the expected file"):
        corpora.named("tinyshakespeare")
