"""Verify a checkpoint against the SHA-256 of each file, recorded when it was saved. No torch.

A disk error, a copy or an edit can change a file without changing its length. Weights with one flipped bit still load,
and a resumed run would continue from the wrong weights.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import TOKENIZER, is_unreadable, open_foreign, read_json
from tui_llm.llm.model.tensor_shapes import read_header

RECORD = "training.json"  # written last; holds the digests of all other files
WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
LARGE = 1 << 30  # bytes: larger weights are not hashed just to open the model


def digests(folder: Path) -> dict[str, str]:
    """File name → SHA-256, in hexadecimal, of every file in `folder` except the record. Raises OSError."""
    return {file.name: _digest(file) for file in sorted(folder.iterdir()) if file.name != RECORD}


def _digest(file: Path) -> str:
    with open_foreign(file, None if file.suffix == ".safetensors" else TOKENIZER) as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def check(folder: Path, without: Sequence[str] = ()) -> dict[str, Any]:
    """Verify a checkpoint and return its record; files named in `without` are skipped.

    A record without digests (an older format) is accepted. Raises `UserError` if something is missing or changed, or if it
    can't be read (`is_unreadable`).
    """
    try:
        return _check(folder, without)
    except OSError as error:
        raise UserError(f"it can't be read: {error.strerror or error}") from error


def _check(folder: Path, without: Sequence[str]) -> dict[str, Any]:
    """Raises also OSError, where the folder can't be looked at."""
    if not (folder / RECORD).is_file():
        raise UserError(f"its {RECORD} is missing")
    record = read_json(folder / RECORD)
    wanted = record.get("sha256", {}) if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(wanted, dict):
        raise UserError(f"its {RECORD} is not a record of a checkpoint")
    for name, digest in wanted.items():
        file = folder / Path(name).name
        if file.name in without:
            continue
        if not file.exists():
            raise UserError(f"its {file.name} is missing")
        try:
            if file.suffix == ".safetensors":
                read_header(file)  # the header gives the file's length, so an oversized sparse file is not read
            found = _digest(file)
        except UserError as error:
            raise UserError(f"its {file.name} can't be read: {error}") from error
        if found != digest:
            raise UserError(f"its {file.name} is not what was saved")
    return record


def check_model(folder: Path) -> None:
    """As `check`, for opening a model: skips the optimizer's state, and does not hash weights over a gigabyte. Results
    are cached by inode, size and modification time, so an unchanged folder is not read again. Raises `UserError`."""
    try:
        stats = [file.stat() for file in sorted(folder.iterdir())]
    except OSError as error:
        raise UserError(f"it can't be read: {error.strerror or error}") from error
    _check_model(folder, tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats))


@functools.lru_cache(maxsize=64)
def _check_model(folder: Path, _marks: tuple[tuple[int, int, int], ...]) -> None:
    weights = folder / WEIGHTS
    large = weights.is_file() and weights.stat().st_size > LARGE
    check(folder, without=(OPTIMIZER, WEIGHTS) if large else (OPTIMIZER,))


def newest(
    checkpoints: Sequence[tuple[int, Path]],
    report: Callable[[str], None],
    check: Callable[[Path], object] = check,
) -> tuple[int, Path] | None:
    """The newest of `checkpoints` (oldest first) that passes `check`; `report` gets a line for each that was skipped."""
    for step, folder in reversed(checkpoints):
        try:
            check(folder)
        except UserError as error:
            why = "can't be read" if is_unreadable(error) else "is damaged"
            report(f"checkpoint-{step} {why} and was skipped ({error})")
        else:
            return step, folder
    return None


def newest_of_run(
    name: str, checkpoints: Sequence[tuple[int, Path]], check: Callable[[Path], object] = check
) -> tuple[int, Path, list[str]]:
    """As `newest`: step, folder, and a line for each checkpoint that was skipped. Raises `UserError` if none is
    intact."""
    passed: list[str] = []
    found = newest(checkpoints, passed.append, check)
    if found is None:
        raise UserError(
            f"run {name} has no intact checkpoint: {'; '.join(passed)}; resume it to make one"
            if passed
            else f"run {name} has no checkpoint yet; wait for its first one"
        )
    return *found, passed
