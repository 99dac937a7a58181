"""Drops results for a widget that is gone, in one place instead of in each widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.dom import NoScreen
from textual.widget import Widget


def is_live(widget: Widget) -> bool:
    """Whether the widget is mounted, running, and on a screen in the screen stack (another screen may cover it)."""
    if not (widget.is_mounted and widget.is_running and widget.is_attached):
        return False
    try:
        return widget.screen in widget.app.screen_stack
    except NoScreen:
        return False


def deliver(owner: Widget, take: Callable[..., object], *arguments: Any) -> None:
    """Calls `take` once `owner` is mounted, or not at all if its screen has closed by then. Can be called from any
    thread."""

    def call() -> None:
        if is_live(owner):
            take(*arguments)

    owner.call_later(call)
