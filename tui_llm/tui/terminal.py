"""Runs the app; what anything else writes to file descriptors 1 and 2 goes to a log file.

Textual's driver draws on `sys.__stderr__` and measures `sys.__stdout__`. Output of C code or of a child process would
garble the screen. So the driver gets a duplicate of the terminal's file descriptor, and 1 and 2 point at the log file
until the app exits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.tui.app import LabApp
from tui_llm.tui.input import safe

NEEDS_TERMINAL = (
    "the app needs a terminal for its keys and its screen; without one, use a command such as"
    ' `tui-llm logits "The cat sat on the"` (see `tui-llm --help`)'
)


def run_app(app: LabApp, mouse: bool = True) -> int:
    """Runs the app until it exits and returns the exit status. Raises `UserError` if there is no terminal, or if the
    app itself failed (the traceback is in the log, never on the screen)."""
    browser = os.environ.get("TEXTUAL_DRIVER", "").endswith(":WebDriver")  # `tui-llm serve` draws on a pipe
    terminal = 1 if browser else _terminal_descriptor()
    log = _log_path()
    app.driver_class = safe(app.driver_class, app.end_by_closed_terminal)
    app.last_resort.log_path = log if log.is_file() else None
    app.on_terminal = not browser and _is_terminal(1)
    with _terminal_only_for_driver(terminal, log):
        app.run(mouse=mouse)
    app.lab_screen.context.client.finish()
    if not browser:
        _say_what_goes_on(terminal)
    if app.failed:
        raise UserError(f"the app stopped on an internal error; its details are at the end of {log}")
    return app.return_code or 0


def _say_what_goes_on(terminal: int) -> None:
    """Names the live runs on the terminal, which shows its normal screen again. Writes nothing if the terminal is gone."""
    from tui_llm.training.run.live import farewell

    for line in farewell():
        with contextlib.suppress(OSError):  # closed: SIGHUP
            encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
            os.write(terminal, f"{line}\n".encode(encoding, "replace"))


def _terminal_descriptor() -> int:
    """The file descriptor to draw on. Raises `UserError` unless stdin, and stderr or stdout, are terminals."""
    if sys.__stdin__ is None or not _is_terminal(0):
        raise UserError(NEEDS_TERMINAL)
    for descriptor in (2, 1):
        if _is_terminal(descriptor):
            return descriptor
    raise UserError(NEEDS_TERMINAL)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _log_path() -> Path:
    """The app's log file, or the null device if it can't be opened for writing."""
    path = paths.log_dir() / "app.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except OSError:
        return Path(os.devnull)
    return path


class TerminalOutput(io.TextIOWrapper):
    """The terminal to draw on. What a closed terminal does not take is dropped: an error would end Textual's output thread, and the
    app would wait for it for ever once 30 writes are queued. Reading finds out that the terminal is closed, and ends the app."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


@contextlib.contextmanager
def _terminal_only_for_driver(terminal: int, log: Path) -> Iterator[None]:
    _flush()
    saved = {descriptor: _duplicate(descriptor) for descriptor in (1, 2)}
    streams = (sys.__stdout__, sys.__stderr__)
    screen = TerminalOutput(os.fdopen(os.dup(terminal), "wb"), encoding="utf-8", errors="replace", newline="")
    sink = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    handler = logging.FileHandler(log, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [
        logging.getLogger(name) for name in ("tui_llm", "asyncio")
    ]  # asyncio logs the exceptions of tasks that were never awaited
    for logger in loggers:
        logger.addHandler(handler)
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.__stdout__, sys.__stderr__ = screen, screen  # type: ignore[misc]
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            screen.flush()
        _flush()
        sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
        for descriptor, copy in saved.items():
            if copy is not None:
                os.dup2(copy, descriptor)
                os.close(copy)
        os.close(sink)
        with contextlib.suppress(OSError):
            screen.close()
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:
        return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        _flush_one(stream)


def _flush_one(stream: TextIO | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
