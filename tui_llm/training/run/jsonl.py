"""Append-only JSON Lines files: append whole lines, skip damaged lines when reading, truncate after a crash.

Reading never blocks, even if the path is a FIFO or a device, and needs memory for one block or line plus the results.
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

# Each line of these files has a `step`.
GROWING = ("metrics.jsonl", "samples.jsonl", "probes.jsonl", "heads.jsonl", "alarms.jsonl", "matrices.jsonl")
MOST = 4 << 30  # bytes of such a file: about 25 million steps
LONGEST = 8 << 20  # bytes of a line; a longer one is treated as damaged
_BLOCK = 1 << 20  # bytes read at a time
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def append(file: BinaryIO | io.FileIO, value: dict[str, Any]) -> None:
    """Appends one JSON line in a single write, so that readers never see interleaved halves.

    Raises OSError if the disk is full; a partly written line is then removed.
    """
    line = json.dumps({k: v for k, v in value.items() if v is not None}, allow_nan=False).encode() + b"\n"
    written = file.write(line)
    if written != len(line):  # a short write: the disk is full
        file.truncate(file.seek(0, os.SEEK_END) - (written or 0))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)


def append_to(path: Path, value: dict[str, Any]) -> None:
    """Like `append`, for the file at `path`; the data is synced to disk. Raises OSError."""
    with storage.open_file(path, "ab", buffering=0) as file:
        append(file, value)
        storage.sync(file)


def lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Yields each complete line from `offset` on, including its newline; lines longer than `LONGEST` are skipped. Raises OSError."""
    with open_regular(path, MOST) as file:
        file.seek(offset)
        start, skipping = b"", False  # of the line that continues in the next block
        while block := file.read(_BLOCK):
            *ended, rest = block.split(b"\n")
            for line in ended:
                if not skipping:
                    yield start + line + b"\n"
                start, skipping = b"", False
            start += rest
            if len(start) > LONGEST:
                start, skipping = b"", True


def each(path: Path, parse: Callable[[Any], T], offset: int = 0) -> Iterator[T]:
    """Applies `parse` to the JSON value of each complete line from `offset` on.

    Lines that are not JSON or that `parse` rejects are skipped.
    """
    try:
        for line in lines(path, offset):
            try:
                if line.startswith(b"{"):
                    yield parse(json.loads(line))
            except _DAMAGE:
                continue
    except OSError:
        pass


def read(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """What `each` yields, as a list."""
    return list(each(path, parse))


def parsed(line: bytes, parse: Callable[[Any], T]) -> T | None:
    """Applies `parse` to the JSON value of a line; None if it is not JSON or `parse` rejects it."""
    try:
        return parse(json.loads(line))
    except _DAMAGE:
        return None


def problem(path: Path) -> str:
    """Returns why a file can't be read; empty if it can be read or does not exist."""
    try:
        with open_regular(path, MOST):
            return ""
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{path.name} can't be read: {error.strerror or error}"


def drop_after(folder: Path, step: int) -> None:
    """Drops the lines after `step` and incomplete lines from each of the `GROWING` files in `folder`.

    A resumed worker repeats the steps since the last checkpoint, whose lines a killed worker had written already.
    Raises OSError if a file can't be read, `UserError` if it can't be written.
    """
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
    """Reads a JSON Lines file as it grows: each `new()` returns the lines added since, parsed by `parse`.

    Lines for which `parse` returns None are skipped. If a resumed run has truncated or replaced the file, `new` starts
    again from the beginning and sets `restarted`. If the file can't be read, `problem` is the reason.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T | None]) -> None:
        self.path = path
        self.parse = parse
        self.offset = 0
        self.restarted = False
        self.more = False  # whether the last call reached its `limit`: there may be more to read
        self.problem = ""
        self._identity: tuple[int, int] | None = None

    def skip(self) -> None:
        """Skips the lines that are already in the file."""
        self.new(_BLOCK)
        while self.more:
            self.new(_BLOCK)

    def new(self, limit: int | None = None) -> list[T]:
        """Returns the lines added since the last call.

        With `limit`, returns only those in the next `limit` bytes; see `more`.
        """
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
        end = data.rfind(b"\n") + 1  # an incomplete last line is read by a later call
        self.more = len(data) == limit
        if self.more and not end:
            end = len(data)  # the worker writes no line that long: skip it
        self.offset += end
        lines = data[:end].split(b"\n")
        return [value for line in lines if line.startswith(b"{") and (value := self.parse(line)) is not None]
