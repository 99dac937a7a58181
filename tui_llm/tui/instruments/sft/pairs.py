"""The form for instruction–answer pairs: a few lines that the user edits."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted
from tui_llm.llm.data.instruction_pairs import Pair, parse
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.widgets.prompt import PromptEditor


class PairsEditor(PromptEditor):
    """An editor of several lines: Enter inserts a newline."""

    def action_done_typing(self, confirmed: bool) -> None:
        if confirmed:
            self.action_newline()
        else:
            super().action_done_typing(False)


_key = CommandFactory("pairs_form", "Instruction pairs", ())
START = _key(
    "tour_start", "ctrl+s", "take", "Take these pairs to fine-tune a copy of the model on", "start", priority=True
)
CLOSE = _key("close_pairs_form", "escape", "cancel", "Cancel: the pairs stay as they were", "close", importance=WAY_OUT)
KEYS = START, CLOSE


class InstructionPairsScreen(BaseScreen, ModalScreen[str | None]):
    """Dismissed with the text, which `instruction_pairs.parse` parses, or with None."""

    own_keys = KEYS
    BINDINGS = bindings(KEYS, modal=True)
    DEFAULT_CSS = """
    InstructionPairsScreen > Vertical { width: 90%; max-width: 90; height: auto; max-height: 100%; background: $surface; padding: 0 1; }
    InstructionPairsScreen PairsEditor, InstructionPairsScreen PairsEditor:focus { height: auto; min-height: 4; max-height: 12; border: heavy $accent; background: $background; }
    InstructionPairsScreen Static { height: auto; color: $text-muted; }
    InstructionPairsScreen #pairs-note.-wrong { color: $text-error; }
    """

    def __init__(self, text: str, verb: str = "learns them") -> None:
        """`verb`: what the start key does, for the line below the editor."""
        super().__init__()
        self._text, self._verb = text, verb
        self._submitted = False

    def compose(self) -> ComposeResult:
        with Vertical():
            yield PairsEditor(self._text, id="pairs-text")
            yield Static(id="pairs-note")

    def on_mount(self) -> None:
        editor = self.query_one(PairsEditor)
        editor.border_title = Content("Pairs of your own: QUESTION => ANSWER, one per line")
        editor.focus()
        self._show_check()

    def _pairs(self) -> tuple[Pair, ...]:
        return parse(self.query_one(PairsEditor).prompt_text)

    def _show_check(self) -> None:
        """Shows what is wrong with the lines, or how many pairs there are, and the keys."""
        try:
            line, wrong = counted(len(self._pairs()), "pair"), False
        except UserError as error:
            line, wrong = str(error), True
            if not self._submitted and not self.query_one(PairsEditor).prompt_text.strip():
                line, wrong = "no pairs yet", False  # nothing typed is no mistake yet
        note = self.query_one("#pairs-note", Static)
        keys = f" · {START.key_text} {self._verb} · {CLOSE.key_text} cancels"
        note.set_class(wrong, "-wrong")
        note.update(Content(visible(line) + keys))

    def on_prompt_editor_edited(self, event: PromptEditor.Edited) -> None:
        event.stop()
        self._show_check()

    def on_prompt_editor_typing_done(self, event: PromptEditor.TypingDone) -> None:
        event.stop()
        self.action_close()

    def action_start(self) -> None:
        try:
            self._pairs()
        except UserError:
            self._submitted = True
            self._show_check()
            return
        self.dismiss(self.query_one(PairsEditor).prompt_text)

    def action_close(self) -> None:
        self.dismiss(None)
