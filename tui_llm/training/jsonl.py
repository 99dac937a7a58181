"""Files of JSON lines that only grow: written a whole line at a time, read past any damage, cut back after a kill."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tui_llm.files import write_aside

T = TypeVar("T")

GROWING = ("metrics.jsonl", "samples.jsonl")  # each line of them names the `step` that it belongs to
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def append(file: io.FileIO, value: dict[str, Any]) -> None:
    """One JSON line in one write, so that a reader never sees two halves mixed. Raises OSError where the disk is full;
    no half line is left then."""
    line = json.dumps({k: v for k, v in value.items() if v is not None}, allow_nan=False).encode() + b"\n"
    written = file.write(line)
    if written != len(line):  # the disk has taken the first part only
        file.truncate(file.seek(0, os.SEEK_END) - (written or 0))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)


def read(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """Every whole line as `parse` makes it of its JSON; lines that it can't make anything of are passed over."""
    try:
        raw = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    found = []
    for line in raw:
        try:
            found.append(parse(json.loads(line)))
        except _DAMAGE:
            continue
    return found


def cut_back(folder: Path, step: int) -> None:
    """Drops from each of `GROWING` in `folder` what was logged after `step` (steps that a killed worker had made but
    not saved) and half lines."""
    for path in (folder / name for name in GROWING):
        if not path.exists():
            continue
        kept = []
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                if int(json.loads(line)["step"]) <= step:
                    kept.append(line + b"\n")
            except _DAMAGE:
                continue
        data = b"".join(kept)
        if data != path.read_bytes():
            write_aside(path, lambda part, data=data: part.write_bytes(data) and None)  # type: ignore[misc]
