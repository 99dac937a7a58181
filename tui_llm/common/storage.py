"""All functions that change the file system; no other module of this package does (see tests/test_storage.py).

They equal those of `pathlib`, `os` and `shutil`, except for `faults`: while it is set, it is called before each
operation and may raise an OSError, truncate a write, or end the process. `scripts/io_faults.py` uses it.
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

_UNSYNCED = ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS")  # errors of file systems that can't flush a directory


class Faults(Protocol):
    def step(self, call: str, path: str, source: str = "") -> None:
        """Called before the operation `call`, of a rename or link with its source. May raise OSError, or end the process."""

    def write(self, path: str, data: Any, put: Callable[[Any], int | None]) -> int | None:
        """Called instead of `put(data)`, which writes to the file at `path`. Returns the number of bytes written."""

    def library(self, path: str, write: Callable[[], object]) -> None:
        """Called instead of `write()`, which writes the whole file at `path`."""


faults: Faults | None = None


def _step(call: str, path: str | Path, source: str | Path = "") -> None:
    if faults is not None:
        faults.step(call, str(path), str(source))


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _File(io.FileIO):
    """A file whose writes go through `faults`."""

    def write(self, data: Any) -> int:
        put = super().write
        return cast(int, put(data) if faults is None else faults.write(str(self.name), data, put))

    def truncate(self, size: int | None = None) -> int:
        _step("truncate", str(self.name))
        return super().truncate(size)


def open_file(path: Path, mode: str, buffering: int = -1) -> BinaryIO:
    """Open a regular file for writing, in one of `open`'s binary modes; `buffering=0` disables buffering.

    Raises OSError if a fifo, a device or a directory is in its place: it would block, or discard the data.
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
        if error.errno == errno.ENXIO:  # a fifo without a reader
            raise OSError(errno.EINVAL, "not a regular file", path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that no reader uses yet; otherwise use `files.write_aside`."""
    with open_file(path, "wb") as file:
        file.write(data)


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    write_bytes(path, text.encode("utf-8", errors))


def copy_file(source: Path, to: Path) -> None:
    with source.open("rb") as data, open_file(to, "wb") as file:
        shutil.copyfileobj(data, file, 1 << 20)
        sync(file)


def by_library(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write`, a library function that writes the file `path` itself, and give the file the umask's permissions,
    as our own files have: safetensors 0.8 restricts them to the owner."""
    path.touch()
    mode = path.stat().st_mode
    if faults is None:
        write(path)
    else:
        faults.library(str(path), lambda: write(path))
    path.chmod(mode & 0o777)


def temporary_file(folder: Path) -> BinaryIO:
    """An anonymous file, deleted when it is closed."""
    _step("open", folder)
    descriptor, name = tempfile.mkstemp(dir=folder)
    with suppress(OSError):  # Windows can't delete an open file: it is deleted with its folder
        Path(name).unlink()
    return io.BufferedRandom(_File(descriptor, "r+"))


def sync(file: BinaryIO | io.FileIO) -> None:
    """Flush a file to disk (fsync)."""
    file.flush()
    _step("fsync", str(file.name))
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """As `sync`, for a file that is already closed."""
    _step("fsync", path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a directory to disk; otherwise a power failure may undo a rename."""
    if os.name == "nt":  # Windows can't open a directory
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


def sync_tree(folder: Path) -> None:
    """Flush a folder with all that it contains, so that it can be given the name under which it counts as complete."""
    with os.scandir(folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    for child in children:
        if child.is_dir(follow_symlinks=False):
            sync_tree(Path(child.path))
        elif child.is_file(follow_symlinks=False):
            sync_path(Path(child.path))
    sync_folder(folder)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def replace(source: Path, to: Path) -> None:
    """Rename, replacing an existing file."""
    _step("replace", to, source)
    source.replace(to)


def rename(source: Path, to: Path) -> None:
    _step("rename", to, source)
    source.rename(to)


def link(source: Path, to: Path) -> None:
    """Create a hard link. Raises FileExistsError if `to` exists; OSError if the file system or this Python has no hard
    links."""
    _step("link", to, source)
    if not hasattr(os, "link"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(to))
    os.link(source, to)


def symlink(source: Path, to: Path) -> None:
    """Create a symbolic link to `source`. Raises FileExistsError if `to` exists; OSError if the system does not allow it."""
    _step("link", to, source)
    to.symlink_to(source)


def create_empty(path: Path) -> None:
    """Create an empty file. Raises FileExistsError if the name is taken."""
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
    """Create `path` and its parents, if missing."""
    if not path.is_dir():
        mkdir(path, parents=True, exist_ok=True)


def temporary_folder(folder: Path, prefix: str, suffix: str = "") -> Path:
    """Create an empty folder in `folder`, accessible to this user only."""
    _step("mkdir", folder)
    return Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=folder))


def rmdir(path: Path) -> None:
    _step("rmdir", path)
    path.rmdir()


def rmtree(path: Path, ignore_errors: bool = False) -> None:
    """As `shutil.rmtree`, which opens what it deletes and so waits forever at a fifo: a file of any kind is deleted, too.
    A link is refused."""
    if os.path.lexists(path) and not path.is_dir() and not path.is_symlink():
        try:
            unlink(path)
        except OSError:
            if not ignore_errors:
                raise
        return
    if faults is None:
        shutil.rmtree(path, ignore_errors=ignore_errors)
        return
    try:
        _rmtree(path)
    except OSError:
        if not ignore_errors:
            raise


def _rmtree(path: Path) -> None:
    """As `shutil.rmtree`, through this module's functions."""
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
    """filelock's FileLock, with fault injection."""

    def acquire(self, *args: Any, **options: Any) -> Any:
        _step("lock", self.lock_file)
        return super().acquire(*args, **options)


def lock_folder(folder: Path, *, shared: bool = False) -> int | None:
    """Lock a folder itself with flock. Returns the descriptor that holds the lock until it is closed; None if the file
    system (NFS) or the OS can't lock folders.

    Raises BlockingIOError if another process holds the lock, OSError if the folder can't be opened.
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
