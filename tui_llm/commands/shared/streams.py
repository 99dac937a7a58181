"""Standard input, output and error as a command needs them: open, and able to write every character."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from tui_llm.common.errors import UserError

# ASCII replacements for characters that an encoding lacks, one for one so that columns stay aligned.
ASCII = {"–": "-", "—": "-", "−": "-", "·": ".", "→": ">", "←": "<", "×": "x", "÷": "/", "…": "~", "’": "'", "‘": "'",
         "“": '"', "”": '"', "≥": ">", "≤": "<", "▁": "_", "│": "|", "─": "-", "●": "*", "◆": "*"}  # fmt: skip
HANDLER = "tui-llm"
LONGEST = 1 << 20  # characters of a line of standard input


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: `ASCII` for our own characters, Python's escapes (`\\xe9`, `\\udcff`) for all others."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    shown = "".join(ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return shown, error.end


class _Messages(io.FileIO):
    """Standard error. What can't be written is dropped, as where its reader has ended or its disk is full: neither what a command
    does nor its exit status depends on a message. Python ends with status 120 if it can't flush the stream."""

    def write(self, data: Any) -> int:
        with suppress(OSError):
            written: int | None = super().write(data)
            if written is not None:  # None: the descriptor does not block, and takes nothing now
                return written
        return len(data)


def prepare() -> None:
    """Opens the null device for each of the three that is closed; otherwise the next file that is opened would get its descriptor
    and receive what is printed. Output to a closed stdout fails, as on a full disk; messages on stderr are dropped if they can't be
    written."""
    codecs.register_error(HANDLER, _replacement)
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, flags)  # gets the lowest free descriptor: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:  # not a test's stream
        buffer = io.BufferedWriter(_Messages(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(buffer, sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # a stream of another type, such as a test's
            stream.reconfigure(errors=HANDLER)  # type: ignore[union-attr]


def read_line(stream: TextIO, what: str) -> str:
    """The next line, with its end; empty at the end of the input. Raises `UserError` if it is no text, too long for a
    message or an answer, or can't be read."""
    try:
        line = stream.readline(LONGEST + 1)
    except UnicodeDecodeError as error:
        raise UserError("standard input is not UTF-8 text; convert it, such as with iconv") from error
    except OSError as error:  # a folder, for one
        raise UserError(f"can't read {what} from standard input: {error.strerror or error}") from error
    if len(line) > LONGEST:
        raise UserError(f"standard input has a line of over {LONGEST:,} characters; give shorter lines")
    return line


def print_error(line: str) -> None:
    """One line on standard error, if that can be written."""
    with suppress(OSError, ValueError):
        print(f"tui-llm: {line}", file=sys.stderr, flush=True)


def discard(stream: TextIO) -> None:
    """Drops what is left in the buffer of a stream that can't be written; Python would report it at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def discard_if_broken(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        discard(stream)
    except ValueError:  # closed
        pass
