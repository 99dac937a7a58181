"""A window that is dragged: of several sizes that come one after the other, only the newest counts."""

from __future__ import annotations

from typing import Any

from textual import events


class KeepsUp:
    """Mixed into a screen, before Textual's. That lays itself out for each size that it hears of and tells itself so: with
    two of them under way at once they would take turns for ever."""

    app: Any

    async def _on_resize(self, event: events.Resize) -> None:
        if event.size != self.app.size:
            event.prevent_default()
