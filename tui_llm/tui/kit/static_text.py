"""The text of a Static widget."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static


def set_text(static: Static, text: str) -> None:
    """Shows plain text. `Static.update` lays out the whole screen anew, also for the text that is shown already."""
    if static.content != text:
        static.update(Content(text))
