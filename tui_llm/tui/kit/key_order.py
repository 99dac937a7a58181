"""Handles keys and pastes strictly one after another: each finds the focus, and the screen, that the one before it has set."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable

from textual import events
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from tui_llm.tui.kit.textual_private import ResilientApp

Typed = events.Key | events.Paste

QUIT = "ctrl+q"

# Seconds until the next key is handled all the same: a widget that is removed loses the `KeyHandled` in its queue.
LOST_AFTER = 0.5

# While keys wait, the screen is drawn once in so many seconds of CPU time: a burst that is drawn after every key takes four
# times as long.
UNDRAWN = 0.1

# ctrl+q does not wait for keys that have waited this many seconds: who sees no reaction wants to leave.
NO_REACTION = 2.0

# First the key itself, whose binding the app runs; then what that posted to the widget, such as the prompt's `TypingDone`.
ROUNDS = 2


class KeyHandled(Message):
    """Follows a key through the queues of the focused widget and its ancestors: where it arrives, the key has been handled."""

    def __init__(self, number: int, target: Widget, rounds: int = ROUNDS) -> None:
        super().__init__()
        self.number, self.target, self.rounds = number, target, rounds


class KeyOrder:
    """Textual forwards a key to the widget that has the focus when the key arrives. A key whose binding moves the focus (`i`: into the
    prompt) is handled later, when all keys that arrived in the same read have been forwarded to the widget that had it."""

    def __init__(self, app: ResilientApp, handle: Callable[[Typed], Awaitable[None]]) -> None:
        self._app, self._handle = app, handle
        self._waiting: deque[Typed] = deque()
        self._sent = self._handled = 0  # how many keys were forwarded, and handled
        self._timer: Timer | None = None
        self._undrawn_since: float | None = None  # on the process's CPU clock; None: the screen is drawn

    @property
    def waiting(self) -> int:
        """How many keys and pastes are not yet handled."""
        return len(self._waiting) + self._sent - self._handled

    async def take(self, event: Typed) -> None:
        """Handles the event now, or once those before it have been handled."""
        if isinstance(event, events.Key) and event.key == QUIT and self._no_reaction(event):
            self._waiting.clear()
            self._draw()
            await self._forward(event)
        elif self._sent > self._handled:
            self._waiting.append(event)
            self._draw_later()
            if self._timer is None:
                self._timer = self._app.set_timer(LOST_AFTER, self._give_up_waiting)
        else:
            await self._forward(event)

    def _no_reaction(self, event: Typed) -> bool:
        return bool(self._waiting) and event.time - self._waiting[0].time > NO_REACTION

    async def _forward(self, event: Typed) -> None:
        target: Widget = self._app.focused or self._app.screen
        self._sent += 1
        try:
            await self._handle(event)
        finally:
            self._follow(KeyHandled(self._sent, target))

    def _follow(self, handled: KeyHandled) -> None:
        if not handled.rounds or not handled.target.post_message(handled):  # False: its screen has closed
            # Behind what the handlers have posted to the app, such as a change of focus.
            self._app.call_later(self._next, handled.number)

    def arrived(self, handled: KeyHandled) -> None:
        """Records that the message came back to the app."""
        self._follow(KeyHandled(handled.number, handled.target, handled.rounds - 1))

    def closed(self) -> None:
        """Records that a screen closed: `KeyHandled` may have been lost in the queue of one of its widgets."""
        self._app.call_later(self._next, self._sent)

    async def _next(self, number: int) -> None:
        if number != self._sent or number == self._handled:
            return  # given up before
        self._handled = number
        self._stop_timer()
        if not self._waiting or self._undrawn_for() > UNDRAWN:
            self._draw()
        else:
            self._draw_later()
        if self._waiting:
            await self.take(self._waiting.popleft())
            if self._waiting:
                self._timer = self._timer or self._app.set_timer(LOST_AFTER, self._give_up_waiting)

    async def _give_up_waiting(self) -> None:
        self._timer = None
        await self._next(self._sent)

    def _draw_later(self) -> None:
        if self._undrawn_since is None:
            self._undrawn_since = time.process_time()
            self._app.pause_drawing()

    def _draw(self) -> None:
        if self._undrawn_since is not None:
            self._undrawn_since = None
            self._app.resume_drawing()

    def _undrawn_for(self) -> float:
        return 0.0 if self._undrawn_since is None else time.process_time() - self._undrawn_since

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
