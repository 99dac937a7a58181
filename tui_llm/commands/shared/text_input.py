"""The text of a command: its argument, a file, or standard input."""

from __future__ import annotations

import argparse
import os
import stat
import sys

from tui_llm.common.errors import UserError

MOST = 16 << 20  # bytes
HELP = "; - or a pipe: standard input"
OPTIONAL_HELP = "; -: standard input"
FILE_HELP = "read the text from this file (UTF-8); one line end at its end is not part of it, nor of standard input"


def read(options: argparse.Namespace) -> None:
    """Puts the text into `options`, under the name `options.text_dest`. An optional argument `options.text_after` stands before
    the text: where only one of both is given, it is the text. Raises `UserError` where there is none, unless `options.text_optional`."""
    dest: str = options.text_dest
    given: str | None = getattr(options, dest)
    # Of two optional arguments in a row, argparse gives the only one to the first
    before: str | None = getattr(options, "text_after", None)
    if before is not None and given is None and options.file is None:
        given = getattr(options, before)
        if given is not None and _is_piped() and _is_model(given):
            raise UserError(f"{given!r} is a model, and there is a pipe: write - after it if the pipe is the text")
        setattr(options, dest, given)
        setattr(options, before, None)
    if options.file is not None and given is not None:
        raise UserError("give the text or --file, not both")
    if given is None and options.file is None and getattr(options, "text_optional", False):
        return
    if options.file is not None:
        setattr(options, dest, _decoded(_of_file(options.file), options.file))
    elif given == "-" or (given is None and _is_piped()):
        setattr(options, dest, _decoded(_of_stdin(), "standard input"))
    elif given is None:
        raise UserError(
            f"give the text in quotes, --file FILE, or - for standard input; `tui-llm {options.command} --help` lists the options"
        )


def _of_file(name: str) -> bytes:
    from tui_llm.common import paths
    from tui_llm.common.foreign_files import read_foreign

    return read_foreign(paths.expand(name), MOST)


def _is_piped() -> bool:
    """Whether standard input is a pipe or a file; it is /dev/null where a program is started in the background."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _is_model(text: str) -> bool:
    """Whether a model or run of this machine has that name, also in a weight format, as `nano:int8`."""
    from tui_llm.llm.hub import lookup

    name = text.removeprefix("run:").partition(":")[0]
    return any(found.name == name for found in lookup.every())


def _of_stdin() -> bytes:
    if sys.stdin.isatty():
        print("type the text; Ctrl+D on an empty line ends it", file=sys.stderr, flush=True)
    try:
        data = sys.stdin.buffer.read(MOST + 1)
    except OSError as error:
        raise UserError(f"can't read standard input: {error.strerror or error}") from error
    if len(data) > MOST:
        raise UserError(f"standard input has over {MOST:,} bytes; give a part of it, such as: head -c 100000 FILE | …")
    return data


def _decoded(data: bytes, where: str) -> str:
    """Raises `UserError` if it is not UTF-8. A byte-order mark is dropped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text (byte {error.start:,}); convert it, such as with iconv") from error
    return text[: -2 if text.endswith("\r\n") else -1] if text.endswith("\n") else text
