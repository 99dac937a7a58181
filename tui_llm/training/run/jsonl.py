"""Files of JSON lines that only grow: written a whole line at a time, read past any damage, cut back after a kill.

Whatever is in their place, reading them neither blocks nor takes more memory than a line and what is made of the lines.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from tui_llm.common import storage
from tui_llm.common.files import write_aside
from tui_llm.common.foreign_files import open_regular

T = TypeVar("T")

GROWING = ("metrics.jsonl", "samples.jsonl", "probes.jsonl")  # each line of them names the `step` that it belongs to
MOST = 4 << 30  # bytes of such a file: some 25 million steps
LONGEST = 8 << 20  # bytes of a line; a longer one is damage
_BLOCK = 1 << 20  # bytes read at a time
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def append(file: BinaryIO | io.FileIO, value: dict[str, Any]) -> None:
    """One JSON line in one write, so that a reader never sees two halves mixed. Raises OSError where the disk is full;
    no half line is left then."""
    line = json.dumps({k: v for k, v in value.items() if v is not None}, allow_nan=False).encode() + b"\n"
    written = file.write(line)
    if written != len(line):  # the disk has taken the first part only
        file.truncate(file.seek(0, os.SEEK_END) - (written or 0))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)


def append_to(path: Path, value: dict[str, Any]) -> None:
    """As `append`, to the file at `path`, and onto the disk itself. Raises OSError."""
    with storage.open_file(path, "ab", buffering=0) as file:
        append(file, value)
        storage.sync(file)


def lines(path: Path) -> Iterator[bytes]:
    """Every whole line, its newline included; those longer than `LONGEST` are passed over. Raises OSError."""
    with open_regular(path, MOST) as file:
        begun, passing = b"", False
        while block := file.read(_BLOCK):
            *ended, rest = block.split(b"\n")
            for line in ended:
                if not passing:
                    yield begun + line + b"\n"
                begun, passing = b"", False
            begun += rest
            if len(begun) > LONGEST:
                begun, passing = b"", True


def read(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """Every whole line as `parse` makes it of its JSON; lines that it can't make anything of are passed over."""
    found = []
    try:
        for line in lines(path):
            try:
                if line.startswith(b"{"):
                    found.append(parse(json.loads(line)))
            except _DAMAGE:
                continue
    except OSError:
        pass
    return found


def problem(path: Path) -> str:
    """Why a file can't be read, in words; empty where it can be or is not there."""
    try:
        with open_regular(path, MOST):
            return ""
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{path.name} can't be read: {error.strerror or error}"


def cut_back(folder: Path, step: int) -> None:
    """Drops from each of `GROWING` in `folder` what was logged after `step` (steps that a killed worker had made but
    not saved) and half lines. Raises OSError where one of them can't be read, `UserError` where it can't be written."""
    for path in (folder / name for name in GROWING):
        if not os.path.lexists(path):
            continue
        with open_regular(path, MOST) as file:
            size = os.fstat(file.fileno()).st_size
        if sum(map(len, _kept(path, step))) != size:
            write_aside(path, lambda part, path=path: _copy(_kept(path, step), part))  # type: ignore[misc]


def _kept(path: Path, step: int) -> Iterator[bytes]:
    for line in lines(path):
        try:
            if line.startswith(b"{") and int(json.loads(line)["step"]) <= step:
                yield line
        except _DAMAGE:
            continue


def _copy(kept: Iterator[bytes], to: Path) -> None:
    with storage.open_file(to, "wb") as file:
        file.writelines(kept)


class Tail(Generic[T]):
    """Reads a file of lines as it grows: each `new()` gives the lines added since, as `parse` makes them; those that it
    gives None for are passed over. Starts again where a resumed run has cut the file back (`restarted` is then True for
    that call). Where the file can't be read, `problem` says why."""

    def __init__(self, path: Path, parse: Callable[[bytes], T | None]) -> None:
        self.path = path
        self.parse = parse
        self.offset = 0
        self.restarted = False
        self.more = False  # whether `limit` left something unread
        self.problem = ""
        self._identity: tuple[int, int] | None = None

    def skip(self) -> None:
        """Passes over the lines that are there already."""
        self.new(_BLOCK)
        while self.more:
            self.new(_BLOCK)

    def new(self, limit: int | None = None) -> list[T]:
        """The lines added since the last call; with `limit`, those in the next `limit` bytes, and `more` says whether
        there is more to read."""
        found, restarted = self._new(limit or _BLOCK), self.restarted
        while limit is None and self.more:
            found += self._new(_BLOCK)
            restarted |= self.restarted
        self.restarted = restarted
        return found

    def _new(self, limit: int) -> list[T]:
        self.restarted = self.more = False
        self.problem = ""
        try:
            with open_regular(self.path, MOST) as file:
                stat = os.fstat(file.fileno())
                identity = (stat.st_dev, stat.st_ino)
                if stat.st_size < self.offset or (self._identity is not None and identity != self._identity):
                    self.offset, self.restarted = 0, True
                self._identity = identity
                file.seek(self.offset)
                data = file.read(limit)
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problem = f"{self.path.name} can't be read: {error.strerror or error}"
            return []
        end = data.rfind(b"\n") + 1  # a half-written last line waits for its end
        self.more = len(data) == limit
        if self.more and not end:
            end = len(data)  # no line of ours is that long
        self.offset += end
        lines = data[:end].split(b"\n")
        return [value for line in lines if line.startswith(b"{") and (value := self.parse(line)) is not None]
