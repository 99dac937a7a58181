"""Writing files so that a reader never finds half of one: beside it, flushed to the disk, then renamed over it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tui_llm.errors import UserError
from tui_llm.foreign_files import read_json as read_json


def write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` on a temporary neighbour of `path`, then renames that over it. Nothing is left on failure.

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
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"can't write {path}: {error.strerror or error}; {remedy(error)} or set TUI_LLM_HOME to another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remedy(error: BaseException | None) -> str:
    """What to do where a file can't be written."""
    sealed = isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return "make it writable" if sealed else "free some space there"


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if any("\ud800" <= c <= "\udfff" for c in text):  # a file's name that is not UTF-8: only escapes can carry it
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_aside(path, lambda part: _write_text(part, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
