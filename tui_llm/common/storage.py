"""Every change that this package makes to the disk goes through these functions (tests/test_storage.py holds it).

They do what `pathlib`, `os` and `shutil` do. What they add is `faults`: while it is set, it sees each call before the disk
does and may raise an OSError, let through only part of a write, or end the process. `scripts/io_faults.py` sets it.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from filelock import FileLock

try:
    import fcntl
except ImportError:  # no flock on Windows
    fcntl = None  # type: ignore[assignment]

_UNSYNCED = ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS")  # what a file system says that can't flush a directory


class Faults(Protocol):
    def step(self, call: str, path: str) -> None:
        """Before `call`. May raise OSError, or end the process."""

    def write(self, path: str, data: Any, put: Callable[[Any], int | None]) -> int | None:
        """In the place of `put(data)`, which writes to the file at `path`; returns how many bytes were written."""

    def library(self, path: str, write: Callable[[], object]) -> None:
        """In the place of `write()`, which writes the whole file at `path`."""


faults: Faults | None = None


def _step(call: str, path: str | Path) -> None:
    if faults is not None:
        faults.step(call, str(path))


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _File(io.FileIO):
    """A file whose writes can be made to fail."""

    def write(self, data: Any) -> int:
        put = super().write
        return cast(int, put(data) if faults is None else faults.write(str(self.name), data, put))

    def truncate(self, size: int | None = None) -> int:
        _step("truncate", str(self.name))
        return super().truncate(size)


def open_file(path: Path, mode: str, buffering: int = -1) -> BinaryIO:
    """Opens a regular file for writing, in one of `open`'s binary modes; 0 as `buffering` is none.

    A fifo, a device or a directory in its place is an OSError: it would block, or take everything and keep nothing.
    """
    _step("open", path)
    file = _File(path, mode.replace("b", ""), opener=_open_regular)
    if buffering == 0:
        return cast(BinaryIO, file)
    return io.BufferedRandom(file) if "+" in mode else io.BufferedWriter(file)


def _open_regular(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a fifo that nobody reads
            raise OSError(errno.EINVAL, "not a regular file", path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that nobody reads yet; for one that somebody may read, see `files.write_aside`."""
    with open_file(path, "wb") as file:
        file.write(data)


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    write_bytes(path, text.encode("utf-8", errors))


def copy_file(source: Path, to: Path) -> None:
    with source.open("rb") as data, open_file(to, "wb") as file:
        shutil.copyfileobj(data, file, 1 << 20)
        sync(file)


def by_library(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write`, a function of a library that writes the file `path` by itself. Who may read it is the umask's to say,
    as with what we write: safetensors 0.8 leaves a file that only its owner can read."""
    path.touch()
    mode = path.stat().st_mode
    if faults is None:
        write(path)
    else:
        faults.library(str(path), lambda: write(path))
    path.chmod(mode & 0o777)


def temporary_file(folder: Path) -> BinaryIO:
    """A file without a name, gone when it is closed."""
    _step("open", folder)
    descriptor, name = tempfile.mkstemp(dir=folder)
    with suppress(OSError):  # Windows deletes no open file: the folder is deleted after its use
        Path(name).unlink()
    return io.BufferedRandom(_File(descriptor, "r+"))


def sync(file: BinaryIO | io.FileIO) -> None:
    """Flushes a file to the disk itself."""
    file.flush()
    _step("fsync", str(file.name))
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """As `sync`, for a file that is closed already."""
    _step("fsync", path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flushes a folder's list of names: without it, a power cut may undo a rename."""
    if os.name == "nt":  # a directory can't be opened there
        return
    _step("fsync folder", folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {getattr(errno, name, None) for name in _UNSYNCED}:
            raise
    finally:
        os.close(descriptor)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def replace(source: Path, to: Path) -> None:
    """Renames, over a file that is there."""
    _step("replace", to)
    source.replace(to)


def rename(source: Path, to: Path) -> None:
    _step("rename", to)
    source.rename(to)


def link(source: Path, to: Path) -> None:
    """Gives a file a second name. Raises FileExistsError where `to` is taken; OSError where the file system, or this Python,
    has no hard links."""
    _step("link", to)
    if not hasattr(os, "link"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(to))
    os.link(source, to)


def create_empty(path: Path) -> None:
    """Raises FileExistsError where the name is taken."""
    _step("open", path)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def chmod(path: Path, mode: int) -> None:
    _step("chmod", path)
    path.chmod(mode)


def unlink(path: Path, missing_ok: bool = False) -> None:
    _step("unlink", path)
    path.unlink(missing_ok=missing_ok)


def mkdir(path: Path, parents: bool = False, exist_ok: bool = False) -> None:
    _step("mkdir", path)
    path.mkdir(parents=parents, exist_ok=exist_ok)


def make_folders(path: Path) -> None:
    """`path` and the folders above it, where they are not there yet."""
    if not path.is_dir():
        mkdir(path, parents=True, exist_ok=True)


def temporary_folder(folder: Path, prefix: str, suffix: str = "") -> Path:
    """A new empty folder in `folder`, which only this user can enter."""
    _step("mkdir", folder)
    return Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=folder))


def rmdir(path: Path) -> None:
    _step("rmdir", path)
    path.rmdir()


def rmtree(path: Path, ignore_errors: bool = False) -> None:
    if faults is None:
        shutil.rmtree(path, ignore_errors=ignore_errors)
        return
    try:
        _rmtree(path)
    except OSError:
        if not ignore_errors:
            raise


def _rmtree(path: Path) -> None:
    """As `shutil.rmtree`, a step at a time."""
    with os.scandir(path) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    for child in children:
        if child.is_dir(follow_symlinks=False):
            _rmtree(Path(child.path))
        else:
            unlink(Path(child.path))
    rmdir(path)


# ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Lock(FileLock):
    """filelock's lock on a file of its own."""

    def acquire(self, *args: Any, **options: Any) -> Any:
        _step("lock", self.lock_file)
        return super().acquire(*args, **options)


def lock_folder(folder: Path, *, shared: bool = False) -> int | None:
    """Locks a folder itself (flock), which nobody can delete from under its holder; returns the descriptor that holds it
    until it is closed, None where this file system, or this system, locks no folders (NFS).

    Raises BlockingIOError where another process holds it, and OSError where the folder can't be opened.
    """
    if fcntl is None:
        return None
    if not shared:
        _step("lock", folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def unlock_folder(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
