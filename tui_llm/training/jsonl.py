"""Files of JSON lines that only grow: written a whole line at a time, read past any damage, cut back after a kill."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from tui_llm.files import write_aside

T = TypeVar("T")

GROWING = ("metrics.jsonl", "samples.jsonl", "probes.jsonl")  # each line of them names the `step` that it belongs to
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


class Tail(Generic[T]):
    """Reads a file of lines as it grows: each `new()` gives the lines added since, as `parse` makes them; those that it
    gives None for are passed over. Starts again where a resumed run has cut the file back (`restarted` is then True for
    that call)."""

    def __init__(self, path: Path, parse: Callable[[bytes], T | None]) -> None:
        self.path = path
        self.parse = parse
        self.offset = 0
        self.restarted = False
        self.more = False  # whether `limit` left something unread
        self._identity: tuple[int, int] | None = None

    def skip(self) -> None:
        """Passes over the lines that are there already."""
        self.new(1 << 20)
        while self.more:
            self.new(1 << 20)

    def new(self, limit: int = -1) -> list[T]:
        """The lines added since the last call; with `limit`, those in the next `limit` bytes, and `more` says whether
        there is more to read."""
        self.restarted = self.more = False
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                identity = (stat.st_dev, stat.st_ino)
                if stat.st_size < self.offset or (self._identity is not None and identity != self._identity):
                    self.offset, self.restarted = 0, True
                self._identity = identity
                file.seek(self.offset)
                data = file.read(limit)
        except OSError:
            return []
        end = data.rfind(b"\n") + 1  # a half-written last line waits for its end
        self.more = len(data) == limit
        if self.more and not end:
            end = len(data)  # no line of ours is that long
        self.offset += end
        return [value for line in data[:end].split(b"\n") if (value := self.parse(line)) is not None]
