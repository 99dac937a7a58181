"""The grid of attention heads: a row per layer, a column per head, and their means. The cursor selects the head whose
weights are shown on the text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rich.text import Text
from textual import events
from textual.message import Message

from tui_llm.common.display import visible
from tui_llm.facts.interventions import HEAD, ModelPart
from tui_llm.facts.place import Place
from tui_llm.instruments.attention.question import AttentionMap, AttentionRow
from tui_llm.tui.kit.shades import shade, short_percent
from tui_llm.tui.kit.widgets.lines import Lines

LABEL = 6  # cells of a layer's name
MEASURES = {
    "strongest": "the largest weight",
    "first": "the weight on the first token",
    "before": "the weight on the previous token",
    "itself": "the weight on the token itself",
    "effective_tokens": "effective tokens: e^entropy of the weights",
}


def measured_cell(row: AttentionRow, place: Place, measure: str) -> tuple[str, str]:
    """A cell's text, at most three characters, and its shade."""
    if measure == "effective_tokens":
        text = f"{row.effective_tokens:.1f}" if row.effective_tokens < 9.95 else f"{row.effective_tokens:.0f}"
        return text if len(text) <= 3 else "1k+", shade(1 / row.effective_tokens)
    at = {"strongest": row.strongest, "first": 0, "before": place.index - 1, "itself": place.index}[measure]
    if at < 0:
        return "—", " "
    return short_percent(row.weights[at]).removesuffix("%"), shade(row.weights[at])


class Columns(NamedTuple):
    cells: int  # width of each column; its first cell is a gap or a bracket
    first: int  # the first visible column; 0 is the mean
    stop: int


class HeadGrid(Lines):
    """`measure` selects which number of each head's weights the grid shows; `layer` and `head`, from 0, what is selected
    first; None: the means. A row of the grid is the mean over all heads or layer `index` − 1; column 0 is the mean over
    the layer's heads."""

    class Moved(Message):
        """Another layer or head was selected."""

    def __init__(self, layer: int | None = None, head: int | None = None) -> None:
        super().__init__(id="inside-heads", classes="pane")
        self.attention: AttentionMap | None = None
        self._first_row = 0 if layer is None else layer + 1
        self._column = 0 if head is None else head + 1
        self.measure = next(iter(MEASURES))

    def on_mount(self) -> None:
        self._put_title()

    def clear(self) -> None:
        self.attention = None
        self.rebuild()

    def show(self, attention: AttentionMap) -> None:
        self.attention = attention
        self._column = min(self._column, len(attention.heads[0]))
        self.rebuild()
        if self.cursor is None:
            self._place_cursor(self._first_row, quiet=True)
            self.rebuild()
            self._show_cursor()

    @property
    def layer_number(self) -> int | None:
        """The selected layer, from 0; None is the mean over all layers."""
        return self.cursor - 1 if self.cursor else None

    @property
    def head_number(self) -> int | None:
        """The selected head of the layer, from 0; None is the mean over its heads."""
        return self._chosen_column - 1 if self._chosen_column else None

    @property
    def _chosen_column(self) -> int:
        return self._column if self.cursor else 0  # the row "all" has only the mean

    @property
    def attention_row(self) -> AttentionRow | None:
        return self.attention.row(self.layer_number, self.head_number) if self.attention is not None else None

    @property
    def selection_name(self) -> str:
        layer, head = self.layer_number, self.head_number
        if layer is None:
            return "the mean over all heads"
        return f"layer {layer}, the mean over its heads" if head is None else ModelPart(HEAD, layer, head).name

    def move_head(self, by: int) -> None:
        if self.attention is None:
            return
        if not self.cursor:  # the row "all" has only the mean: go to the first layer
            self._place_cursor(1, quiet=True)
        self._column = max(0, min(self._column + by, len(self.attention.heads[0])))
        self.rebuild()
        self.post_message(self.Moved())

    def next_measure(self) -> None:
        names = list(MEASURES)
        self.measure = names[(names.index(self.measure) + 1) % len(names)]
        self._put_title()
        self.rebuild()

    def _put_title(self) -> None:
        self.border_title = Text(f"Heads · {MEASURES[self.measure]}")
        self.border_subtitle = Text("↑ ↓ layer")

    def cursor_moved(self) -> None:
        self.rebuild()
        self.post_message(self.Moved())

    def selectable(self, index: int) -> bool:
        return True

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def columns(self, width: int) -> Columns:
        """Columns with numbers if all fit, else with shades only. If those don't fit either, only the columns around
        the cursor."""
        assert self.attention is not None
        count = len(self.attention.heads[0]) + 1
        room = max(0, width - LABEL - 1)
        cells = next((cells for cells in (6, 5, 3) if cells * count <= room), 2)
        shown = max(1, min(count, room // cells))
        first = max(0, min(self._chosen_column - shown // 2, count - shown))
        return Columns(cells, first, first + shown)

    def head(self, width: int) -> list[Text]:
        if self.attention is None:
            return []
        cells, first, stop = self.columns(width)
        names = [("mean" if cells >= 5 else "m") if not at else str(at - 1) for at in range(first, stop)]
        label = "layer".ljust(LABEL)
        return [
            Text(
                label + "".join(name[-(cells - 1) :].rjust(cells) for name in names), self.style("muted"), no_wrap=True
            )
        ]

    def row_count(self, width: int) -> int:
        return len(self.attention.layers) + 1 if self.attention is not None else 0

    def row(self, index: int, width: int, selected: bool) -> Text:
        found = self.attention
        assert found is not None
        cells, first, stop = self.columns(width)
        line = Text(no_wrap=True).append(
            (str(index - 1) if index else "all").rjust(LABEL - 2).ljust(LABEL), self.style("muted")
        )
        here, layer = index == (self.cursor or 0), index - 1 if index else None
        for at in range(first, stop if index else 1):
            chosen = here and at == self._chosen_column
            after = here and at == self._chosen_column + 1 and at > first
            text, sign = measured_cell(found.row(layer, at - 1 if at else None), found.place, self.measure)
            line.append("[" if chosen else "]" if after else " ", self.style("accent"))
            number = text.rjust(cells - 2) if cells >= 5 else ""
            line.append(sign * (1 if number else cells - 1), self.style("bar"))
            line.append(number, self.style("accent") if chosen else "not bold")
        if here and self._chosen_column == (stop - 1 if index else 0):
            line.append("]", self.style("accent"))
        return line

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self.attention is not None and offset.y >= len(self._head):
            cells, first, stop = self.columns(self.line_width)
            at = first + (offset.x - LABEL) // cells
            if first <= at < stop:
                self._column = at
        super().on_click(event)
        self.cursor_moved()

    # ── copying ──────────────────────────────────────────────────────────────────────────────────────────────────

    def table(self) -> Iterable[tuple[str, ...]]:
        """The selected head's weight on each token."""
        yield "number", "id", "bytes", "text", "weight"
        found, row = self.attention, self.attention_row
        if found is not None and row is not None:
            for at, (token, weight) in enumerate(zip(found.place.tokens, row.weights, strict=False)):
                yield str(found.place.first + at), str(token.id), token.bytes.hex(), visible(token.text), repr(weight)
