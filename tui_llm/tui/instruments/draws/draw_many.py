"""Many draws of one token: how often each token comes, beside how often it is expected."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable

from textual.app import ComposeResult

from tui_llm.instruments.draws.question import Histogram, HistogramQuestion
from tui_llm.tui.instruments.draws.draw import Inquire, StepScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.kit.widgets.histogram import HistogramLines
from tui_llm.tui.state.lab import LARGEST_SEED, TEMPERATURES, TOP_PS, Lab, step

COUNTS = (10, 100, 1_000, 10_000, 100_000)


_key = CommandFactory("draw_many", "Draw many")
KEYS = (
    _key("close_many", "escape,q,H", "back", "Back to the five panes", "close", importance=WAY_OUT),
    _key("many_earlier", "left", "earlier", "Draw the previous token many times", "step(-1)", together="token"),
    _key("many_later", "right", "later", "Draw the next token many times; after the last one, the token to be drawn next", "step(1)", together="token"),
    _key("fewer_draws", "minus", "fewer", "Divide the number of draws by ten", "more(-1)", together="draws"),
    _key("more_draws", "plus,equals_sign", "more", "Multiply the number of draws by ten: the counts approach the expected ones", "more(1)", together="draws"),
    _key("many_seed", "r", "new seed", "Draw again with another seed", "seed"),
    _key("many_cooler", "left_square_bracket", "cooler", "Draw at a lower temperature", "temperature(-1)", together="temperature"),
    _key("many_warmer", "right_square_bracket", "warmer", "Draw at a higher temperature", "temperature(1)", together="temperature"),
    _key("many_top_p_down", "left_curly_bracket", "top-p −", "Draw with a lower top-p", "top_p(-1)", together="top-p"),
    _key("many_top_p_up", "right_curly_bracket", "top-p +", "Draw with a higher top-p", "top_p(1)", together="top-p"),
    _key("copy_many", "y", "copy", "Copy the table (tab-separated)", "copy"),
)  # fmt: skip


class DrawManyScreen(StepScreen):
    tour_name = "draw_many"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    TITLE_WORDS = "Draw many"

    def __init__(self, lab: Lab, inquire: Inquire, index: int) -> None:
        super().__init__(lab, inquire, index)
        self.count = 1_000
        self.seed = lab.seed
        self.sampler = lab.before_step(self.index).sampler

    def compose(self) -> ComposeResult:
        yield Bar(id="step-top")
        yield HistogramLines()
        yield KeyBar(id="step-keys")

    def ask(self) -> None:
        request = dataclasses.replace(self.lab.before_step(self.index), sampler=self.sampler)
        self.inquire(self, HistogramQuestion(request, self.count, self.seed), self._take, self.failed)

    def _take(self, histogram: Histogram) -> None:
        self.problem, self.waiting = "", False
        self.query_one(HistogramLines).show(histogram)
        self.show_title()

    def table(self) -> Iterable[tuple[str, ...]]:
        return self.query_one(HistogramLines).table()

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_step(self, direction: int) -> None:
        if self.go(direction):
            self.ask_again()

    def action_more(self, direction: int) -> None:
        at = max(0, min(COUNTS.index(self.count) + direction, len(COUNTS) - 1))
        self.count = COUNTS[at]
        self.ask_again()

    def action_seed(self) -> None:
        self.seed = random.randint(1, LARGEST_SEED)
        self.ask_again()

    def action_temperature(self, direction: int) -> None:
        value = step(TEMPERATURES, self.sampler.temperature, direction)
        self.sampler = dataclasses.replace(self.sampler, temperature=value)
        self.ask_again()

    def action_top_p(self, direction: int) -> None:
        self.sampler = dataclasses.replace(self.sampler, top_p=step(TOP_PS, self.sampler.top_p, direction))
        self.ask_again()
