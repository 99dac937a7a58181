"""Printing, for people and for programs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def put(value: object) -> None:
    print(value)


def put_json(value: Any) -> None:
    from tui_llm.common.files import to_json

    print(to_json(value))


def put_sentences(header: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int]) -> None:
    """Prints a table whose last column has sentences: wrapped to the width of a terminal; elsewhere a row is one line, for
    other programs."""
    import shutil
    import sys

    from tui_llm.facts import report

    put(report.table(header, rows, left, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))


def show_progress(line: str) -> None:
    """Replaces the line on standard error, if that is a terminal; an empty `line` clears it."""
    import shutil
    import sys

    from tui_llm.common.display import truncate, visible

    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[2K{truncate(visible(line), width)}" if line else "\r\x1b[2K")
        sys.stderr.flush()


def out_path(text: str, option: str) -> Path:
    """The path that the user gave to be written. Raises `UserError` where it is empty."""
    if not text.strip():
        raise UserError(f"{option} is empty; give the path to write to")
    from tui_llm.common import paths

    return paths.absolute(text)


def inputs_of(options: argparse.Namespace) -> tuple[Path, ...]:
    """What the command reads, and must not write to: its model, and the file of its text or pairs. Raises `UserError` where
    there is none of that name."""
    from tui_llm.common import paths
    from tui_llm.llm.hub.lookup import find

    files = (getattr(options, name, None) for name in ("file", "pairs"))
    return (find(options.model).folder, *(paths.absolute(file) for file in files if file is not None))


def keep_folder(options: argparse.Namespace) -> str | None:
    """The model folder to write that `--keep` names, if it was given. Raises `UserError` if it can't be made: call it before
    the work, which takes time."""
    if options.keep is None:
        return None
    from tui_llm.instruments.learn.model_folder import new_folder

    folder = str(out_path(options.keep, "--keep"))
    new_folder(folder, force=options.force, inputs=inputs_of(options))
    return folder
