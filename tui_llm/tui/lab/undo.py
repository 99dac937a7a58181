"""Undo and redo of every change of the lab's text.

A line under the prompt says what the next undo and redo do.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len
from rich.text import Text

from tui_llm.common.display import truncate, visible
from tui_llm.facts.interventions import named
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.history import TextChange

BORDER = 6  # cells of the prompt's border beside the line
NAMED = 24  # cells of the text that describes a change


def quoted(text: str, steps: int) -> str:
    short = f"‘{truncate(visible(text[: 4 * NAMED]), NAMED)}’"
    if steps > 1:
        return f"{steps:,} tokens {short}"
    return f"{len(text):,} characters {short}" if len(text) > NAMED else short


def words(change: TextChange) -> str:
    """What the change does, or did, to the text or the model's parts, in words: safe to show."""
    if change.parts is not None:
        before, after = change.parts
        gone, new = ([one for one in a if one not in b] for a, b in ((before, after), (after, before)))
        words = [f"switches on {truncate(', '.join(one.part.name for one in gone), NAMED)}"] if gone else []
        words += [f"changes the model: {truncate(named(new), NAMED)}"] if new else []
        return visible(", ".join(words))
    comes, goes = quoted(change.added, len(change.gained)), quoted(change.taken, len(change.lost))
    if change.added == change.taken:
        return f"turns {comes} into " + ("drawn tokens" if change.gained else "typed text")
    if not change.taken and not change.lost:
        return f"adds {comes}"
    if not change.added and not change.gained:
        return f"removes {goes}"
    return f"replaces {goes} by {comes}"


class UndoController:
    """`hint` is shown in the line too, while the user types; `first`, given whether the user types, at its front."""

    def __init__(
        self, context: LabContext, prompt: PromptEditor, hint: Callable[[], str], first: Callable[[bool], str]
    ) -> None:
        self.context, self.lab, self.prompt, self.hint, self.first = context, context.lab, prompt, hint, first
        self._done = ""  # what the last undo or redo did; empty once the user has changed the text

    def undo(self) -> None:
        self._apply(back=True)

    def redo(self) -> None:
        self._apply(back=False)

    def _apply(self, back: bool) -> None:
        self.context.stop_generation()
        change = self.lab.undo() if back else self.lab.redo()
        if change is None:
            self.context.notify("there is nothing to undo" if back else "there is nothing to redo")
            return
        did = change.inverse() if back else change
        if did.inserted or did.removed:
            self.prompt.set_text(self.lab.prompt, did.at + len(did.inserted))
        self._done = f"{'undone' if back else 'redone'}: {words(did)}"
        self.context.refresh_generation()
        self.context.request_reading()

    def show(self, changed: bool = False) -> None:
        """Updates the line under the prompt. `changed`: the text changed in another way than by undo and redo."""
        if changed:
            self._done = ""
        history, typing = self.lab.history, self.prompt.has_focus
        undo, redo = ("ctrl+z", "ctrl+y") if typing else ("u", "U")
        first = self._done or self.first(typing)  # what was undone, and how to redo it, before what a newcomer is told
        parts = [first] if first else []
        parts += [self.hint()] if typing and self.hint() else []
        if self._done and history.next_redo is not None:
            parts.append(f"{redo} {words(history.next_redo)}")
        if history.next_undo is not None:
            parts.append(f"{undo} {words(history.next_undo.inverse())}")
        # The border has room for so much; none of them is cut, but the last are left out.
        width = self.prompt.outer_size.width
        while width and len(parts) > 1 and BORDER + cell_len(" · ".join(parts)) > width:
            parts.pop()
        self.prompt.hint(Text(" · ".join(parts)))
