"""The command palette."""

from __future__ import annotations

from textual.command import CommandPalette

from tui_llm.tui.screens.base import BaseScreen


class Palette(BaseScreen, CommandPalette):
    """Textual's, which closes once."""
