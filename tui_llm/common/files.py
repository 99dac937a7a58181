"""Atomic writes of files and folders: to a temporary folder next to the target, flushed to disk, then renamed.

A reader sees the old file, the new one or none, but never a partial one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tui_llm.common import paths, storage
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import file_size

ASIDE, PART = ".tui-llm-", ".part"  # name of the temporary folders; only these are deleted by `sweep`
DAY = 86400.0
SPARE = 100_000_000  # bytes that a download leaves free for other files
LOCKED = 5.0  # seconds to wait for another process that writes the same file


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def write_aside(
    path: Path, write: Callable[[Path], object], place: Callable[[Path, Path], None] = storage.replace
) -> None:
    """Call `write` on a temporary path, then `place`, which renames it to `path`. On failure nothing is left.

    Raises `UserError` if the disk is full or the folder is not writable.
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
    """Write a file atomically, see `write_aside`."""
    write_aside(path, lambda part: storage.write_bytes(part, data))


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file atomically in UTF-8, see `write_aside`."""
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
    """The message why `path` can't be written and what to change: an environment variable if tui-llm chose the folder,
    else the path that the user gave."""
    why = getattr(error, "strerror", None) or error
    ours = paths.in_own_folders(path)
    other = "set TUI_LLM_HOME to another folder" if ours else "give another path"
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _OTHER_NAME):
        return f"can't write {path}: {why}; {other}"
    return f"can't write {path}: {why}; {remedy(error)} or {other}"


def json_text(value: Any) -> str:
    """`value` as indented JSON that ends with a line feed. Raises ValueError on NaN or infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if any("\ud800" <= c <= "\udfff" for c in text):  # a file name that is not UTF-8: write ASCII escapes
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return text


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, see `write_aside`."""
    write_text(path, json_text(value))


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Call `fill` on an empty temporary folder, then rename it to `folder`, which is then complete or absent.

    An empty folder may exist there. Raises OSError; FileExistsError if anything else exists there.
    """
    with aside(folder) as part:
        storage.mkdir(part)
        try:
            fill(part)
        except UserError as error:  # don't show the temporary folder's name
            raise UserError(str(error).replace(str(part), str(folder))) from error
        storage.sync_tree(part)
        if os.path.lexists(folder) and not _empty(folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
        if os.name == "nt" and folder.is_dir():
            storage.rmdir(folder)  # Windows does not rename over an existing folder
        storage.rename(part, folder)
    storage.sync_folder(folder.parent)


def delete_folder(folder: Path) -> None:
    """Delete a folder, which gets a temporary folder's name first: if the process is killed meanwhile, nothing incomplete keeps
    its name, and the next `sweep` of its parent deletes the rest. Creates nothing, so that it works on a full disk. Raises OSError,
    also for a link."""
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "it is a link", str(folder))
    sweep(folder.parent)
    gone = folder.with_name(f"{ASIDE}{secrets.token_hex(8)}{PART}")
    lock = None
    with suppress(BlockingIOError):  # another process looks at this moment whether the folder is in use
        lock = storage.lock_folder(folder)
    try:
        storage.rename(folder, gone)
        storage.rmtree(gone)
    finally:
        storage.unlock_folder(lock)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock beside the file, for those who read it, change a part and write it again. Raises `UserError`, also for an
    OSError inside."""
    try:
        storage.make_folders(path.parent)
        with storage.Lock(f"{path}.lock", timeout=LOCKED):
            yield
    except (OSError, NotImplementedError) as error:
        raise UserError(cannot_write(path, error)) from error


def _empty(folder: Path) -> bool:
    return not folder.is_symlink() and folder.is_dir() and not any(folder.iterdir())


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path with the name of `path` in an empty temporary folder next to it. The folder is deleted at the end.

    It is locked while in use; unlocked ones belong to killed processes and are deleted. Raises OSError.
    """
    storage.make_folders(path.parent)
    sweep(path.parent)
    folder, lock = claimed(path.parent)
    try:
        yield folder / path.name
    finally:
        with suppress(OSError):  # an earlier error matters more; the next `sweep` deletes it
            storage.rmtree(folder)
        storage.unlock_folder(lock)


def claimed(parent: Path, prefix: str = ASIDE, suffix: str = PART) -> tuple[Path, int | None]:
    """An empty temporary folder in `parent`, and its lock: while it is held, no `sweep` deletes the folder. Raises OSError."""
    while True:
        folder = storage.temporary_folder(parent, prefix, suffix)
        try:
            lock = storage.lock_folder(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process's `sweep` deleted it before it was locked
        except OSError:
            with suppress(OSError):
                storage.rmdir(folder)
            raise
        if lock is None or folder.is_dir():
            return folder, lock
        storage.unlock_folder(lock)


def sweep(parent: Path, prefix: str = ASIDE, suffix: str = PART) -> None:
    """Delete the temporary folders of killed processes in `parent`. Never raises."""
    with suppress(OSError):
        with os.scandir(parent) as entries:
            found = [parent / entry.name for entry in entries if entry.name.startswith(prefix)]
        for folder in found:
            if folder.name.endswith(suffix):
                with suppress(OSError):
                    _sweep(folder)


def _sweep(folder: Path) -> None:
    lock = storage.lock_folder(folder)  # raises if its process is alive
    try:
        if lock is not None or time.time() - folder.stat().st_mtime > DAY:
            storage.rmtree(folder)
    finally:
        storage.unlock_folder(lock)


def remedy(error: BaseException | None) -> str:
    """What to do if a file can't be written, or can't be read before it is."""
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return "check that disk"
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


def check_space(what: str, count: int, folder: Path) -> None:
    """Raises `UserError`, which names `what` is downloaded, if its next `count` bytes don't fit into `folder` with `SPARE` left free."""
    free = shutil.disk_usage(folder).free
    if count > max(0, free - SPARE):
        raise UserError(
            f"{what} needs {file_size(count)} more, but only {file_size(free)} are free in {folder}, and {file_size(SPARE)} are left "
            "for other files; free some space there or set TUI_LLM_HOME to another folder"
        )


# ── JSON for programs ────────────────────────────────────────────────────────────────────────────────────────────────


def to_json(value: Any) -> str:
    """One line of standard JSON: NaN and Infinity become null."""
    return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
