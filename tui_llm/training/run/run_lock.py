"""Who trains a run: one worker at most, whatever is deleted by hand. No torch here.

A worker holds two locks as long as it lives: `lock`, a file in the run's directory (filelock), and the directory itself
(flock). A file can be deleted and made anew, and whoever locks the new one knows nothing of the old one's holder; the
directory can't, while the run is there. Where directories can't be locked (NFS), the worker that wrote `pid` counts as
long as it lives on this machine, and a worker sees at every step whether its lock is still the one at that path.
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
    """Another process may train the run by now."""


class RunLock:
    """The locks of one run. Cheap to make; nothing is held before `acquire`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "lock"
        self._lock: storage.Lock | None = None
        self._file: Identity | None = None  # of what is locked
        self._directory: Identity | None = None
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises filelock's `Timeout` where another process holds the run, OSError where no lock can be made."""
        if os.path.lexists(self.path) and not self.path.is_file():
            raise NotRegular(errno.EINVAL, "it is no regular file", str(self.path))
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
        if self._lock is not None:
            storage.unlock_folder(self._descriptor)
            self._descriptor = None
            self._lock.release()
            self._lock = None

    @property
    def lost(self) -> bool:
        """Whether the file that is locked is no longer the one at its path."""
        return self._lock is not None and _identity(self.path) != self._file

    @property
    def alone(self) -> bool:
        """Whether nobody else can have begun to train the run, lost or not: the directory is locked, and is still there."""
        return self._descriptor is not None and _identity(self.folder) == self._directory


def held(folder: Path) -> bool:
    """Whether a worker holds the run. Looking shares the locks for an instant: two who look don't take each other for one."""
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
    """The process that wrote down that it trains the run; None where there is none, or it is no worker of this run."""
    try:
        pid = int(read_regular(folder / "pid", 100))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if pid > 0 else []
    except (OSError, ValueError):
        return None
    return pid if any(word.endswith(os.fsencode(folder.name)) for word in words) else None


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
