"""The base class of the four panes that show a reading."""

from __future__ import annotations

from collections.abc import Iterable

from tui_llm.facts.reading import Reading
from tui_llm.tui.kit.command import PANE_TITLES, PANES
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.state.lab import Lab
from tui_llm.tui.state.messages import RoomWanted


class ReadingPane(Lines):
    """Holds the reading that is shown, and marks it when it is out of date.

    `lab` is read, never changed; the user's commands are posted as a message.
    """

    NAME = ""

    lab: Lab
    reading: Reading | None = None
    stale: bool = False
    _title: str = ""
    _content: int | None = None

    def put_title(self) -> None:
        number = PANES.index(self.NAME) + 1
        title = (
            f"{number} {PANE_TITLES[self.NAME]}{self.title_words()}{self._changed_words()}{' …' if self.stale else ''}"
        )
        if title != self._title:  # a new title repaints the whole pane
            self._title = title
            self.border_title = title  # our own text, not foreign

    def content_rows(self, width: int) -> int | None:
        """How many lines the pane has to show, whatever its height; None: as many as there is room for. Called at every
        rebuild: an answer that changes with each token would move the panes about."""
        return None

    def rebuild(self) -> None:
        super().rebuild()
        if self.reading is None or (width := self.line_width) <= 0:
            return
        if (rows := self.content_rows(width)) != self._content:
            self._content = rows
            self.post_message(RoomWanted(self.NAME, rows))

    def _changed_words(self) -> str:
        """Marks the numbers of a changed model."""
        return " · changed model" if self.reading is not None and self.reading.request.interventions else ""

    def title_words(self) -> str:
        """Words to add to the title."""
        return ""

    def mark_stale(self, stale: bool) -> None:
        if stale != self.stale:
            self.stale = stale
            self.set_class(stale, "-stale")
            self.put_title()

    def table(self) -> Iterable[tuple[str, ...]]:
        """The pane as rows of cells for copying, the header first."""
        return ()
