"""The lock of a run: at most one worker trains it, even if the user deletes its files. Does not import torch.

A worker holds two locks while it lives: `lock`, a file in the run's directory (filelock), and the directory itself
(flock). A lock file can be deleted and created again, and a process that locks the new file does not notice the holder
of the old one; the directory can't be replaced like this while the run exists. Where directories can't be locked (NFS),
the process named in `pid` counts as the holder while it lives on this machine, and a worker checks at every step that
its lock file is still the one at that path.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from filelock import Timeout

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import NotRegular, open_regular, read_regular

try:
    import fcntl
except ImportError:  # no flock on Windows
    fcntl = None  # type: ignore[assignment]

Identity = tuple[int, int]


class LockLost(UserError):
    """The lock was lost: another process may be training the run."""


class RunLock:
    """The two locks of one run. Cheap to construct; `acquire` locks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "lock"
        self._lock: storage.Lock | None = None
        self._file: Identity | None = None  # of the locked file
        self._directory: Identity | None = None
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises filelock's `Timeout` if another process holds the run, OSError if no lock can be created."""
        if os.path.lexists(self.path) and not self.path.is_file():
            raise NotRegular(errno.EINVAL, "it is not a regular file", str(self.path))
        lock = storage.Lock(self.path, timeout=0)
        lock.acquire()
        try:
            self._file = _identity(self.path)
            self._descriptor = storage.lock_folder(self.folder)
            if self._descriptor is None and worker_pid(self.folder) not in (None, os.getpid()):
                raise Timeout(str(self.path))
            self._directory = _identity(self.folder)
            self._lock = lock
        except BaseException as error:
            storage.unlock_folder(self._descriptor)
            self._descriptor = None
            lock.release()
            if isinstance(error, BlockingIOError):
                raise Timeout(str(self.path)) from error
            raise

    def release(self) -> None:
        """Releases both locks, if held."""
        if self._lock is not None:
            storage.unlock_folder(self._descriptor)
            self._descriptor = None
            self._lock.release()
            self._lock = None

    @property
    def lost(self) -> bool:
        """Whether the locked file is no longer the one at its path."""
        return self._lock is not None and _identity(self.path) != self._file

    @property
    def alone(self) -> bool:
        """Whether no other process can have started to train the run: the directory is locked and still at its path."""
        return self._descriptor is not None and _identity(self.folder) == self._directory


def held(folder: Path) -> bool:
    """Whether a worker holds the run. The check uses a shared lock, so that concurrent checks do not see each other."""
    return _file_held(folder / "lock") or _directory_held(folder)


def _file_held(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            if fcntl is None:
                with storage.Lock(path, timeout=0):
                    return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except Timeout:
        return True
    except (NotRegular, FileNotFoundError):
        return False
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


def _directory_held(folder: Path) -> bool:
    try:
        descriptor = storage.lock_folder(folder, shared=True)
    except BlockingIOError:
        return True
    except OSError:
        return False
    storage.unlock_folder(descriptor)
    return descriptor is None and worker_pid(folder) is not None


def worker_pid(folder: Path) -> int | None:
    """Returns the pid in the file `pid`; None if there is none or that process is not a worker of this run."""
    try:
        pid = int(read_regular(folder / "pid", 100))
    except (OSError, ValueError):
        return None
    return pid if is_worker(pid, folder) else None


def is_worker(pid: int, folder: Path) -> bool:
    """Whether a process that has not ended is a worker of this run, by its command line in /proc."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if pid > 0 else []
    except OSError:
        return False
    return any(word.endswith(os.fsencode(folder.name)) for word in words)


def exists(pid: int) -> bool:
    """Whether there is a process with that pid, or one that has ended and that its parent has not reaped. Not known, and True,
    on Windows, where signal 0 is Ctrl+C."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
