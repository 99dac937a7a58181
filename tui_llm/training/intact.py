"""Whether a checkpoint is still what was written: a SHA-256 of each of its files, noted down when it was saved. No torch.

A disk, a copy or a careless hand can change a file without shortening it. Weights with one flipped bit still load, and a
run that went on with them would no longer be the run it claims to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tui_llm.errors import UserError
from tui_llm.files import read_json

RECORD = "training.json"  # written last; it holds the digests of all the others


def digests(folder: Path) -> dict[str, str]:
    """Name → SHA-256, in hexadecimal, of every file in `folder` but the record itself. Raises OSError."""
    return {file.name: _digest(file) for file in sorted(folder.iterdir()) if file.name != RECORD}


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def check(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint, all of whose files are as they were written.

    One from before digests were noted down is taken at its word. Raises `UserError` where something is missing or changed.
    """
    if not (folder / RECORD).is_file():
        raise UserError(f"its {RECORD} is missing")
    record = read_json(folder / RECORD)
    wanted = record.get("sha256", {}) if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(wanted, dict):
        raise UserError(f"its {RECORD} is no record of a checkpoint")
    for name, digest in wanted.items():
        file = folder / Path(name).name
        try:
            found = _digest(file)
        except FileNotFoundError:
            raise UserError(f"its {file.name} is missing") from None
        except OSError as error:
            raise UserError(f"its {file.name} can't be read: {error.strerror or error}") from error
        if found != digest:
            raise UserError(f"its {file.name} is not what was saved")
    return record


def newest(checkpoints: Sequence[tuple[int, Path]], tell: Callable[[str], None]) -> tuple[int, Path] | None:
    """The newest of `checkpoints` (oldest first) that is intact; `tell` hears of those that were passed over."""
    for step, folder in reversed(checkpoints):
        try:
            check(folder)
        except UserError as error:
            tell(f"checkpoint-{step} is damaged and was passed over ({error})")
        else:
            return step, folder
    return None
