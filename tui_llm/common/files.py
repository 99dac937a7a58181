"""Files and folders that are written whole: in a folder aside, flushed to the disk, then renamed.

A reader finds the old file, the new one or none, and never half of one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError

ASIDE, PART = ".tui-llm-", ".part"  # what the folders aside are called; nobody else's may be swept away
DAY = 86400.0


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def write_aside(
    path: Path, write: Callable[[Path], object], place: Callable[[Path, Path], None] = storage.replace
) -> None:
    """Calls `write` on a path aside, then `place`, which gives that the name `path`. Nothing is left on failure.

    Raises `UserError` where the disk is full or the folder can't be written.
    """
    try:
        with aside(path) as part:
            write(part)
            storage.sync_path(part)
            place(part, path)
        storage.sync_folder(path.parent)
    except (OSError, ValueError) as error:
        raise UserError(cannot_write(path, error)) from error


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_aside`."""
    write_aside(path, lambda part: storage.write_bytes(part, data))


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """As `write_aside`, in UTF-8."""
    write_bytes(path, text.encode("utf-8", errors))


_OTHER_NAME = (
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTEMPTY,
)


def cannot_write(path: Path, error: BaseException) -> str:
    """The line that says why `path` can't be written, and what can be changed: the variable that names the folder where
    tui-llm chose the place, else the path that was asked for."""
    why = getattr(error, "strerror", None) or error
    ours = paths.chosen_by_us(path)
    other = "set TUI_LLM_HOME to another folder" if ours else "give another path"
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _OTHER_NAME):
        return f"can't write {path}: {why}; {other}"
    return f"can't write {path}: {why}; {remedy(error)} or {other}"


def json_text(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if any("\ud800" <= c <= "\udfff" for c in text):  # a file's name that is not UTF-8: only escapes can carry it
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return text


def write_json(path: Path, value: Any) -> None:
    """As `write_aside`."""
    write_text(path, json_text(value))


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


# ── JSON for programs ──────────────────────────────────────────────────────────────────────────────────────────────────────


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
