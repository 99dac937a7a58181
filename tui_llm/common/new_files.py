"""Files and folders under names that a person gave: nothing that exists is replaced unless that is asked for.

What holds. A file is written whole beside its place, flushed to the disk, and gets its name by a hard link, which fails
where the name exists: there is no moment between the look and the write. Where the file system has no hard links (FAT, some
network and FUSE mounts) the name is first taken by an empty file that only we could create, and the finished file is
renamed over that: a program killed between the two leaves an empty file. With `force` a regular file is replaced by one
rename: a reader finds the old one or the new one.

A new folder is filled beside its place and renamed: rename(2) puts a directory only where there is nothing, or an empty
directory. Into a folder that exists, each file is placed as above, the one that makes it recognisable (`last`) at the end;
with `force` the replaced files wait in a hidden folder until all are placed, and are put back on an error. A program killed
in between leaves them there, and no file `last`: a folder that is refused, not a mixture of two models.
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
OLD = ".tui-llm-replaced-"  # begins the name of the folder in which replaced files wait
FORCE = ", or add --force"  # what the command line says after a `Taken`


class Taken(UserError):
    """Something has that name already, and nothing was written."""


def taken(path: Path) -> Taken:
    return Taken(f"there is something at {path} already, and nothing is overwritten; give another name")


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_file(path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """Where the file will be written: `path`, or what the link there points to with `force`. To be called before the work
    is done, too.

    Raises `Taken` where it exists and `force` is not given; `UserError` where it is something else than a file, or one of
    `inputs`, or lies in a model's or run's folder among them.
    """
    _not_an_input(path, inputs)
    mode = _mode(path)
    if mode is None:
        return path
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; give the name of a file")
    if not force:
        raise taken(path)
    real = Path(os.path.realpath(path))
    mode = _mode(real)
    if mode is None or not stat.S_ISREG(mode):
        raise UserError(f"{path} is no regular file, and only those are replaced; give another name")
    _not_an_input(real, inputs)
    return real


def write_new(path: Path, write: Callable[[Path], object], *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """`write` makes the file under a temporary name; then it gets its own. Raises as `check_file` does, and `UserError`
    where it can't be written."""
    path = check_file(path, force=force, inputs=inputs)
    write_aside(path, write, _replace if force else _place)


def _place(part: Path, path: Path) -> None:
    """Gives `part` the name `path`, unless that is taken. `part` may stay: whoever made it deletes it."""
    try:
        storage.link(part, path)
        return
    except FileExistsError:
        raise taken(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        storage.create_empty(path)
    except FileExistsError:
        raise taken(path) from None
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
    """To be called before the work is done, too. Raises `Taken` where the folder is there, not empty, and `force` is not
    given; `UserError` where something else is there, or `inputs` have it (see `check_file`)."""
    _not_an_input(folder, inputs)
    try:
        if folder.is_dir():
            if not force and any(folder.iterdir()):
                raise taken(folder)
            return
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from error
    if _mode(folder) is not None:
        raise UserError(f"{folder} is there and is no folder; give another name")


def write_folder(
    folder: Path,
    fill: Callable[[Path], object],
    *,
    last: str,
    force: bool = False,
    inputs: Iterable[Path] = (),
) -> None:
    """`fill` writes the files (no folders) into a temporary folder; then they get their place, the file `last` at the end.

    Raises as `check_folder` does, and `UserError` where it can't be written; what was there before then stays.
    """
    check_folder(folder, force=force, inputs=inputs)
    try:
        if not folder.is_dir():
            files.write_folder(folder, fill)
            return
        with files.aside(folder / "new") as part:
            storage.mkdir(part)
            fill(part)
            for path in part.iterdir():
                _not_an_input(folder / path.name, inputs)
            _move_in(part, folder, last, force)
        storage.sync_folder(folder)
    except FileExistsError as error:
        raise taken(folder) from error
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from error


def _move_in(part: Path, folder: Path, last: str, force: bool) -> None:
    """The files of `part` into `folder`; on an error everything is as before."""
    names = sorted((path.name for path in part.iterdir()), key=lambda name: (name == last, name))
    for name in names:
        mode = _mode(folder / name)
        if mode is not None and stat.S_ISDIR(mode):
            raise UserError(f"{folder / name} is a folder, and only files are replaced; give another folder")
    old = storage.temporary_folder(folder, OLD)
    replaced: list[str] = []
    placed: list[str] = []
    try:
        # `last` is moved away first: until it is placed, nobody takes the folder for whole.
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
        with suppress(OSError):  # raised where a file could not be put back: it is kept there
            storage.rmdir(old)
        raise
    storage.rmtree(old, ignore_errors=True)


# ── what both ask ────────────────────────────────────────────────────────────────────────────────────────────────────


def _mode(path: Path) -> int | None:
    """Of what has the name, a link included; None where nothing has."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(cannot_write(path, error)) from error


def _not_an_input(path: Path, inputs: Iterable[Path]) -> None:
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
