"""What a soak looks for: log entries, uncaught exceptions, handlers that never return, screens that were never open."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
import sys
import threading
import traceback
from typing import Any

from soak_clock import Stuck


class Broken(Exception):
    """An invariant does not hold."""


class Faults(logging.Handler):
    """Collects what must not occur: log entries and uncaught exceptions."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self.setFormatter(logging.Formatter("log: %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        logging.getLogger().addHandler(self)
        loop.set_exception_handler(
            lambda _loop, context: self._add("the loop: " + str(context["message"]), context.get("exception"))
        )
        threading.excepthook = lambda told: self._add(f"thread {told.thread}", told.exc_value)
        sys.unraisablehook = lambda told: self._add(f"unraisable: {told.err_msg} {told.object!r}", told.exc_value)

    def _add(self, what: str, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            return
        self.found.append(what + "\n" + ("".join(traceback.format_exception(error)) if error else ""))


def say(line: str) -> None:
    print(line, file=sys.__stdout__, flush=True)


def too_long(_signal: int, frame: Any) -> None:
    raise Stuck("in one handler:\n" + "".join(traceback.format_stack(frame)))


def import_screens() -> None:
    """Imports what the app imports lazily: its time must be simulated, its memory not counted as growth."""
    import tui_llm.tui

    for module in pkgutil.walk_packages(tui_llm.tui.__path__, "tui_llm.tui."):
        importlib.import_module(module.name)


def screen_names() -> list[str]:
    """The classes of all screens of the app but those that others are based on."""
    from textual.screen import Screen

    found, left = [], [Screen]
    while left:
        one = left.pop()
        derived = [kind for kind in one.__subclasses__() if kind.__module__.startswith("tui_llm.")]
        left += one.__subclasses__()
        if one.__module__.startswith("tui_llm.") and not derived:
            found.append(one.__name__)
    return found
