"""A full screen over the lab: a title bar, lines that scroll, a key bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.content import Content

from tui_llm.common.display import visible
from tui_llm.tui.kit.live import is_live
from tui_llm.tui.kit.over import OverLab
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.kit.widgets.lines import Lines

CELL = "cell"  # in the meta data of a style: row and column of a map


class Lazy(Sequence[Text]):
    """A sequence of lines that are made when they are accessed."""

    def __init__(self, count: int, make: Callable[[int], Text]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._make(index)


class Listing(Lines):
    """Shows the lines of its `FullScreen`, which makes them again whenever the size changes."""

    def __init__(self) -> None:
        super().__init__(id="listing")
        self.lines: Sequence[Text] = []
        self.fixed: list[Text] = []
        self.can_select = False

    def head(self, width: int) -> list[Text]:
        assert isinstance(self.screen, FullScreen)
        self.fixed, self.lines = self.screen.content(width)
        return self.fixed[: max(0, self.size.height - 1)]

    def row_count(self, width: int) -> int:
        return len(self.lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self.lines[index].copy()

    def selectable(self, index: int) -> bool:
        return self.can_select

    def on_click(self, event: events.Click) -> None:
        super().on_click(event)
        if (cell := event.style.meta.get(CELL)) is not None:
            assert isinstance(self.screen, FullScreen)
            self.screen.cell_clicked(*cell)


class FullScreen(OverLab):
    """A subclass defines `own_keys`, `BINDINGS`, `TITLE_WORDS` and `content`. Foreign text must pass through
    `display`."""

    TITLE_WORDS: ClassVar[str]
    DEFAULT_CSS = """
    FullScreen Listing { height: 1fr; padding: 0 1; background: $background; }
    """

    def compose(self) -> ComposeResult:
        yield Bar(id="full-top")
        yield Listing()
        yield KeyBar(id="full-keys")

    def on_mount(self) -> None:
        self.show_keys()
        self.listing.focus()
        self.call_after_refresh(self.refill)

    @property
    def listing(self) -> Listing:
        return self.query_one(Listing)

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        """The fixed lines and the lines that scroll, each at most `width` cells wide."""
        raise NotImplementedError

    def subject(self) -> str:
        """The words after the title: foreign text, made visible when shown."""
        return ""

    def refill(self) -> None:
        if is_live(self):  # an answer that the screen waits for even once it has closed may come here
            self.query_one("#full-top", Bar).put(
                Content.assemble((self.TITLE_WORDS, "bold"), "  ", (visible(self.subject()), "$text-muted"))
            )
            self.listing.rebuild()

    def style(self, name: str) -> Style:
        return self.listing.style(name)

    def cell_clicked(self, row: int, column: int) -> None:
        """A cell of the screen's map was clicked: text that `clickable` marked."""


def clickable(text: Text, row: int, column: int, start: int = 0, stop: int | None = None) -> None:
    """Marks the text from character `start` to `stop` as this cell of a map, which a click selects."""
    text.stylize(Style(meta={CELL: (row, column)}), start, stop)
