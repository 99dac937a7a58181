"""Which part of the screen can still be shown something: what comes later than it is dropped, here and not by each widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.dom import NoScreen
from textual.widget import Widget


def is_live(widget: Widget) -> bool:
    """Whether the widget is composed, part of the app, and on a screen that is open (another one may cover it)."""
    if not (widget.is_mounted and widget.is_running and widget.is_attached):
        return False
    try:
        return widget.screen in widget.app.screen_stack
    except NoScreen:
        return False


def deliver(owner: Widget, take: Callable[..., object], *arguments: Any) -> None:
    """Calls `take` if `owner` is live: once it is composed, and not at all once its screen has closed. From any thread."""

    def call() -> None:
        if is_live(owner):
            take(*arguments)

    owner.call_later(call)
