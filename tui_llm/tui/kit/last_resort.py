"""What becomes of an exception that nobody caught: the log has it whole, the screen has a line, and the app goes on."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

log = logging.getLogger("tui_llm.tui")

WITHOUT_INPUT = 25  # exceptions with neither a paint nor a key between them: the app keeps itself from drawing
WITHOUT_PAINT = 1000  # the same with keys between them
PLACES = 200  # exceptions that are told apart
FRAMES = 3  # the innermost ones tell two exceptions apart

Place = tuple[object, ...]


def place(error: BaseException) -> Place:
    """Where and as what it was raised: what is raised there again is the same."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return (type(error), *frames[-FRAMES:])


class LastResort:
    """Logs exceptions, says which of them the screen should tell, and when there is no going on."""

    def __init__(self) -> None:
        self.log_path: Path | None = None
        self._times: dict[Place, int] = {}
        self._told: set[Place] = set()  # since the last input
        self._since_input = self._since_paint = 0
        self._before_paint = 0

    def take(self, error: BaseException, *, drawn: bool = False) -> bool:
        """Logs it; whether the screen should tell it. `drawn`: the rest of the screen was drawn all the same. The same
        exception is logged whole once, then as a line at its 2nd, 4th, 8th … time; it is told once an input."""
        where = place(error)
        if len(self._times) >= PLACES:
            self._times.clear()
        times = self._times[where] = self._times.get(where, 0) + 1
        if times == 1:
            log.error("internal error; the app goes on", exc_info=error)
        elif times & (times - 1) == 0:
            log.error("the same internal error for the %dth time: %s", times, type(error).__name__)
        if not drawn:
            self._since_input += 1
            self._since_paint += 1
        tell = where not in self._told
        self._told.add(where)
        return tell

    def input_came(self) -> None:
        self._since_input = 0
        self._told.clear()

    def painted(self) -> None:
        """A paint that followed on an exception may have been what raised it: the next one shows."""
        if self._since_paint == self._before_paint:
            self._since_input = self._since_paint = 0
        self._before_paint = self._since_paint

    @property
    def hopeless(self) -> bool:
        """Whether nothing is drawn any more."""
        return self._since_input >= WITHOUT_INPUT or self._since_paint >= WITHOUT_PAINT

    @property
    def details(self) -> str:
        return f"the app goes on; details in {self.log_path}" if self.log_path else "the app goes on"
