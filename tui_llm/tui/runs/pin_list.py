"""The list of pinned prompts, one of which is chosen."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.text import Text
from textual.message import Message

from tui_llm.common.display import ELLIPSIS, truncate, visible, visible_token
from tui_llm.facts.pin import Pin
from tui_llm.tui.kit.widgets.lines import Lines


def end_of(text: str, cells: int) -> str:
    """The end of `text` in at most `cells` cells: the part that the model continues."""
    if cell_len(text) <= cells:
        return text
    text = text[-cells:] if cells > 0 else ""
    while text and cell_len(text) > cells - 1:
        text = text[1:]
    return ELLIPSIS + text if cells > 0 else ""


class PinList(Lines, can_focus=False):
    """All pins, one of them chosen; `★` marks the user's own."""

    class Chosen(Message):
        """The user chose this pin with a click."""

        def __init__(self, pin: Pin) -> None:
            self.pin = pin
            super().__init__()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pins: tuple[Pin, ...] = ()
        self.chosen: Pin | None = None
        self.mine: frozenset[Pin] = frozenset()
        self.notes: dict[Pin, str] = {}

    def show(self, pins: tuple[Pin, ...], chosen: Pin | None, mine: Iterable[Pin], notes: dict[Pin, str]) -> None:
        """Shows `pins`. `notes` gives the text at the end of a pin's line."""
        new = (pins, chosen, frozenset(mine), notes)
        if new == (self.pins, self.chosen, self.mine, self.notes):
            return
        self.pins, self.chosen, self.mine, self.notes = new
        self.rebuild()
        if chosen in pins:
            self._place_cursor(pins.index(chosen), quiet=True)
            self._show_cursor()

    def row_count(self, width: int) -> int:
        return len(self.pins)

    def row(self, index: int, width: int, selected: bool) -> Text:
        pin = self.pins[index]
        here = pin == self.chosen
        tail = self.notes.get(pin, "")
        line = Text(no_wrap=True).append("▸" if here else " ", self.style("accent"))
        line.append("★ " if pin in self.mine else "  ", self.style("accent"))
        room = max(1, width - 3 - len(tail) - 2)
        target = f" → {visible_token(pin.target)}" if pin.target else ""
        shown = truncate(target, room // 2)
        line.append(end_of(visible(pin.prompt), room - cell_len(shown)), self.style("strong") if here else None)
        line.append(shown, self.style("accent"))
        line.append(" " * max(1, width - line.cell_len - len(tail)))
        line.append(tail, self.style("muted"))
        line.truncate(width)
        if here:
            line.stylize_before(self.style("cursor"))
        return line

    def selectable(self, index: int) -> bool:
        return 0 <= index < len(self.pins)

    def cursor_moved(self) -> None:
        if self.cursor is not None and self.cursor < len(self.pins):
            self.post_message(self.Chosen(self.pins[self.cursor]))
