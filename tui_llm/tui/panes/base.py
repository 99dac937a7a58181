"""What the four panes that render a reading have in common."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import cast

from rich.console import Console
from rich.text import Text
from textual.widget import Widget

from tui_llm.reading import Reading
from tui_llm.tui.commands import PANE_TITLES, PANES
from tui_llm.tui.state import Lab

NO_TEXT = "there is no text yet: i types some, o puts <|endoftext|> in front"  # what a screen would be about


class ReadingPane:
    """Mixed into a `Lines`: holds the moment it draws, and says when it is out of date.

    `lab` is read, never changed; what the user wants is posted as a message.
    """

    NAME = ""

    lab: Lab
    reading: Reading | None = None
    stale: bool = False
    _title: str = ""

    def put_title(self) -> None:
        number = PANES.index(self.NAME) + 1
        title = f"{number} {PANE_TITLES[self.NAME]}{self.title_words()}{' …' if self.stale else ''}"
        if title != self._title:  # a new one draws the whole pane
            self._title = title
            cast(Widget, self).border_title = title  # our own words, no foreign text

    def title_words(self) -> str:
        """What the title says further."""
        return ""

    def mark_stale(self, stale: bool) -> None:
        if stale != self.stale:
            self.stale = stale
            cast(Widget, self).set_class(stale, "-stale")
            self.put_title()

    def table(self) -> Iterable[tuple[str, ...]]:
        """The pane as rows of cells, the header first: for copying."""
        return ()


def how_on(problem: str | None) -> str:
    """A problem of a reading, with the key that helps; the command line names its option there."""
    problem = problem or ""
    return f"{problem} (o)" if problem.endswith("in front") else problem


def wrapped(text: Text, width: int) -> list[Text]:
    """`text` in lines of at most `width` cells."""
    if width <= 0:
        return []
    if text.cell_len <= width and "\n" not in text.plain and "\t" not in text.plain:
        return [text]  # as most do, and asking rich costs as much as drawing the line
    return list(text.wrap(_CONSOLE, width)) if text.plain else [Text()]


def packed(parts: Iterable[Text], width: int, gap: str = "  ") -> list[Text]:
    """`parts` beside each other in lines of at most `width` cells: none is broken where it fits into a line."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + len(gap) + part.cell_len <= width:
            lines[-1].append(gap).append_text(part)
        else:
            lines += wrapped(part, width)
    return lines


_CONSOLE = Console(file=io.StringIO(), width=80)  # wrapping asks for one, and only for its tab size
