"""The command palette."""

from __future__ import annotations

from typing import ClassVar

from textual.command import CommandPalette
from textual.widgets import Input, Static

from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import bindings
from tui_llm.tui.kit.widgets.field import printable


class Palette(BaseScreen, CommandPalette):
    """Textual's command palette; it closes once, and its input accepts printable characters only."""

    BINDINGS: ClassVar = bindings((), modal=True)
    DEFAULT_CSS = """
    Palette #palette-keys { width: auto; padding: 1 2 0 0; color: $text-muted; }
    """

    def on_mount(self) -> None:
        self.query_one(Input).validate_value = printable  # type: ignore[attr-defined]
        self.query_one("#--input").mount(Static("Esc closes", id="palette-keys"))
