"""Resumable downloads: into a partial file next to the target, verified by SHA-256, then renamed."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import Timeout

from tui_llm.common import storage
from tui_llm.common.errors import UserError, network_reason
from tui_llm.common.files import check_space, write_json
from tui_llm.common.foreign_files import open_foreign, read_json
from tui_llm.common.numbers import file_size

Progress = Callable[[str], None]
MOST = 100_000_000_000  # bytes of a file: twice OpenWebText
_BLOCK = 1 << 18  # bytes read at a time
_ATTEMPTS = 3  # connections to try; stops at one that brings no data


def fetch(address: str, path: Path, sha256: str | None, progress: Progress = lambda _: None) -> None:
    """Download `address` to `path`. An interrupted download is resumed if the server confirms that the file is
    unchanged. A lock file prevents concurrent downloads of the same file. `progress` is called a few times a second; an
    exception that it raises ends the download, and the partial file stays for the next call.

    Raises `UserError` if it can't be downloaded or does not match `sha256`. What a server sends is limited to `MOST` bytes, and to
    the free space on the disk.
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
                _download(address, part, progress)
                _settle(address, part, path, sha256)
        finally:
            lock.release()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"can't download {address} ({network_reason(error)}); try again (it resumes where it was cut off), or get the file elsewhere and name it"
        ) from error


def whole(path: Path, sha256: str | None) -> bool:
    """Whether `path` exists and, if `sha256` is given, matches it."""
    if sha256 is None or not path.is_file():
        return path.is_file()
    with open_foreign(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _settle(address: str, part: Path, path: Path, sha256: str | None) -> None:
    storage.unlink(_mark(part), missing_ok=True)
    if not whole(part, sha256):
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        storage.unlink(part)
        raise UserError(
            f"{address} is not the expected file: its SHA-256 is {found[:12]}…, not {(sha256 or '')[:12]}…; "
            "get the file elsewhere and name it"
        )
    storage.sync_path(part)
    storage.replace(part, path)
    storage.sync_folder(path.parent)


def _mark(part: Path) -> Path:
    """The path of the validator (ETag or Last-Modified) of the file in `part`, which a range request needs."""
    return part.with_name(part.name + ".json")


def _download(address: str, part: Path, progress: Progress) -> None:
    """Download into `part`, with a few connections if they are interrupted. Raises OSError on failure."""
    for attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _connect(address, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code != 416 or not before:
                raise OSError(f"the server says {error.code} {error.reason}") from error
            storage.unlink(part)  # range not satisfiable, the file on the server is shorter: start over
        except (OSError, http.client.HTTPException):
            now = part.stat().st_size if part.exists() else 0
            if attempt + 1 == _ATTEMPTS or now <= before:
                raise
    raise OSError("the server can't resume the download")


def _connect(address: str, part: Path, progress: Progress) -> None:
    """One connection: download the rest of the file, or all of it."""
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
            raise OSError("the server returned another byte range than requested")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if not goes_on:
            storage.unlink(_mark(part), missing_ok=True)
        with storage.open_file(part, "ab" if goes_on else "wb") as file:
            if not goes_on:
                etag = answer.headers.get("ETag", "")
                # Weak ETags can't be used in If-Range.
                mark = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
                if mark:
                    write_json(_mark(part), {"mark": mark})
            have = _copy(answer, file, have, total, address, progress)
    if total is not None and have < total:
        raise OSError(f"it was cut off after {have:,} of {total:,} bytes")


def _copy(
    answer: http.client.HTTPResponse, file: BinaryIO, have: int, total: int | None, address: str, progress: Progress
) -> int:
    """Write the rest of the answer behind the `have` bytes that the file has. Returns their number then.

    Raises `UserError` instead of writing bytes for which there is no room: an answer may announce more than there is, or never end.
    What has come of one without a length is dropped then.
    """
    of = f" of {total / 1e6:.1f}" if total else ""
    while data := answer.read(_BLOCK):
        try:
            if (total or have + len(data)) > MOST:
                raise UserError(
                    f"{address} has more than the {file_size(MOST)} that a text may have; get a part of it elsewhere and name the file"
                )
            check_space(address, total - have if total else len(data), Path(file.name).parent)
        except UserError:
            if not total:
                file.seek(0)
                file.truncate()
            raise
        file.write(data)
        have += len(data)
        progress(f"downloading: {have / 1e6:.1f}{of} MB")
    return have
