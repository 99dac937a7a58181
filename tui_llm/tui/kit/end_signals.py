"""SIGTERM and SIGHUP (a closed terminal) end the app as its quit key does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable


class EndSignals:
    """Calls `end` with the exit status, on the event loop, at the first of the signals.

    A terminal that closes sends SIGHUP, its shell sends another, and what ends a session adds SIGTERM. So none of them
    cuts an orderly end that has begun, by a signal or by a key, until the process has ended; only a second SIGTERM does,
    as somebody insists then. The handlers are Python's, not the event loop's: closing the loop restores the default of
    its own, which ends the process at once, and the last files are written after that.
    """

    def __init__(self, end: Callable[[int], object]) -> None:
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._ending = False

    def listen(self) -> None:
        """Must be called on the event loop. Outside the main thread, where Python handles no signals, it does nothing."""
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError):
            for name in ("SIGTERM", "SIGHUP"):
                if (number := getattr(signal, name, None)) is not None:  # Windows has no SIGHUP
                    signal.signal(number, self._take)
            with contextlib.suppress(NotImplementedError):  # Windows, whose loop wakes by itself
                self._wake_loop(self._loop)

    def _wake_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets signals wake the loop: Python calls a handler only once its main thread runs."""
        reader, writer = self._wake = socket.socketpair()
        for end in self._wake:
            end.setblocking(False)
        loop.add_reader(reader, reader.recv, 4096)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def _take(self, number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.end_by, number)

    def end_by(self, number: int) -> None:
        """Ends the app with that signal's status, unless a signal did so before."""
        if not self._ending:
            self._ending = True
            self._end(128 + number)
