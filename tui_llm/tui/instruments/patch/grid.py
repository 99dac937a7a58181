"""The patch grid: a row for each layer, a column for each token of the changed prompt."""

from __future__ import annotations

from typing import NamedTuple

from rich.text import Text
from textual import events
from textual.message import Message

from tui_llm.common.display import fit, token_label
from tui_llm.instruments.patch.question import WORDS, PatchGrid, alignment
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.shades import LEVELS, SHADES, level
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines

LABEL = 6  # cells of a layer's name
WIDE, NUMBERS, SHADED = 8, 6, 2  # cells of a column with numbers or without; the first is a gap or a bracket
AWAY = " ·-=#"  # shades of an effect that leads away from the clean prompt
NO_TOKEN, UNKNOWN = "×", "?"
LEGEND = f"{SHADES[1:]} toward clean from {LEVELS[0]:.0%}, {LEVELS[1]:.0%}, {LEVELS[2]:.0%}, {LEVELS[3]:.0%} of the difference".replace("%", " %") + f" · {AWAY[1:]} away from it"  # fmt: skip


def mark(share: float | None, known: bool, aligned: bool) -> str:
    """A cell's character. `share`: the normalised effect, if there is one."""
    if not aligned:
        return NO_TOKEN
    if not known:
        return UNKNOWN
    if share is None:
        return " "
    return (SHADES if share >= 0 else AWAY)[level(abs(share))]


class GridColumns(NamedTuple):
    cells: int  # width of each column
    first: int  # the first visible token
    stop: int


class PatchLines(Lines):
    class Moved(Message):
        """Another cell was selected."""

    def __init__(self) -> None:
        super().__init__(id="patch-grid")
        self.grid: PatchGrid | None = None
        self.column = 0  # number of the selected token
        self.numbers: bool | None = None  # whether cells have numbers; None: if all columns fit
        self.normalised = True
        self.note = ""  # instead of the grid
        self.bad = False

    def say(self, note: str, bad: bool = False) -> None:
        """Shows a line instead of a grid."""
        self.grid, self.note, self.bad = None, note, bad
        self.rebuild()

    def show(self, grid: PatchGrid) -> None:
        """The grid, or the same one with more cells."""
        fresh = self.grid is None
        self.grid, self.note = grid, ""
        self.column = min(self.column, len(grid.piece.tokens) - 1)
        self.rebuild()
        if fresh or self.cursor is None:
            self._place_cursor(0, quiet=True)
            self.refresh()

    def go_to(self, row: int, token: int) -> None:
        self.column = token
        self._place_cursor(row)
        self.rebuild()

    def move(self, by: int) -> None:
        if self.grid is not None:
            self.column = max(0, min(self.column + by, len(self.grid.piece.tokens) - 1))
            self.rebuild()

    def cursor_moved(self) -> None:
        self.rebuild()
        self.post_message(self.Moved())

    def selectable(self, index: int) -> bool:
        return self.grid is not None

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def columns(self, width: int) -> GridColumns:
        assert self.grid is not None
        count, room = len(self.grid.piece.tokens), max(0, width - LABEL - 1)
        cells = next((cells for cells in (WIDE, NUMBERS) if cells * count <= room), SHADED)
        if self.numbers is not None:
            cells = max(cells, NUMBERS) if self.numbers else SHADED
        shown = max(1, min(count, room // cells))
        first = max(0, min(self.column - shown // 2, count - shown))
        return GridColumns(cells, first, first + shown)

    def head(self, width: int) -> list[Text]:
        muted, grid = self.style("muted"), self.grid
        if grid is None:
            return wrapped(Text(self.note, style=self.style("bad") if self.bad else muted), width) if self.note else []
        piece = grid.piece
        target, rival = token_label(piece.target.text), token_label(piece.rival.text)
        line = Text("logit of ").append(target, self.style("accent")).append(" − logit of ", "not bold")
        line.append(rival, self.style("accent"))
        line.append(
            f": {fmt.number(piece.changed, 3)} in this text, {fmt.number(piece.clean, 3)} in the clean one", "not bold"
        )
        lines = wrapped(line, width)
        for said in alignment(piece):
            lines += wrapped(Text(said, style=self.style("accent")), width)
        if self.size.height > len(piece.layers) + len(lines) + 6:
            lines += wrapped(Text(LEGEND, style=muted), width)
        unit = "share of the way to the clean prompt, %" if self.normalised else "logit difference"
        lines += wrapped(Text(f"layer by token: {unit}", style=muted), width)[:1]
        # Where there is little room, the grid's rows come before what is said of them.
        room = max(1, self.size.height - 2 - min(len(piece.layers), 6) - len(self.foot(width)))
        return [*lines[:room], self._token_line(width, clean=False), self._token_line(width, clean=True)]

    def _token_line(self, width: int, *, clean: bool) -> Text:
        """The tokens above their columns; of the clean prompt, those that differ."""
        assert self.grid is not None
        piece = self.grid.piece
        cells, first, stop = self.columns(width)
        line = Text(fit("clean" if clean else "token", LABEL), self.style("muted"), no_wrap=True)
        for token in range(first, stop):
            other = piece.counterparts[token]
            if not clean:
                text = token_label(piece.tokens[token].text) if cells > SHADED else " "
            elif other is None:
                text = NO_TOKEN
            else:
                text = (token_label(other.text) if cells > SHADED else "≠") if piece.differs(token) else ""
            style = self.style("accent" if piece.differs(token) else "muted")
            line.append(" " + fit(text, cells - 1), style)
        return line

    def row_count(self, width: int) -> int:
        return len(self.grid.piece.layers) if self.grid is not None else 0

    def row(self, index: int, width: int, selected: bool) -> Text:
        grid = self.grid
        assert grid is not None
        cells, first, stop = self.columns(width)
        piece = grid.piece
        line = Text(no_wrap=True).append(str(piece.layers[index]).rjust(LABEL - 2).ljust(LABEL), self.style("muted"))
        here = index == self.cursor
        for token in range(first, stop):
            chosen, after = here and token == self.column, here and token == self.column + 1 and token > first
            effect = grid.effects[index][token]
            share = grid.normalised(effect)
            aligned = piece.counterparts[token] is not None
            line.append("[" if chosen else "]" if after else " ", self.style("accent"))
            sign = mark(share, effect is not None, aligned)
            style = "muted" if effect is None else "bad" if share is not None and share < 0 else "bar"
            line.append(sign, self.style(style))
            if cells > SHADED:
                line.append(
                    self._number(effect, share, cells).rjust(cells - 2), self.style("accent") if chosen else "not bold"
                )
        if here and self.column == stop - 1:
            line.append("]", self.style("accent"))
        return line

    def _number(self, effect: float | None, share: float | None, cells: int) -> str:
        if effect is None:
            return ""
        if self.normalised:
            unit = " %" if cells == WIDE else ""
            return "–" if share is None else f"{fmt.number(100 * share, 0)}{unit}".replace("−0", "0")
        return fmt.number(effect, 2 if cells == WIDE else 1)

    def foot(self, width: int) -> list[Text]:
        grid = self.grid
        if grid is None or self.cursor is None or self.size.height < 8:
            return []
        piece, token = grid.piece, self.column
        other, effect = piece.counterparts[token], grid.effects[self.cursor][token]
        where = f"layer {piece.layers[self.cursor]}, token {piece.left_out[1] + token} "
        line = Text(where).append(token_label(piece.tokens[token].text), self.style("accent"))
        if other is None:
            line.append(": no token of the clean prompt is aligned with it", "not bold")
        else:
            line.append(" gets the value of ", "not bold").append(token_label(other.text), self.style("accent"))
            share = grid.normalised(effect)
            if effect is None:
                said = ": not computed yet"
            else:
                said = f": {fmt.number(effect, 3)}" + (
                    f", {fmt.number(100 * share, 1)} % of the way to the clean prompt" if share is not None else ""
                )
            line.append(said, "not bold")
        words = Text(f"patched: the {WORDS[piece.kind]}", style=self.style("muted"))
        return [Text(), *wrapped(line, width)[:2], *wrapped(words, width)[:1]]

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self.grid is not None and offset.y >= len(self._head):
            cells, first, stop = self.columns(self.line_width)
            at = first + (offset.x - LABEL) // cells
            if first <= at < stop:
                self.column = at
        super().on_click(event)
        self.cursor_moved()
