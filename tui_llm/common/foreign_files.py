"""Read untrusted files: regular files of bounded size only, else a one-line error.

A model folder, a vocabulary or a text can contain a named pipe, a link to an endless device, or a sparse file of
terabytes, so all files from the user are opened here. JSON is parsed in bounded memory: its size, its depth and its
number of values are checked.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError, message_line

# Maximum size in bytes, by kind of file.
SETTINGS = 16 << 20  # JSON settings, a run's own files, a chat template (the largest known: about 2 MB)
VOCABULARY = 64 << 20  # vocab.json, merges.txt, a .tiktoken file, tokenizer.model (the largest known: about 10 MB)
TOKENIZER = 64 << 20  # tokenizer.json (the largest known: about 35 MB)

# Python needs up to about 130 bytes for a value that takes three in JSON, so a limit on the file's size is not enough.
MOST_VALUES = 6_000_000  # Gemma's tokenizer.json, the largest known, has about 2.5 million
_DEPTH = 100  # nesting depth of arrays and objects

_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


class NotRegular(OSError):
    """The path is a folder, a named pipe, a device or a socket."""


class TooLarge(OSError):
    """The file exceeds its maximum size."""


# Errors that say what is at the path. Any other one says that it can't be read at present.
_OF_THE_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotRegular, TooLarge)
_OF_THE_NAME = (errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG)


def is_unreadable(error: BaseException | None) -> bool:
    """Whether the system could not read a file that may be whole: an I/O error of the disk, a network share that is gone, no
    permission. False if the file is missing, is no regular file or has wrong content: reading it again would not help.

    A `UserError` is judged by the exceptions that caused it.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return not isinstance(error, _OF_THE_PATH) and error.errno not in _OF_THE_NAME
        error = error.__cause__
    return False


def _check(path: Path, found: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "something else")
        raise NotRegular(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    if most is not None and found.st_size > most:
        raise _too_large(path, found.st_size, most)


def _too_large(path: Path, size: int, most: int) -> TooLarge:
    return TooLarge(errno.EFBIG, f"it has {size:,} bytes, over the {most:,} that such a file may have", str(path))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error


def open_regular(path: Path, most: int | None = None) -> BufferedReader:
    """Open `path` (links are followed) for reading in binary mode. Never blocks.

    Raises OSError: `NotRegular` if it is not a regular file, `TooLarge` if it has more than `most` bytes.
    """
    _check(path, _stat(path), most)  # before opening: opening some devices has side effects
    # Non-blocking, and checked again below: the file may have been replaced in between.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    try:
        _check(path, os.fstat(descriptor), most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """The whole file. Raises as `open_regular`. The limit also holds for a file that grows, or whose size is
    unknown."""
    with open_regular(path, most) as file:
        data = bytearray()
        while block := file.read(1 << 20):
            data += block
            if len(data) > most:
                raise _too_large(path, len(data), most)
    return bytes(data)


@contextmanager
def open_foreign(path: Path, most: int | None = None) -> Iterator[BufferedReader]:
    """As `open_regular`, but raises `UserError`, also for an OSError while the file is read."""
    with _as_user_error(path), open_regular(path, most) as file:
        yield file


def check_foreign(path: Path, most: int | None = None) -> int:
    """The file's size in bytes, without opening it. Raises as `open_foreign`."""
    with _as_user_error(path):
        found = _stat(path)
        _check(path, found, most)
    return found.st_size


def read_foreign(path: Path, most: int) -> bytes:
    """As `read_regular`, but raises `UserError`."""
    with _as_user_error(path):
        return read_regular(path, most)


@contextmanager
def _as_user_error(path: Path) -> Iterator[None]:
    try:
        yield
    except NotRegular as error:
        raise UserError(f"{path} can't be read: {error.strerror}; put the file itself there") from error
    except TooLarge as error:
        raise UserError(f"{path} can't be read: {error.strerror}; get it again") from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from error


def read_foreign_text(path: Path, most: int) -> str:
    """The whole file, decoded as UTF-8. Raises as `read_foreign`, and if it is not UTF-8."""
    try:
        return read_foreign(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start:,}); get it again") from error


def read_json(path: Path, most: int = SETTINGS) -> Any:
    """Parse a JSON file. Raises `UserError` if it is missing, unreadable, too large or not JSON."""
    return parse_json(read_foreign(path, most), path)


def parse_json(data: bytes, path: Path) -> Any:
    """Parse JSON in UTF-8 that was read from `path`. Raises `UserError` if it is not JSON, has more than `MOST_VALUES`
    values, or is nested more than a hundred levels deep."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES:
        raise UserError(f"{path} has more than {MOST_VALUES:,} values; no file of its kind has that many")
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise UserError(f"{path} is nested too deep to be valid; it may be damaged") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({message_line(error)}); it may be damaged or cut short") from error
    if _deeper(value, _DEPTH):
        raise UserError(f"{path} is nested too deep to be valid; it may be damaged")
    return value


def _deeper(value: Any, depth: int) -> bool:
    """Whether arrays and objects are nested more than `depth` levels deep."""
    level = [value]
    for _ in range(depth + 1):
        inside = chain.from_iterable(
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))
        )
        level = [one for one in inside if isinstance(one, (dict, list))]
        if not level:
            return False
    return True


def whole_number(value: Any, least: int, most: int) -> int | None:
    """`value` if it is an int from `least` to `most` (bool and float are rejected), else None."""
    return value if type(value) is int and least <= value <= most else None
