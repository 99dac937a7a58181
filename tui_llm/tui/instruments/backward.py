"""The Backward screen: gradient norms as a heat map of matrices, and of the tokens of the text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import fit, token_label, visible
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
from tui_llm.tui.kit.full import FullScreen, Lazy
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
        self.page = TokenPage(self, context, self.question, number)
        self.whole = False
        self.order = 0

    def on_mount(self) -> None:
        super().on_mount()
        self.page.ask()

    def on_unmount(self) -> None:
        self.page.forget(BackwardQuestion)

    @property
    def found(self) -> Backward | None:
        return self.page.found

    def question(self) -> Question[Backward]:
        return BackwardQuestion(self.page.request, self.whole)

    def action_whole(self) -> None:
        self.whole = not self.whole
        self.page.ask()

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
        most = max(one.norm for one in found.norms)
        kinds = found.block_kinds[: max(1, (width - LABEL) // CELL)]
        names = "".join(SHORT.get(kind, kind).rjust(CELL) for kind in kinds)
        lines.append(Text("block".ljust(LABEL) + names, style=self.style("muted"), no_wrap=True))
        for layer in range(1 + max(one.layer for one in found.norms)):
            line = Text(str(layer).rjust(3).ljust(LABEL), self.style("muted"), no_wrap=True)
            for kind in kinds:
                line.append_text(self._cell(found.cell(layer, kind), most))
            lines.append(line)
        others = [one for one in found.norms if one.layer < 0]
        parts = [Text(f"{one.kind} ", self.style("muted")).append_text(self._cell(one, most, 0)) for one in others]
        tied = [Text("the output head is the token embedding (tied)", self.style("muted"))] if found.tied else []
        lines += packed([*parts, *tied], width)
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

    def ordered(self, found: Backward) -> list[Saliency]:
        keys = (lambda one: one.number, lambda one: -one.norm, lambda one: -abs(one.product))
        return sorted(found.tokens, key=keys[self.order])

    def _cell(self, one: GradientNorm, most: float, cells: int = CELL) -> Text:
        level = heat(one.norm, most)
        text = f"{SHADES[level]}{fmt.figures(one.norm)}"
        return Text(" " * max(0, cells - len(text))).append(text, self.style(f"token-shade-{level}"))

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
