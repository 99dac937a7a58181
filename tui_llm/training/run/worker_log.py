"""The worker's log, of any length, in bounded memory: lines forward and backward from a byte offset, and lines with some words.

Nothing is sanitized: the reader of a line passes it through the display gate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.foreign_files import open_regular

BLOCK = 1 << 18  # bytes read at a time
LONGEST = 1 << 14  # bytes of a line; a longer one is cut into pieces


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class LogLine:
    """The bytes [offset, end) of the file, the line break included in `end` but not in `text`. Bytes that are not UTF-8 become
    U+FFFD."""

    offset: int
    end: int
    text: str


class WorkerLog:
    """`stop` is asked between two blocks: a reader that nobody waits for any more ends there."""

    def __init__(self, path: Path, stop: Callable[[], bool] = _never) -> None:
        self.path, self.stop = path, stop

    def size(self) -> int:
        """Returns 0 if there is no such file. Raises OSError if it can't be read."""
        try:
            with open_regular(self.path) as file:
                return file.seek(0, 2)
        except FileNotFoundError:
            return 0

    def after(self, offset: int, count: int, words: str = "") -> list[LogLine]:
        """The next `count` lines from `offset` on; with `words`, only those that contain them. Raises OSError."""
        return list(itertools.islice(self._with(self._forward(offset), words), count))

    def before(self, offset: int, count: int, words: str = "") -> list[LogLine]:
        """The last `count` lines that end at `offset` or before, in the file's order."""
        return list(itertools.islice(self._with(self._backward(offset), words), count))[::-1]

    def _with(self, lines: Iterator[LogLine], words: str) -> Iterator[LogLine]:
        sought = words.casefold()
        return (line for line in lines if sought in line.text.casefold()) if sought else lines

    def _forward(self, offset: int) -> Iterator[LogLine]:
        rest, at = b"", offset  # `at`: where `rest` begins
        for block in self._blocks(offset):
            *ended, rest = (rest + block).split(b"\n")
            for line in ended:
                yield from _pieces(at, line + b"\n")
                at += len(line) + 1
            while len(rest) > LONGEST:
                yield from _pieces(at, rest[:LONGEST])
                at, rest = at + LONGEST, rest[LONGEST:]
        if rest:
            yield from _pieces(at, rest)

    def _blocks(self, offset: int) -> Iterator[bytes]:
        try:
            with open_regular(self.path) as file:
                file.seek(offset)
                while not self.stop() and (block := file.read(BLOCK)):
                    yield block
        except FileNotFoundError:
            return

    def _backward(self, offset: int) -> Iterator[LogLine]:
        """The lines that end at `offset` or before, the nearest first."""
        try:
            with open_regular(self.path) as file:
                end = min(offset, file.seek(0, 2))
                rest = b""  # the beginning of it is not known yet; it ends at `end`
                start = end
                while start > 0 and not self.stop():
                    begin = max(0, start - BLOCK)
                    file.seek(begin)
                    rest, start = file.read(start - begin) + rest, begin
                    first = 0 if begin == 0 else rest.find(b"\n", 0, len(rest) - 1) + 1
                    if first == 0 and begin > 0:  # no line begins here
                        if len(rest) > LONGEST:
                            first = len(rest) % LONGEST or LONGEST
                        else:
                            continue
                    whole, rest = rest[first:], rest[:first]
                    yield from reversed(list(_lines(begin + first, whole)))
        except FileNotFoundError:
            return


def _lines(at: int, data: bytes) -> Iterator[LogLine]:
    for line in data.splitlines(keepends=True) if b"\r" not in data else _kept(data):
        yield from _pieces(at, line)
        at += len(line)


def _kept(data: bytes) -> Iterator[bytes]:
    """The lines with their line breaks. Only `\\n` ends a line: a progress bar's `\\r` does not."""
    *ended, rest = data.split(b"\n")
    yield from (line + b"\n" for line in ended)
    if rest:
        yield rest


def _pieces(at: int, line: bytes) -> Iterator[LogLine]:
    for start in range(0, len(line), LONGEST):
        piece = line[start : start + LONGEST]
        yield LogLine(at + start, at + start + len(piece), piece.removesuffix(b"\n").decode("utf-8", "replace"))
