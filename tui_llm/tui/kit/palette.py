"""The command palette."""

from __future__ import annotations

from textual.command import CommandPalette
from textual.widgets import Input

from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.widgets.field import printable


class Palette(BaseScreen, CommandPalette):
    """Textual's command palette; it closes once, and its input accepts printable characters only."""

    def on_mount(self) -> None:
        self.query_one(Input).validate_value = printable  # type: ignore[attr-defined]
