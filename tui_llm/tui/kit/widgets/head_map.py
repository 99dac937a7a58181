"""A map of all attention heads for each score: a row a layer, a column a head, side by side where they fit. The cursor
selects a head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual import events
from textual.message import Message

from tui_llm.facts.head_scores import SCORES, HeadScore
from tui_llm.tui.kit.shades import shade
from tui_llm.tui.kit.widgets.lines import Lines

GAP = 2  # cells between two maps
TITLES = {"induction": "induction", "previous": "previous token", "duplicate": "duplicate token"}


def score_text(score: float | None) -> str:
    """A score in at most three characters: .15, 1.0; a dash if there is none."""
    if score is None:
        return "–"
    return f"{score:.2f}"[1:] if score < 0.995 else "1.0"


class HeadMap(Lines):
    """`score` is the map that is shown where they do not all fit. `changed`: heads that are switched off."""

    class Moved(Message):
        """Another head was selected."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, classes="pane")
        self.scores: tuple[HeadScore, ...] = ()
        self.heads = 0
        self.column = 0
        self.score = SCORES[0]
        self.off: frozenset[tuple[int, int]] = frozenset()

    def show(self, scores: Sequence[HeadScore], off: Iterable[tuple[int, int]] = ()) -> None:
        """`scores` of all heads, in the order of layers and heads; `off`: (layer, head) of those to mark."""
        self.scores, self.off = tuple(scores), frozenset(off)
        self.heads = self.scores[-1].head + 1 if self.scores else 0
        self.column = max(0, min(self.column, self.heads - 1))
        self.rebuild()
        if self.cursor is None and self.scores:
            self._place_cursor(0, quiet=True)

    @property
    def selected(self) -> HeadScore | None:
        at = (self.cursor or 0) * self.heads + self.column
        return self.scores[at] if at < len(self.scores) else None

    def select(self, layer: int, head: int) -> None:
        self.column = max(0, min(head, self.heads - 1))
        self._place_cursor(layer, quiet=True)
        self._show_cursor()
        self.rebuild()
        self.post_message(self.Moved())

    def move(self, by: int) -> None:
        """To another head of the layer."""
        if self.scores:
            self.column = max(0, min(self.column + by, self.heads - 1))
            self.rebuild()
            self.post_message(self.Moved())

    def next_score(self) -> None:
        self.score = SCORES[(SCORES.index(self.score) + 1) % len(SCORES)]
        self.rebuild()

    def cursor_moved(self) -> None:
        self.rebuild()
        self.post_message(self.Moved())

    def selectable(self, index: int) -> bool:
        return True

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _label(self) -> int:
        """Cells of a layer's number."""
        return len(str(max(0, len(self.scores) // max(1, self.heads) - 1))) + 1

    def _cells(self, width: int) -> int:
        """Cells of a head: with numbers if all scores fit side by side, or one alone does."""
        room = width - self._label - 1
        fits = (cells for cells in (5, 3, 2) if self.heads * cells <= room)
        return next(fits, 2)

    def _each(self, heads: int, width: int) -> int:
        """Cells of a map of so many heads, with its title."""
        return max(max(map(len, TITLES.values())), self._label + heads * self._cells(width) + 1)

    def shown(self, width: int) -> tuple[str, ...]:
        """The scores whose maps are visible."""
        each = self._each(self.heads, width)
        return SCORES if len(SCORES) * each + GAP * (len(SCORES) - 1) <= width else (self.score,)

    def _columns(self, width: int) -> range:
        """The heads that are visible, around the cursor if not all fit."""
        count = max(1, min(self.heads, (width - self._label - 1) // self._cells(width)))
        first = max(0, min(self.column - count // 2, self.heads - count))
        return range(first, first + count)

    def head(self, width: int) -> list[Text]:
        if not self.scores:
            return []
        cells, columns, muted = self._cells(width), self._columns(width), self.style("muted")
        each = self._each(len(columns), width)
        names, numbers = Text(no_wrap=True), Text(no_wrap=True)
        for score in self.shown(width):
            at = names.cell_len
            for line in (names, numbers):
                line.append(" " * (GAP if at else 0))
            names.append(TITLES[score][:each].ljust(each), self.style("strong"))
            numbers.append(" " * self._label, muted)
            for head in columns:
                numbers.append(str(head)[-(cells - 1) :].rjust(cells), muted)
            numbers.append(" " * (at + each + (GAP if at else 0) - numbers.cell_len))
        return [names, numbers]

    def row_count(self, width: int) -> int:
        return len(self.scores) // self.heads if self.heads else 0

    def row(self, index: int, width: int, selected: bool) -> Text:
        line = Text(no_wrap=True)
        each = self._each(len(self._columns(width)), width)
        for nth, score in enumerate(self.shown(width)):
            line.append(" " * (nth * (each + GAP) - line.cell_len))
            line.append(str(index).rjust(self._label - 1) + " ", self.style("muted"))
            self._append_row(line, index, score, width)
        return line

    def _append_row(self, line: Text, index: int, score: str, width: int) -> None:
        cells, here = self._cells(width), index == self.cursor
        for head in (columns := self._columns(width)):
            one = self.scores[index * self.heads + head]
            chosen, after = here and head == self.column, here and head == self.column + 1 and head > columns.start
            number = one.of(score)
            line.append("[" if chosen else "]" if after else " ", self.style("accent"))
            off = (one.layer, one.head) in self.off
            sign = "×" if off else shade(number or 0.0)
            line.append(sign * (1 if cells >= 5 else cells - 1), self.style("bad" if off else "bar"))
            if cells >= 5:
                line.append(score_text(number).rjust(cells - 2), self.style("accent") if chosen else "not bold")
        line.append("]" if here and self.column == columns[-1] else " ", self.style("accent"))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self.scores and offset.y >= len(self._head):
            width = self.line_width
            cells, columns = self._cells(width), self._columns(width)
            each = self._each(len(columns), width) + GAP
            at = (offset.x % each - self._label) // cells
            if 0 <= at < len(columns):
                self.column = columns[at]
        super().on_click(event)
        self.cursor_moved()
