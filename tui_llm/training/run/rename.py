"""Giving a run another name: its directory gets it, at once or not at all."""

from __future__ import annotations

import errno
import os

from filelock import Timeout

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.training.run.run import Run, check_name


def rename(run: Run, name: str) -> Run:
    """The run under its new name. Raises `UserError` where that can name no run, is taken, or a worker is at the run."""
    to = Run(run.path.parent / check_name(name))
    if to.name == run.name:
        raise UserError(f"{name} is its name already; give another one")
    busy = UserError(f"run {run.name} is being trained; stop it first (tui-llm stop {run.name}), then rename it")
    if run.status().alive:
        raise busy
    try:
        with run.held(patience=1):  # no worker can begin meanwhile
            _move(run, to)
    except Timeout:
        raise busy from None
    except OSError as error:
        raise UserError(f"can't rename the run {run.name} to {name}: {error.strerror or error}") from error
    return to


def _move(run: Run, to: Run) -> None:
    taken = UserError(f"there is a run or folder {to.name!r} already; choose another name")
    if os.path.lexists(to.path):
        # An empty directory is nobody's: a system other than Windows renames over it, and over nothing else.
        if to.path.is_symlink() or not to.path.is_dir() or any(to.path.iterdir()):
            raise taken
        if os.name == "nt":
            storage.rmdir(to.path)
    try:
        storage.rename(run.path, to.path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):  # made by someone else meanwhile
            raise taken from error
        raise
    storage.sync_folder(to.path.parent)
