"""The base class of the full screens over the lab: closing, the key bar, copying what is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol

from textual.screen import Screen

from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import Command
from tui_llm.tui.kit.widgets.bars import KeyBar

Row = tuple[str, ...]
_IN_A_CELL = {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}  # these would end the cell or the row


class Clipboard(Protocol):
    """The app, or what passes a text on to it."""

    def copy_to_clipboard(self, text: str) -> None: ...


def copy_rows(clipboard: Clipboard, rows: Sequence[Row]) -> str:
    """Copies `rows`, the header first, to the clipboard as tab-separated lines; returns the line to notify the user
    with."""
    if len(rows) < 2:
        return "there is nothing to copy here yet"
    cleaned = ("\t".join(cell.translate(_IN_A_CELL) for cell in row) + "\n" for row in rows)
    clipboard.copy_to_clipboard("".join(cleaned))
    return f"copied {len(rows) - 1} row{'' if len(rows) == 2 else 's'}, tab-separated"


class OverLab(BaseScreen, Screen[None]):
    """A subclass defines `own_keys` (the commands of its footer and its palette), `BINDINGS` and `table`."""

    own_keys: ClassVar[tuple[Command, ...]] = ()
    DEFAULT_CSS = """
    OverLab { layout: vertical; overflow: hidden; }
    OverLab > Bar { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis;
        link-style: none; link-background: $panel; link-color: $text; }
    """

    def show_keys(self) -> None:
        self.query_one(KeyBar).show_commands(command for command in self.own_keys if command.footer)

    def table(self) -> Iterable[Row]:
        """What is shown, as rows of cells, the header first."""
        return ()

    def action_copy(self) -> None:
        self.notify(copy_rows(self.app, list(self.table())), markup=False, timeout=3)

    def action_close(self) -> None:
        self.dismiss(None)
