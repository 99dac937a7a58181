"""Handles keys and pastes strictly one after another: each finds the focus, and the screen, that the one before it has set."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from textual import events
from textual.app import App
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

Typed = events.Key | events.Paste

# Seconds until the next key is handled all the same: a widget that is removed loses the `KeyHandled` in its queue.
LOST_AFTER = 0.5

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

    def __init__(self, app: App[Any], handle: Callable[[Typed], Awaitable[None]]) -> None:
        self._app, self._handle = app, handle
        self._waiting: deque[Typed] = deque()
        self._sent = self._handled = 0  # how many keys were forwarded, and handled
        self._timer: Timer | None = None

    async def take(self, event: Typed) -> None:
        """Handles the event now, or once those before it have been handled."""
        if self._sent > self._handled:
            self._waiting.append(event)
            if self._timer is None:
                self._timer = self._app.set_timer(LOST_AFTER, self._give_up_waiting)
        else:
            await self._forward(event)

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
        if self._waiting:
            await self.take(self._waiting.popleft())
            if self._waiting:
                self._timer = self._timer or self._app.set_timer(LOST_AFTER, self._give_up_waiting)

    async def _give_up_waiting(self) -> None:
        self._timer = None
        await self._next(self._sent)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
