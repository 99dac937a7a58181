"""The work that a screen waits for: in words, for how long, and why it failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from textual.screen import Screen
from textual.timer import Timer

SHOWN_AFTER = 0.5  # seconds of work after which it is shown


class Progress:
    """`doing` is empty while nothing is waited for, `problem` unless the last work failed. `show` updates the screen: now,
    and every quarter of a second while it waits."""

    def __init__(self, screen: Screen[Any], show: Callable[[], object]) -> None:
        self._screen, self._show = screen, show
        self.doing = self.problem = ""
        self._since = 0.0
        self._timer: Timer | None = None

    def start(self, doing: str) -> None:
        """Waits for `doing`. If the screen is waiting already, the seconds go on."""
        if not self.doing:
            self._since = time.monotonic()
        self.doing, self.problem = doing, ""
        if self._timer is None:
            self._timer = self._screen.set_interval(0.25, self._show)
        else:
            self._timer.resume()
        self._show()

    def end(self, problem: str = "") -> None:
        """The work is done, or failed with `problem`."""
        self.doing, self.problem = "", problem
        if self._timer is not None:
            self._timer.pause()
        self._show()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since if self.doing else 0.0

    @property
    def is_long(self) -> bool:
        """Whether the work takes so long that it is shown."""
        return self.seconds >= SHOWN_AFTER
