"""Texts from the network: into a file beside the cached one, gone on with where it was cut off, checked, then renamed."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_json
from tui_llm.common.foreign_files import open_foreign, read_json

Progress = Callable[[str], None]
_BLOCK = 1 << 18  # bytes read at a time
_ATTEMPTS = 3  # as long as each brings something


def fetch(address: str, path: Path, sha256: str | None, progress: Progress = lambda _: None) -> None:
    """Downloads `address` to `path`. What an earlier call, cut off, had brought is gone on with, where the server can say
    that it is still the same file. Two at once don't do the work twice. `progress` is told a few times a second; what
    it raises ends the work, and what has been brought stays for the next call.

    Raises `UserError` where it can't be downloaded or is not what `sha256` says.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        storage.make_folders(path.parent)
        lock = storage.Lock(path.with_name(f".{path.name}.lock"))
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except Timeout:
                progress("waiting for another run, which is downloading the same text")
        try:
            if not whole(path, sha256):
                _bring(address, part, progress)
                _settle(address, part, path, sha256)
        finally:
            lock.release()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"can't download {address} ({reason}); try again (it goes on where it was cut off), or get the file elsewhere and name it"
        ) from error


def whole(path: Path, sha256: str | None) -> bool:
    """Whether `path` is there and, where `sha256` is given, the file that it should be."""
    if sha256 is None or not path.is_file():
        return path.is_file()
    with open_foreign(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _settle(address: str, part: Path, path: Path, sha256: str | None) -> None:
    storage.unlink(_mark(part), missing_ok=True)
    if not whole(part, sha256):
        found = hashlib.sha256(part.read_bytes()).hexdigest()
        storage.unlink(part)
        raise UserError(
            f"{address} is not the file that it should be: its SHA-256 is {found[:12]}…, not {(sha256 or '')[:12]}…; "
            "get the file elsewhere and name it"
        )
    storage.sync_path(part)
    storage.replace(part, path)
    storage.sync_folder(path.parent)


def _mark(part: Path) -> Path:
    """Where the server's mark of the file in `part` is kept: by it, the rest is asked for."""
    return part.with_name(part.name + ".json")


def _bring(address: str, part: Path, progress: Progress) -> None:
    """Fills `part`, a few connections long where they are cut off. Raises OSError where it can't."""
    for attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _connect(address, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code != 416 or not before:
                raise OSError(f"the server says {error.code} {error.reason}") from error
            storage.unlink(part)  # it has less than we have: from the beginning
        except (OSError, http.client.HTTPException):
            now = part.stat().st_size if part.exists() else 0
            if attempt + 1 == _ATTEMPTS or now <= before:
                raise
    raise OSError("the server doesn't give the rest of it")


def _connect(address: str, part: Path, progress: Progress) -> None:
    """One connection: the rest of the file, or all of it."""
    have, mark = (part.stat().st_size if part.exists() else 0), None
    with suppress(UserError, KeyError, TypeError):
        mark = str(read_json(_mark(part))["mark"])
    request = urllib.request.Request(address, headers={"User-Agent": "tui-llm", "Accept-Encoding": "identity"})
    if have and mark:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", mark)
    with urllib.request.urlopen(request, timeout=20) as answer:
        goes_on = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        if answer.status == 206 and not goes_on:
            storage.unlink(part, missing_ok=True)
            raise OSError("the server gave another part of it than was asked for")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if not goes_on:
            storage.unlink(_mark(part), missing_ok=True)
        with storage.open_file(part, "ab" if goes_on else "wb") as file:
            if not goes_on:
                etag = answer.headers.get("ETag", "")
                mark = etag if etag.startswith('"') else answer.headers.get("Last-Modified")  # a weak one is no mark
                if mark:
                    write_json(_mark(part), {"mark": mark})
            while data := answer.read(_BLOCK):
                file.write(data)
                have += len(data)
                of = f" of {total / 1e6:.1f}" if total else ""
                progress(f"downloading: {have / 1e6:.1f}{of} MB")
    if total is not None and have < total:
        raise OSError(f"it was cut off after {have:,} of {total:,} bytes")
