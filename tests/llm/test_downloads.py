"""Downloading texts from a local server that truncates, sends wrong content and refuses."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.files import SPARE
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
    length: int | None = None  # the announced one; 0: none

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
        if self.server.length != 0:
            self.send_header("Content-Length", str(self.server.length or len(body)))
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


def test_an_answer_without_a_length_ends_at_the_limit(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.length, told = 0, list[str]()
    monkeypatch.setattr(downloads, "MOST", len(TEXT))
    downloads.fetch(server.address, tmp_path / "whole.txt", RIGHT)
    monkeypatch.setattr(downloads, "MOST", len(TEXT) - 1)
    with pytest.raises(UserError, match=r"has more than the 0\.9 MB that a text may have; get a part") as caught:
        downloads.fetch(server.address, tmp_path / "t.txt", None, told.append)
    assert "\n" not in str(caught.value) and told[-1] == "downloading: 0.8 MB"
    assert not (tmp_path / "t.txt").exists() and (tmp_path / ".t.txt.part").stat().st_size == 0


def test_an_announced_length_over_the_limit_is_refused_at_once(server: Server, tmp_path: Path) -> None:
    server.length, told = downloads.MOST + 1, list[str]()
    with pytest.raises(UserError, match=r"has more than the 100\.00 GB that a text may have"):
        downloads.fetch(server.address, tmp_path / "t.txt", None, told.append)
    assert told == [] and (tmp_path / ".t.txt.part").stat().st_size == 0


@pytest.mark.parametrize("announced", [True, False])
def test_a_download_leaves_space_for_other_files(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    part, usage = tmp_path / ".t.txt.part", namedtuple("usage", "free")
    room = 600_000

    def disk(folder: Path) -> usage:
        assert folder == tmp_path
        return usage(SPARE + room - part.stat().st_size)

    monkeypatch.setattr(shutil, "disk_usage", disk)
    server.length, told = None if announced else 0, list[str]()
    with pytest.raises(UserError, match=r"MB more, but only .* are free in .*, and 100\.0 MB are left for other files"):
        downloads.fetch(server.address, tmp_path / "t.txt", None, told.append)
    assert told == ([] if announced else ["downloading: 0.3 MB", "downloading: 0.5 MB"])
    assert part.stat().st_size == 0
    room = 2_000_000
    downloads.fetch(server.address, tmp_path / "t.txt", RIGHT)


def test_what_was_resumed_stays_while_the_disk_is_full(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cuts = [1000, 0]
    with pytest.raises(UserError, match="cut off"):
        downloads.fetch(server.address, tmp_path / "t.txt", RIGHT)
    free, usage = 1000, namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free))
    with pytest.raises(UserError, match=r"needs 0\.9 MB more, but only 0\.0 MB are free"):
        downloads.fetch(server.address, tmp_path / "t.txt", RIGHT)
    free = SPARE + len(TEXT)
    downloads.fetch(server.address, tmp_path / "t.txt", RIGHT)
    assert server.asked[-1] == "bytes=1000-" and (tmp_path / "t.txt").read_bytes() == TEXT


def test_a_named_download_is_checked_every_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", (server.address, RIGHT))
    file = corpora.named("tinyshakespeare")
    assert file.read_bytes() == TEXT and file.parent == paths.cache_dir() / "texts"
    file.write_bytes(b"damaged")
    assert corpora.named("tinyshakespeare").read_bytes() == TEXT and len(server.asked) == 2
    monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", (server.address, "1" * 64))
    with pytest.raises(UserError, match="not the expected file"):
        corpora.named("tinyshakespeare")
