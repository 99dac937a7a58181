"""Files that are read and written whole.

Writing: in a folder aside, flushed to the disk, then renamed to its name, so that a reader finds the old file, the new one or
none, and never half of one. Reading: regular files only, up to a bound, so that nothing blocks and nothing takes all memory.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tui_llm import storage
from tui_llm.errors import UserError

JSON_MOST = 32 << 20  # bytes of a JSON file: those of a vocabulary have a few million
ASIDE, PART = ".tui-llm-", ".part"  # what the folders aside are called; nobody else's may be swept away
DAY = 86400.0


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a path aside, then renames that over `path`. Nothing is left on failure.

    Raises `UserError` where the disk is full or the folder can't be written.
    """
    try:
        with aside(path) as part:
            write(part)
            storage.sync_path(part)
            storage.replace(part, path)
        storage.sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"can't write {path}: {error.strerror or error}; {remedy(error)} or set TUI_LLM_HOME to another folder"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_aside`."""
    write_aside(path, lambda part: storage.write_bytes(part, data))


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """As `write_aside`, in UTF-8."""
    write_bytes(path, text.encode("utf-8", errors))


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if any("\ud800" <= c <= "\udfff" for c in text):  # a file's name that is not UTF-8: only escapes can carry it
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_text(path, text)


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Calls `fill` on an empty folder aside, then renames it to `folder`: it is there whole or not at all.

    An empty folder may be there already. Raises OSError, FileExistsError where something else is.
    """
    with aside(folder) as part:
        storage.mkdir(part)
        try:
            fill(part)
        except UserError as error:  # who reads it knows nothing of a folder aside
            raise UserError(str(error).replace(str(part), str(folder))) from error
        storage.sync_folder(part)
        if os.path.lexists(folder) and not _empty(folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
        if os.name == "nt" and folder.is_dir():
            storage.rmdir(folder)  # Windows renames over nothing
        storage.rename(part, folder)
    storage.sync_folder(folder.parent)


def _empty(folder: Path) -> bool:
    return not folder.is_symlink() and folder.is_dir() and not any(folder.iterdir())


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path of the name of `path` in an empty folder beside it. Whatever is there at the end is deleted.

    The folder is locked as long as it is used: those of killed processes are found by that, and deleted. Raises OSError.
    """
    storage.make_folders(path.parent)
    sweep(path.parent)
    folder, lock = _claimed(path.parent)
    try:
        yield folder / path.name
    finally:
        with suppress(OSError):  # what failed before tells more; the next `sweep` deletes it
            storage.rmtree(folder)
        storage.unlock_folder(lock)


def _claimed(parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = storage.temporary_folder(parent, ASIDE, PART)
        try:
            lock = storage.lock_folder(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # it was swept away between being made and being locked
        except OSError:
            with suppress(OSError):
                storage.rmdir(folder)
            raise
        if lock is None or folder.is_dir():
            return folder, lock
        storage.unlock_folder(lock)


def sweep(parent: Path) -> None:
    """Deletes what killed processes left aside in `parent`. Never raises."""
    with suppress(OSError):
        with os.scandir(parent) as entries:
            found = [parent / entry.name for entry in entries if entry.name.startswith(ASIDE)]
        for folder in found:
            if folder.name.endswith(PART):
                with suppress(OSError):
                    _sweep(folder)


def _sweep(folder: Path) -> None:
    lock = storage.lock_folder(folder)  # raises where its process lives
    try:
        if lock is not None or time.time() - folder.stat().st_mtime > DAY:
            storage.rmtree(folder)
    finally:
        storage.unlock_folder(lock)


def remedy(error: BaseException | None) -> str:
    """What to do where a file can't be written."""
    if isinstance(error, OSError) and error.errno in (
        errno.EINVAL,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EFBIG,
    ):
        return "move it away"
    sealed = isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return "make it writable" if sealed else "free some space there"


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def to_json(value: Any) -> str:
    """A line of JSON that every parser reads: numbers that it lacks (NaN, Infinity) are null."""
    return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class NotRegular(OSError):
    """A fifo, a device, a socket or a directory where a file should be."""


class TooLarge(OSError):
    """More bytes than such a file can have."""


_KINDS = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a fifo"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
          (stat.S_ISSOCK, "a socket"))  # fmt: skip


def open_regular(path: Path, most_bytes: int | None = None) -> io.BufferedReader:
    """Opens a file for reading. Never blocks, whatever `path` is.

    Raises OSError: `NotRegular` where it is something else than a file (links are followed), `TooLarge` where it has more
    than `most_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
                         | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))  # fmt: skip
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = next((words for test, words in _KINDS if test(found.st_mode)), "no file")
            raise NotRegular(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
        if most_bytes is not None and found.st_size > most_bytes:
            raise _too_large(path, found.st_size, most_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The bytes of a file. Raises OSError as `open_regular` does."""
    with open_regular(path, most_bytes) as file:
        data = bytearray()
        while block := file.read(1 << 20):
            data += block
            if len(data) > most_bytes:  # it has grown since, or its size says nothing (as in /proc)
                raise _too_large(path, len(data), most_bytes)
    return bytes(data)


def _too_large(path: Path, size: int, most: int) -> TooLarge:
    return TooLarge(errno.EFBIG, f"it has {size:,} bytes, and such a file has {most:,} at most", str(path))


def read_json(path: Path, most_bytes: int = JSON_MOST) -> Any:
    """Raises `UserError` where the file is missing, unreadable, too large or not JSON."""
    try:
        return json.loads(read_regular(path, most_bytes).decode("utf-8"))
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); it may be damaged or cut short") from error
