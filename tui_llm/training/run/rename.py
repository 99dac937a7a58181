"""Rename a run: its directory is renamed atomically."""

from __future__ import annotations

import dataclasses
import errno
import os
from contextlib import suppress

from filelock import Timeout

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.training.run.run import Run, check_name, runs


def rename(run: Run, name: str) -> Run:
    """Renames a run and returns it. Its branches then name the new one.

    Raises `UserError` if the name is invalid or taken, or if a worker is training the run.
    """
    to = Run(run.path.parent / check_name(name))
    if to.name == run.name:
        raise UserError(f"{name} is its name already; give another one")
    busy = UserError(f"run {run.name} is being trained; stop it first (tui-llm stop {run.name}), then rename it")
    if run.status().alive:
        raise busy
    try:
        with run.held(patience=1):  # no worker can start in the meantime
            if run.starting() is not None:
                raise busy
            _move(run, to)
    except Timeout:
        raise busy from None
    except OSError as error:
        raise UserError(f"can't rename the run {run.name} to {name}: {error.strerror or error}") from error
    for other in runs():
        with suppress(UserError):  # one that can't be read names its parent as before
            if (config := other.config()).parent == run.name:
                other.write_config(dataclasses.replace(config, parent=to.name))
    return to


def _move(run: Run, to: Run) -> None:
    taken = UserError(f"a run or folder {to.name!r} already exists; choose another name")
    if os.path.lexists(to.path):
        # POSIX renames a directory over an empty directory, and over nothing else; Windows does neither.
        if to.path.is_symlink() or not to.path.is_dir() or any(to.path.iterdir()):
            raise taken
        if os.name == "nt":
            storage.rmdir(to.path)
    try:
        storage.rename(run.path, to.path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):  # another process created it in the meantime
            raise taken from error
        raise
    storage.sync_folder(to.path.parent)
