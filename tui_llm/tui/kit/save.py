"""Saves what is shown to a new file in the current folder, never over an existing one."""

from __future__ import annotations

import os
from pathlib import Path

from tui_llm.common import paths, storage
from tui_llm.common.new_files import AlreadyExists, write_new


def save_new(stem: str, suffix: str, aside: str, text: str) -> Path:
    """Writes `text` to `stem-N.suffix`, the first free name of that kind, and returns the path (see `free_path`).
    Raises `UserError` if it can't be written."""
    while True:
        path = free_path(stem, suffix, aside)
        try:
            write_new(path, lambda part: storage.write_text(part, text))
        except AlreadyExists:  # another process created it in the meantime
            continue
        return path


def free_path(stem: str, suffix: str, aside: str) -> Path:
    """`stem-N.suffix`, the first that is free, in the current folder or, if that is not writable, in the data folder's
    `aside`. Raises `UserError` if neither exists."""
    here = _here()
    return free_name((here if here is not None else paths.data_dir() / aside) / f"{stem}-1.{suffix}")


def free_name(path: Path, *, folder: bool = False) -> Path:
    """`path` or, if it exists, the next name with a free number `-N`: before a file's suffix, at the end of a folder's name."""
    stem, suffix = (path.name, "") if folder else (path.stem, path.suffix)
    number = 1
    if (head := stem.rpartition("-"))[2].isdecimal() and head[0]:
        stem, number = head[0], int(head[2])
    while os.path.lexists(path):
        number += 1
        path = path.with_name(f"{stem}-{number}{suffix}")
    return path


def set_aside(path: Path) -> Path:
    """Renames a file that can't be read to the first free `STEM-damaged.SUFFIX`, and returns that. Raises OSError."""
    aside = free_name(path.with_name(f"{path.stem}-damaged{path.suffix}"))
    storage.rename(path, aside)
    storage.sync_folder(path.parent)
    return aside


def _here() -> Path | None:
    """The current folder if it exists and is writable, else None."""
    try:
        here = Path.cwd()
    except OSError:  # the folder was deleted
        return None
    return here if os.access(here, os.W_OK) else None
