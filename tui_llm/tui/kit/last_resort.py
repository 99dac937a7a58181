"""Handles uncaught exceptions: logs them in full, shows one line, and keeps the app running."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from tui_llm.common.errors import UserError

log = logging.getLogger("tui_llm.tui")

WITHOUT_INPUT = 25  # give up after so many exceptions with neither a paint nor a key in between
WITHOUT_PAINT = 1000  # give up after so many exceptions without a paint in between
PLACES = 200  # how many different exceptions are remembered
FRAMES = 3  # how many of the innermost frames tell two exceptions apart

Place = tuple[object, ...]


def place(error: BaseException) -> Place:
    """What identifies an exception: its type and the places that raised it."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return (type(error), *frames[-FRAMES:])


class LastResort:
    """Logs exceptions, and decides which of them to show and when the app must give up."""

    def __init__(self) -> None:
        self.log_path: Path | None = None
        self._times: dict[Place, int] = {}
        self._shown: set[Place] = set()  # shown since the last input
        self._since_input = self._since_paint = 0
        self._before_paint = 0

    def take(self, error: BaseException, *, drawn: bool = False) -> bool:
        """Logs an exception; returns whether to show it, which is once per input. `drawn`: the rest of the screen was
        drawn all the same. The same exception is logged in full once, then as one line at its 2nd, 4th, 8th …
        occurrence. A `UserError` is no fault of the app: its message is for the user, and is not logged."""
        where = place(error)
        if len(self._times) >= PLACES:
            self._times.clear()
        times = self._times[where] = self._times.get(where, 0) + 1
        internal = not isinstance(error, UserError)
        if internal and times == 1:
            log.error("internal error; the app continues", exc_info=error)
        elif internal and times & (times - 1) == 0:
            log.error("the same internal error, %d times: %s", times, type(error).__name__)
        if not drawn:
            self._since_input += 1
            self._since_paint += 1
        show = where not in self._shown
        self._shown.add(where)
        return show

    def input_came(self) -> None:
        self._since_input = 0
        self._shown.clear()

    def painted(self) -> None:
        """Resets the counters. The first paint after an exception does not, as it may be the paint that raised it."""
        if self._since_paint == self._before_paint:
            self._since_input = self._since_paint = 0
        self._before_paint = self._since_paint

    @property
    def cannot_draw(self) -> bool:
        """Whether the app can't draw any more."""
        return self._since_input >= WITHOUT_INPUT or self._since_paint >= WITHOUT_PAINT

    @property
    def details(self) -> str:
        return f"the app continues; details in {self.log_path}" if self.log_path else "the app continues"
