"""The Backward screen: gradient norms as a heat map of matrices, and of the tokens of the text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, token_label, visible
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.instruments.backward.question import (
    DOWN,
    GATE,
    GATE_UP,
    NORMS,
    OUTPUT,
    QKV,
    RMS_NORMS,
    UP,
    Backward,
    BackwardQuestion,
    GradientNorm,
    Saliency,
    loss_of,
)
from tui_llm.tui.instruments.token_screen import SHADES, TokenPage
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen, Lazy, clickable
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import packed, wrapped
from tui_llm.tui.state.context import LabContext

SHORT = {
    QKV: "q, k, v",
    OUTPUT: "out",
    GATE: "gate",
    GATE_UP: "gate+up",
    UP: "up",
    DOWN: "down",
    NORMS: "norms",
    RMS_NORMS: "norms",
}  # names in a column, if they are others
LABEL, CELL = 6, 8  # cells
PER_SHADE = 2.0  # a shade less is a norm this many times smaller than the largest

_key = CommandFactory("backward", "Backward pass")
KEYS = (
    _key("backward_left", "left", "matrix", "Go to the matrix at the left", "move(0, -1)", priority=True, together="matrix"),
    _key("backward_right", "right", "matrix", "Go to the matrix at the right", "move(0, 1)", priority=True, together="matrix"),
    _key("backward_up", "up", "block", "Go to the block before", "move(-1, 0)", priority=True, together="block"),
    _key("backward_down", "down", "block", "Go to the next block, or to the matrices of no block", "move(1, 0)", priority=True,
         together="block"),
    _key("backward_whole", "w", "whole text", "The loss of the target, or the mean loss of the whole text as in a training step",
         "whole"),
    _key("backward_order", "o", "order", "List the tokens in the order of the text, by gradient norm, or by gradient × input",
         "order"),
    _key("backward_copy", "y", "copy", "Copy both tables (tab-separated)", "copy"),
    _key("close_backward", "escape,q,B", "back", "Close the backward pass", "close", importance=WAY_OUT),
)  # fmt: skip
ORDERS = ("in the order of the text", "largest gradient first", "largest gradient × input first")


class BackwardScreen(FullScreen):
    tour_name = "backward"
    TITLE_WORDS: ClassVar[str] = "Backward pass"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext, number: int | None = None) -> None:
        super().__init__()
        self.page = TokenPage(self, context, self.question, number, self._taken)
        self.whole = False
        self.order = 0
        self._map_top = 0  # the line of the heat map's first row
        self.row, self.column = 0, 0  # of the selected matrix; the last row has those of no block

    def on_mount(self) -> None:
        super().on_mount()
        self.page.ask()

    def on_unmount(self) -> None:
        self.page.forget(BackwardQuestion)

    def reopened(self, weights: Weights) -> None:
        self.page.reopened(weights)

    @property
    def found(self) -> Backward | None:
        return self.page.found

    def question(self) -> Question[Backward]:
        return BackwardQuestion(self.page.request, self.whole)

    def _taken(self, found: Backward) -> None:
        """Keeps the cursor on a matrix: another model may have fewer."""
        rows = self.rows(found)
        self.row = min(self.row, len(rows) - 1)
        self.column = min(self.column, len(rows[self.row]) - 1)

    def action_whole(self) -> None:
        self.whole = not self.whole
        self.page.ask()

    def rows(self, found: Backward) -> list[list[GradientNorm]]:
        """The heat map: a row for each block, then the matrices of no block."""
        count = 1 + max(one.layer for one in found.norms)
        return [[one for one in found.norms if one.layer == layer] for layer in (*range(count), -1)]

    def action_move(self, down: int, right: int) -> None:
        if self.found is not None:
            self.cell_clicked(self.row + down, self.column + right)

    def cell_clicked(self, row: int, column: int) -> None:
        if self.found is None:
            return
        rows = self.rows(self.found)
        self.row = max(0, min(row, len(rows) - 1))
        self.column = max(0, min(column, len(rows[self.row]) - 1))
        self.refill()
        line, listing = self._map_top + self.row, self.listing
        if line not in listing.in_sight:
            listing.scroll_to(
                y=max(0, line - 1 if line < listing.scroll_offset.y else line - len(listing.in_sight) + 2),
                animate=False,
            )

    def action_order(self) -> None:
        self.order = (self.order + 1) % len(ORDERS)
        self.refill()

    def subject(self) -> str:
        return "" if self.found is None else f"of {loss_of(self.found, token_label)} · {self.found.weights.name}"

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        found, lines = self.found, self.page.instead(width)
        if lines or found is None:
            return [], lines
        head = Text("loss ", self.style("muted")).append(f"{fmt.number(found.loss, 4)} nats", self.style("strong"))
        head.append("  grad_norm ", self.style("muted")).append(fmt.figures(found.grad_norm), self.style("strong"))
        head.append(": over all parameters, as a training run reports it, before clipping", self.style("muted"))
        lines = wrapped(head, width)
        lines += self._map_lines(found, width, len(lines))
        lines.append(Text())
        names = "token".rjust(LABEL) + "  " + "text".ljust(16) + "‖∂L/∂e‖".rjust(CELL + 1)
        title = f"tokens of the text, {ORDERS[self.order]}; e: the token's embedding"
        lines.append(Text(title, style=self.style("muted"), no_wrap=True))
        lines.append(Text(names + " " * 14 + "e · ∂L/∂e".rjust(11), style=self.style("muted"), no_wrap=True))
        tokens = self.ordered(found)
        largest = max((one.norm for one in tokens), default=0.0) or 1.0
        widest = max((abs(one.product) for one in tokens), default=0.0) or 1.0
        start = len(lines)
        rows = Lazy(
            start + len(tokens),
            lambda at: lines[at] if at < start else self._token(tokens[at - start], largest, widest, width),
        )
        return [], rows

    def _map_lines(self, found: Backward, width: int, top: int) -> list[Text]:
        """The heat map below `top` lines, as many columns as have room, around the cursor's; and the selected matrix."""
        most, rows = max(one.norm for one in found.norms), self.rows(found)
        kinds, shown = found.block_kinds, max(1, (width - LABEL - 1) // CELL)
        first = max(0, min(self.column - shown // 2, len(kinds) - shown)) if self.row < len(rows) - 1 else 0
        columns = range(len(kinds))[first : first + shown]
        names = "".join(SHORT.get(kinds[at], kinds[at]).rjust(CELL) for at in columns)
        lines = [Text("block".ljust(LABEL) + names, style=self.style("muted"), no_wrap=True)]
        self._map_top = top + 1
        for layer, row in enumerate(rows[:-1]):
            line = Text(str(layer).rjust(3).ljust(LABEL), self.style("muted"), no_wrap=True)
            for at in columns:
                line.append_text(self._cell(row[at], most, layer, at))
            lines.append(
                line.append("]" if self.row == layer and self.column == columns[-1] else "", self.style("accent"))
            )
        parts = [
            Text(one.kind, self.style("muted")).append_text(self._cell(one, most, len(rows) - 1, at, 0))
            for at, one in enumerate(rows[-1])
        ]
        for at, part in enumerate(parts):
            clickable(part, len(rows) - 1, at)
        tied = [Text("the output head is the token embedding (tied)", self.style("muted"))] if found.tied else []
        lines += packed([*parts, *tied], width)
        one = rows[self.row][self.column]
        where = f"block {one.layer}, {one.kind}" if one.layer >= 0 else one.kind
        line = Text("selected: ", self.style("muted")).append(where, self.style("accent"))
        line.append(f": {fmt.figures(one.norm)} · {fmt.count(one.numbers)} numbers", "not bold")
        if found.grad_norm:
            line.append(f" · {numbers.percent(one.norm**2 / found.grad_norm**2)} of grad_norm²", "not bold")
        return [*lines, *wrapped(line, width)]

    def ordered(self, found: Backward) -> list[Saliency]:
        keys = (lambda one: one.number, lambda one: -one.norm, lambda one: -abs(one.product))
        return sorted(found.tokens, key=keys[self.order])

    def _cell(self, one: GradientNorm, most: float, row: int, column: int, cells: int = CELL) -> Text:
        level = heat(one.norm, most)
        text = f"{SHADES[level]}{fmt.figures(one.norm)}"
        chosen = (row, column) == (self.row, self.column)
        after = cells and row == self.row and column == self.column + 1
        line = Text(" " * max(0, cells - len(text) - 1))
        line.append("[" if chosen else "]" if after else " ", self.style("accent"))
        line.append(text, self.style(f"token-shade-{level}"))
        if chosen and not cells:
            line.append("]", self.style("accent"))
        clickable(line, row, column)
        return line

    def _token(self, one: Saliency, largest: float, widest: float, width: int) -> Text:
        line = Text(str(one.number).rjust(LABEL) + "  ", self.style("muted"), no_wrap=True)
        line.append(fit(token_label(one.token.text), 16), self.style("strong"))
        line.append(fmt.figures(one.norm).rjust(CELL + 1) + "  ", "not bold")
        line.append(fmt.bar(one.norm / largest, 10), self.style("bar")).append("  ")
        line.append(fmt.number(one.product, 4).rjust(11) + " ", "not bold")
        mark, style = ("▼", "good") if one.product < 0 else ("▲", "bad")
        bar = fmt.bar(abs(one.product) / widest, max(0, min(20, width - line.cell_len - 3))).rstrip()
        return line.append(f" {mark}{bar}" if one.product else "", self.style(style))

    def table(self) -> Iterable[Row]:
        yield "layer", "kind or token", "id", "gradient_norm", "gradient_times_input"
        if self.found is None:
            return
        for cell in self.found.norms:
            yield str(cell.layer) if cell.layer >= 0 else "", cell.kind, "", repr(cell.norm), ""
        for one in self.found.tokens:
            yield "", visible(one.token.text), str(one.token.id), repr(one.norm), repr(one.product)


def heat(norm: float, most: float) -> int:
    """The shade of a norm, 0 to 4: one less for each factor of `PER_SHADE` below the largest."""
    if norm <= 0 or most <= 0:
        return 0
    return max(0, 4 - int(math.log(most / norm) / math.log(PER_SHADE)))
