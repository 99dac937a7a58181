"""The base class of the full screens over the lab: closing, the key bar, copying what is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Protocol

from textual.content import Content
from textual.screen import Screen

from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import Command
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar

Row = tuple[str, ...]
_IN_A_CELL = {ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}  # these would end the cell or the row


class Clipboard(Protocol):
    """The app, or what passes a text on to it."""

    def copy_to_clipboard(self, text: str) -> None: ...


def copy_rows(clipboard: Clipboard, rows: Sequence[Row], changed: str = "") -> str:
    """Copies `rows`, the header first, to the clipboard as tab-separated lines; returns the line to notify the user
    with. `changed`, in a last column, says that the numbers are those of a changed model."""
    if len(rows) < 2:
        return "there is nothing to copy here yet"
    if changed:
        rows = [(*row, changed if at else "changed_model") for at, row in enumerate(rows)]
    cleaned = ("\t".join(cell.translate(_IN_A_CELL) for cell in row) + "\n" for row in rows)
    clipboard.copy_to_clipboard("".join(cleaned))
    return f"copied {len(rows) - 1} row{'' if len(rows) == 2 else 's'}, tab-separated"


class OverLab(BaseScreen, Screen[None]):
    """A subclass defines `own_keys` (the commands of its footer and its palette), `BINDINGS` and `table`."""

    own_keys: ClassVar[tuple[Command, ...]] = ()
    shows_model: ClassVar[bool] = True  # its numbers are the open model's: marked if that is changed
    shows_text: ClassVar[bool] = True  # its numbers are of the lab's text: marked if the model does not see all of it
    DEFAULT_CSS = """
    OverLab { layout: vertical; overflow: hidden; }
    """

    def on_mount(self) -> None:
        self._put_mark("changed-model", self.changed_words())
        self.mark_seen()

    def mark_seen(self) -> None:
        """Called for each new reading: says how much of the lab's text the model sees, if that is not all of it."""
        self._put_mark("seen", self.seen_words())

    def seen_words(self) -> str:
        """How much of the lab's text the model sees; empty if all of it, or if the numbers are of another text."""
        words: Callable[[int], str] | None = getattr(self.app, "seen_of_text", None) if self.shows_text else None
        return words(self.later_tokens) if words is not None else ""

    @property
    def later_tokens(self) -> int:
        """How many of the text's last tokens its numbers do not depend on."""
        return 0

    def _put_mark(self, id: str, words: str) -> None:
        """A line at the top, if there are words for it."""
        bars = list(self.query(f"#{id}").results(Bar))
        if words and not bars:
            bars = [Bar(id=id)]
            self.mount(bars[0], before=0)
        for bar in bars:
            bar.display = bool(words)
            bar.put(Content.styled(words, "bold $text-warning"))

    def changed_words(self) -> str:
        """What marks the numbers of a changed model; empty if they are the model's own."""
        return str(getattr(self.app, "changed_model", "")) if self.shows_model else ""

    def show_keys(self) -> None:
        self.query_one(KeyBar).show_commands(command for command in self.own_keys if command.footer)

    def table(self) -> Iterable[Row]:
        """What is shown, as rows of cells, the header first."""
        return ()

    def action_copy(self) -> None:
        self.notify(copy_rows(self.app, list(self.table()), self.changed_words()), markup=False, timeout=3)

    def action_close(self) -> None:
        self.dismiss(None)
