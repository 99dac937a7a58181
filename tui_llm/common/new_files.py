"""Write files and folders under names that the user gave, without overwriting anything unless `force` is set.

A file is written completely under a temporary name in the same directory, flushed to disk, and then hard-linked to its
name. The link fails if the name exists, so there is no race between a check and the write. On a file system without
hard links (FAT, some network and FUSE mounts) the name is first reserved with an exclusively created empty file, and
the finished file is renamed over it; a process killed in between leaves an empty file. With `force`, a regular file is
replaced by one rename: a reader sees the old one or the new one.

A new folder is filled under a temporary name and renamed: rename(2) replaces nothing but an empty directory. In an
existing folder each file is placed as above, the file `last`, which marks the folder as complete, at the end. With
`force`, replaced files are moved to a hidden folder until all are placed, and are restored on an error. A process
killed in between leaves that folder, and no file `last`: the folder is then invalid, rather than a mixture of two
models. The next replacement deletes that folder once it has placed all files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tui_llm.common import files, storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import cannot_write, write_aside

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EINVAL)
OLD = ".tui-llm-replaced-"  # prefix of the folder that holds replaced files
FORCE = ", or add --force"  # the command line appends this to the message of `AlreadyExists`


class AlreadyExists(UserError):
    """The name is taken; nothing was written."""


def already_exists(path: Path) -> AlreadyExists:
    return AlreadyExists(f"{path} already exists, and nothing is overwritten; give another name")


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_file(path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """The path to write to: `path`, or with `force` the target if it is a link. Call it before starting long work, too.

    Raises `AlreadyExists` if it exists and `force` is not set; `UserError` if it is not a regular file, is one of `inputs` or
    the file that standard input is redirected from, or is inside a model's or run's folder among `inputs`.
    """
    _not_an_input(path, inputs)
    mode = _mode(path)
    if mode is None:
        return path
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; give the name of a file")
    if not force:
        raise already_exists(path)
    real = Path(os.path.realpath(path))
    mode = _mode(real)
    if mode is None or not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a regular file, and only those are replaced; give another name")
    _not_an_input(real, inputs)
    return real


def write_new(path: Path, write: Callable[[Path], object], *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Call `write` on a temporary path, then rename that to `path`. Raises as `check_file`, and `UserError` if it can't
    be written."""
    path = check_file(path, force=force, inputs=inputs)
    write_aside(path, write, _replace if force else _place)


def _place(part: Path, path: Path) -> None:
    """Give `part` the name `path`, unless that exists. The caller deletes `part`, if it is still there."""
    try:
        storage.link(part, path)
        return
    except FileExistsError:
        raise already_exists(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        storage.create_empty(path)
    except FileExistsError:
        raise already_exists(path) from None
    try:
        storage.replace(part, path)
    except OSError:
        with suppress(OSError):
            storage.unlink(path)
        raise


def _replace(part: Path, path: Path) -> None:
    with suppress(FileNotFoundError):
        storage.chmod(part, stat.S_IMODE(path.stat().st_mode))
    storage.replace(part, path)


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_folder(folder: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Call it before starting long work, too. Raises `AlreadyExists` if the folder exists, is not empty and `force` is not set;
    `UserError` if the path is no folder, or conflicts with `inputs` (see `check_file`)."""
    _not_an_input(folder, inputs)
    try:
        if folder.is_dir():
            if not force and any(folder.iterdir()):
                raise already_exists(folder)
            return
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from error
    if _mode(folder) is not None:
        raise UserError(f"{folder} exists and is not a folder; give another name")


def write_folder(
    folder: Path,
    fill: Callable[[Path], object],
    *,
    last: str,
    force: bool = False,
    inputs: Iterable[Path] = (),
) -> None:
    """Call `fill` on a temporary folder to write the files (no subfolders), then move them into `folder`, the file
    `last` at the end.

    Raises as `check_folder`, and `UserError` if it can't be written; existing files are then unchanged.
    """
    check_folder(folder, force=force, inputs=inputs)
    try:
        if not folder.is_dir():
            files.write_folder(folder, fill)
            return
        with files.aside(folder / "new") as part:
            storage.mkdir(part)
            fill(part)
            storage.sync_tree(part)
            for path in part.iterdir():
                _not_an_input(folder / path.name, inputs)
            _move_in(part, folder, last, force)
        storage.sync_folder(folder)
    except FileExistsError as error:
        raise already_exists(folder) from error
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from error


def _move_in(part: Path, folder: Path, last: str, force: bool) -> None:
    """Move the files of `part` into `folder`; on an error, restore the previous state."""
    names = sorted((path.name for path in part.iterdir()), key=lambda name: (name == last, name))
    for name in names:
        mode = _mode(folder / name)
        if mode is not None and stat.S_ISDIR(mode):
            raise UserError(f"{folder / name} is a folder, and only files are replaced; give another folder")
    old, lock = files.claimed(folder, OLD, "")
    replaced: list[str] = []
    placed: list[str] = []
    try:
        # Move `last` away first: without it the folder counts as incomplete until the end.
        for name in reversed(names if force else []):
            if _mode(folder / name) is not None:
                storage.rename(folder / name, old / name)
                replaced.append(name)
        for name in names:
            _place(part / name, folder / name)
            placed.append(name)
    except BaseException:
        for name in placed:
            with suppress(OSError):
                storage.unlink(folder / name)
        for name in reversed(replaced):
            with suppress(OSError):
                storage.rename(old / name, folder / name)
        with suppress(OSError):  # fails if a file could not be restored, which then stays there
            storage.rmdir(old)
        raise
    finally:
        storage.unlock_folder(lock)
    storage.rmtree(old, ignore_errors=True)
    if force:  # all is in place: also what an earlier replacement moved away and did not delete
        files.sweep(folder, OLD, "")


# ── shared checks ────────────────────────────────────────────────────────────────────────────────────────────────────


def _mode(path: Path) -> int | None:
    """The mode of the directory entry, links not followed; None if there is none."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(cannot_write(path, error)) from error


def _is_stdin(path: Path) -> bool:
    """Whether standard input is redirected from this file, as in `COMMAND - --out path < path`."""
    try:
        given = os.fstat(0)
        return stat.S_ISREG(given.st_mode) and os.path.samestat(given, path.stat())
    except (OSError, ValueError):  # closed; or no file of that name yet
        return False


def _not_an_input(path: Path, inputs: Iterable[Path]) -> None:
    if _is_stdin(path):
        raise UserError(f"{path} is what this reads from standard input; give another name")
    try:
        real = Path(os.path.realpath(path))
        for one in inputs:
            source = Path(os.path.realpath(one))
            if real == source:
                raise UserError(f"{path} is what this reads; give another name")
            if real.is_relative_to(source) and (source / "config.json").is_file():
                raise UserError(f"{path} lies in the folder of a model or run that this reads; give another name")
    except (OSError, ValueError) as error:
        raise UserError(cannot_write(path, error)) from error
