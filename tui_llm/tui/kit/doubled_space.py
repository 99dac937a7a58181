"""A modal screen that asks whether several spaces in a row are meant."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from tui_llm.common.display import SPACE, truncate, visible_token
from tui_llm.tui.kit import spaces
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import bindings


class DoubledSpaceScreen(BaseScreen, ModalScreen[str | None]):
    """Dismissed with the text to take, or with None to go on typing."""

    asks = True
    BINDINGS: ClassVar = [
        ("1", "single", "One space"),
        ("2", "keep", "As typed"),
        ("escape,q", "dismiss(None)", "Type on"),
        *bindings((), modal=True),
    ]
    DEFAULT_CSS = """
    DoubledSpaceScreen { align: center middle; }
    DoubledSpaceScreen > Vertical { width: 64; max-width: 100%; height: auto; border: round $warning; background: $surface;
        padding: 0 1; }
    DoubledSpaceScreen Horizontal { height: 1; margin-top: 1; }
    DoubledSpaceScreen Button { margin-right: 2; }
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        typed = truncate(visible_token(self._text), 40)
        with Vertical():
            yield Static(
                Content(
                    f"‘{typed}’ has several spaces in a row: {SPACE} is one. Usually one is meant: the token of a word begins with one."
                )
            )
            with Horizontal():
                yield Button("One space (1)", id="one", variant="primary", compact=True)
                yield Button("As typed (2)", id="as-typed", compact=True)
                yield Button("Type on (Esc)", id="type-on", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        results = {"one": spaces.single(self._text), "as-typed": self._text}
        self.dismiss(results.get(event.button.id or ""))

    def action_single(self) -> None:
        self.dismiss(spaces.single(self._text))

    def action_keep(self) -> None:
        self.dismiss(self._text)
