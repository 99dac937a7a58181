"""Which files are logs of other programs, and one reader for all of them. Does not import torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import open_regular
from tui_llm.training.run.foreign import event_files, text_logs, trainer_state, wandb_files
from tui_llm.training.run.foreign.event_files import EventFile
from tui_llm.training.run.foreign.log_curves import LogCurves
from tui_llm.training.run.foreign.wandb_files import WandbFile

CHUNK = 1 << 20  # bytes read at a time
LONGEST = 1 << 20  # bytes of a line; a longer one is damaged
MOST_BYTES = 64 << 30  # of a text log
MOST_ENTRIES = 4096  # of a folder that is searched for logs
DEEPEST = 3  # folders below it
MOST_FILES = 64  # logs that are read, and texts in which one is looked for
BEGINNING = 1 << 18  # bytes of a text file in which a line of a log must occur
TEXT = (".log", ".txt", ".out")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class LogReader(Protocol):
    """Reads one log file."""

    path: Path

    def read(self, into: LogCurves, limit: int) -> bool:
        """Reads up to `limit` more bytes; returns whether there may be more. Raises OSError or `UserError`."""
        ...


class LineFile:
    """Reads a text file line by line as it grows. A line without an end is still being written."""

    def __init__(self, path: Path, add_line: Callable[[bytes, LogCurves], None]) -> None:
        self.path = path
        self._add_line = add_line
        self._offset = 0

    def read(self, into: LogCurves, limit: int) -> bool:
        with open_regular(self.path, MOST_BYTES) as file:
            file.seek(self._offset)
            data = file.read(max(limit, 1))
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= LONGEST:
            into.damaged += 1
            end = len(data)
        self._offset += end
        for line in data[:end].splitlines():  # also \r, which progress bars write
            if line:
                self._add_line(line, into)
        return len(data) >= limit and end > 0


class WholeFile:
    """Reads a file that is always replaced as a whole."""

    def __init__(self, path: Path, add_file: Callable[[Path, LogCurves], None]) -> None:
        self.path = path
        self._add_file = add_file
        self._read = False

    def read(self, into: LogCurves, limit: int) -> bool:
        if not self._read:
            self._read = True
            self._add_file(self.path, into)
        return False


class ForeignLog:
    """The curves of log files, read as they grow. `problem` says why they can't be read; empty if they can."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self.problem = ""
        self._restart()

    def _restart(self) -> None:
        self.curves = LogCurves("")
        self._readers = [reader_of(path) for path in self.files]
        self._marks = [_mark(path) for path in self.files]
        self._more = True

    def read(self) -> bool:
        """Reads up to `CHUNK` more bytes of each file; returns whether there may be more."""
        marks = [_mark(path) for path in self.files]
        if any(self._replaced(at, mark) for at, mark in enumerate(marks)):
            self._restart()
        elif marks == self._marks and not self._more:
            return False
        self._marks, self.problem, self._more = marks, "", False
        for reader in self._readers:
            try:
                if reader.read(self.curves, CHUNK):
                    self._more = True
                    return True  # files of one folder follow each other: the next one continues this one
            except UserError as error:
                self.problem = str(error)
            except OSError as error:
                self.problem = f"{reader.path} can't be read: {error.strerror or error}"
        return False

    def _replaced(self, at: int, mark: tuple[int, int, int]) -> bool:
        inode, size, _ = self._marks[at]
        whole = isinstance(self._readers[at], WholeFile) and mark != self._marks[at]
        return whole or mark[0] != inode or mark[1] < size


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def reader_of(path: Path) -> LogReader:
    """The reader of a log file, by its name: any other is text."""
    if path.name.startswith(event_files.PREFIX):
        return EventFile(path)
    if path.suffix == wandb_files.SUFFIX:
        return WandbFile(path)
    if path.name == wandb_files.HISTORY:
        return LineFile(path, wandb_files.add_history_line)
    if path.name == wandb_files.SUMMARY:
        return WholeFile(path, wandb_files.add_summary)
    if path.name == trainer_state.NAME:
        return WholeFile(path, trainer_state.add_file)
    return LineFile(path, text_logs.add_line)


def log_files(source: Path) -> tuple[Path, ...]:
    """The log files that `source` is or contains, of one kind: transformers' Trainer, else wandb, TensorBoard, text.

    Of event files and wandb's, those of the folder that was written last; of texts, the newest one that prints steps, among
    the `MOST_FILES` newest. Empty if there are none. Never raises.
    """
    if not source.is_dir():
        return (source,) if _is_log(source) else ()
    files = list(_files(source))
    states = [path for path in files if path.name == trainer_state.NAME]
    if states:
        return (max(states, key=lambda path: (_step(path), -len(path.parts))),)
    for wanted in (_is_wandb, _is_history, _is_event, _is_summary):
        if found := [path for path in files if wanted(path)]:
            newest = max(found, key=_changed).parent
            return tuple(sorted(path for path in found if path.parent == newest))[:MOST_FILES]
    texts = [path for path in files if path.parent == source and path.suffix in TEXT]
    newest_first = sorted(texts, key=_changed, reverse=True)[:MOST_FILES]
    return next(((path,) for path in newest_first if _prints_steps(path)), ())


def _step(state: Path) -> int:
    """The step of a Trainer's checkpoint: the newest one's log has all lines. That of the folder itself is the last."""
    found = _CHECKPOINT.fullmatch(state.parent.name)
    return int(found[1][:16]) if found else 10**18


def _is_wandb(path: Path) -> bool:
    return path.suffix == wandb_files.SUFFIX


def _is_history(path: Path) -> bool:
    return path.name == wandb_files.HISTORY


def _is_summary(path: Path) -> bool:
    return path.name == wandb_files.SUMMARY


def _is_event(path: Path) -> bool:
    return path.name.startswith(event_files.PREFIX)


def _is_log(path: Path) -> bool:
    known = (_is_wandb, _is_history, _is_summary, _is_event)
    return path.name == trainer_state.NAME or any(one(path) for one in known) or _prints_steps(path)


def _changed(path: Path) -> int:
    return _mark(path)[2]


def _prints_steps(path: Path) -> bool:
    """Whether a line at the beginning of a text file is one of a log."""
    try:
        with open_regular(path, MOST_BYTES) as file:
            data = file.read(BEGINNING)
    except OSError:
        return False
    return b"\0" not in data[:4096] and any(text_logs.BEGIN.match(line) for line in data.splitlines())


def _files(top: Path) -> Iterator[Path]:
    """Files in `top` and up to `DEEPEST` folders below it; links to folders are not followed."""
    left = MOST_ENTRIES
    folders = [(top, 0)]
    while folders:
        folder, depth = folders.pop()
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    left -= 1
                    if left < 0:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        if depth < DEEPEST:
                            folders.append((Path(entry.path), depth + 1))
                    elif entry.is_file():
                        yield Path(entry.path)
        except OSError:
            continue
