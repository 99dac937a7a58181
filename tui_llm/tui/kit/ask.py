"""A modal screen that asks for one line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Static
from textual.widgets.text_area import Selection

from tui_llm.common.display import SPACE
from tui_llm.common.errors import UserError
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import bindings
from tui_llm.tui.kit.spaces import EVERY, doubled
from tui_llm.tui.kit.widgets.prompt import PromptEditor


class AskScreen(BaseScreen, ModalScreen[str | None]):
    """Dismissed with the text as typed, or with None if it was cancelled.

    With `spaces`, spaces count: they are drawn, and several in a row are asked about.
    """

    BINDINGS = bindings((), modal=True)
    asks = True

    def __init__(self, title: str, hint: str, text: str = "", *, spaces: bool = False) -> None:
        super().__init__()
        self._title, self._text, self._spaces = title, text, spaces
        self._edited = False  # by a key: `propose` changes nothing then
        self._hint = hint if "Esc" in hint else f"{hint} · Esc cancels"

    def compose(self) -> ComposeResult:
        with Vertical(id="ask"):
            yield PromptEditor(self._text, id="answer", spaces=EVERY if self._spaces else None)
            yield Static(Text(self._hint), id="ask-hint")

    def on_mount(self) -> None:
        editor = self.query_one(PromptEditor)
        editor.border_title = Text(self._title)
        if self._spaces:
            editor.hint(Text(f"{SPACE} is a space, and counts"))
        self._select_all(editor)
        editor.focus()

    def _select_all(self, editor: PromptEditor) -> None:
        text = editor.text  # typing replaces the text, except a leading space, which is significant
        if spoken := text.strip():
            editor.selection = Selection((0, text.index(spoken[0])), editor.document.end)

    def propose(self, text: str) -> None:
        """Put a text into the line, selected, unless something was typed."""
        editor = self.query_one(PromptEditor)
        if not self._edited and not editor.text:
            editor.set_text(text)
            self._select_all(editor)

    def on_prompt_editor_typing_done(self, event: PromptEditor.TypingDone) -> None:
        event.stop()
        text = self.query_one(PromptEditor).prompt_text if event.confirmed else None
        if text is not None and self._spaces and text != self._text and doubled(text):
            self._ask_about_spaces(text)
        else:
            self.dismiss(text)

    def _ask_about_spaces(self, text: str) -> None:
        from tui_llm.tui.kit.doubled_space import DoubledSpaceScreen

        def answered(meant: str | None) -> None:
            if meant is not None:
                self.dismiss(meant)

        self.app.push_screen(DoubledSpaceScreen(text), answered)

    def on_prompt_editor_edited(self, event: PromptEditor.Edited) -> None:
        event.stop()
        self._edited = self._edited or bool(self.query_one(PromptEditor).text)


Number = TypeVar("Number", int, float)


def typed_number(text: str, example: Number) -> Number:
    """`text` as a number of the type of `example`. Raises `UserError`, which gives the example."""
    try:
        return type(example)(text)
    except ValueError:
        kind = "whole number" if isinstance(example, int) else "number"
        raise UserError(f"{text[:40]!r} is not a {kind}; give one such as {example:g}") from None


def ask_setting(
    screen: Screen[object], asking: AskScreen, take: Callable[[str], object], warn: Callable[[str], object]
) -> None:
    """Gives the typed text to `take`, and its `UserError`, if it raises one, to `warn`."""

    def answered(text: str | None) -> None:
        if text is not None:
            try:
                take(text)
            except UserError as error:
                warn(str(error))

    screen.app.push_screen(asking, answered)
