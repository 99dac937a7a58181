"""A modal screen that asks for confirmation before something is lost."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui_llm.common.display import visible
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import bindings


class ConfirmScreen(BaseScreen, ModalScreen[bool]):
    """Asks for confirmation. Dismissed with whether the user agreed."""

    BINDINGS: ClassVar = [
        ("y", "dismiss(True)", "Yes"),
        ("n,escape,q", "dismiss(False)", "No"),
        *bindings((), modal=True),
    ]
    DEFAULT_CSS = """
    ConfirmScreen { align: center middle; }
    ConfirmScreen > Vertical { width: 60; max-width: 100%; height: auto; border: round $error; background: $surface;
        padding: 0 1; }
    ConfirmScreen Horizontal { height: 1; margin-top: 1; }
    ConfirmScreen Button { margin-right: 2; }
    """

    def __init__(self, question: str, agree: str) -> None:
        super().__init__()
        self._question, self._agree = question, agree

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Content(visible(self._question)))
            with Horizontal():
                yield Button("Cancel (Esc)", id="no", compact=True)
                yield Button(Content(f"{self._agree} (y)"), id="yes", variant="error", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "yes")
