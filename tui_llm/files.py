"""Writing files so that a reader never finds half of one: beside it, flushed to the disk, then renamed over it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tui_llm import paths
from tui_llm.errors import UserError


def replace(part: Path, path: Path) -> None:
    """Renames `part` over `path`, whatever is there."""
    part.replace(path)


def write_aside(path: Path, write: Callable[[Path], None], place: Callable[[Path, Path], None] = replace) -> None:
    """Calls `write` on a temporary neighbour of `path`, then `place` gives that the name `path`. Nothing is left on failure.

    Raises `UserError` where the disk is full or the folder can't be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        place(temporary, path)
    except (OSError, ValueError) as error:
        raise UserError(cannot_write(path, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remedy(error: BaseException | None) -> str:
    """What to do where a file can't be written."""
    sealed = isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return "make it writable" if sealed else "free some space there"


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
    write_aside(path, lambda part: write_text(part, json_text(value)))


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Raises `UserError` where the file is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); it may be damaged or cut short") from error
