"""Commands of the candidate table: loading rows, search, order, what-if, appending a token by hand."""

from __future__ import annotations

import math
from typing import Any

from textual import on
from textual.widget import Widget

from tui_llm.common.errors import UserError
from tui_llm.facts.prediction import Candidate, GeneratedToken
from tui_llm.instruments.temperatures.question import TemperaturesQuestion
from tui_llm.instruments.vocabulary.question import (
    ORDERS,
    SEARCH,
    FindQuestion,
    VocabularyMatch,
    VocabularyPage,
    VocabularyQuestion,
)
from tui_llm.llm.tokens.token_bytes import TextStream
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.lab.keys import footer
from tui_llm.tui.lab.panes.generate import GeneratePane
from tui_llm.tui.lab.panes.logits import LogitsPane, what_if_words
from tui_llm.tui.state.base import LabBase
from tui_llm.tui.state.messages import RowsWanted, TableAsked

STEP_CANDIDATES = 12  # stored with a token that was appended by hand, as with one that was drawn


def new_logit(text: str, now: float) -> float:
    """Parses a typed logit: a number, or `by` and a number to add to `now`. Raises `UserError`."""
    words = text.replace("−", "-").split()
    change = len(words) == 2 and words[0] == "by"
    try:
        if len(words) != (2 if change else 1):
            raise ValueError
        value = float(words[-1]) + (now if change else 0.0)
    except ValueError:
        value = math.nan
    if math.isnan(value) or value == math.inf:
        raise UserError(f"{text.strip()!r} is not a logit; type a number such as 3.5, -inf, or by +1 to change it by 1")
    return value


class Tabling(LabBase):
    @property
    def table_pane(self) -> LogitsPane:
        return self.query_one(LogitsPane)

    @property
    def what_if_words(self) -> str:
        words = what_if_words(self.reading)
        return f" · {words}" if words else ""

    def tell_dropped(self) -> None:
        if count := self.lab.dropped:
            self.lab.dropped = 0
            self.say(
                f"what if: {count} changed logit{'s' if count > 1 else ''} dropped, because the prediction changed"
            )

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @on(RowsWanted)
    def _rows_wanted(self, message: RowsWanted) -> None:
        reading, pane = self.table_pane.reading, self.table_pane
        if reading is None or reading.distribution is None:
            return

        def take(page: VocabularyPage) -> None:
            now, asked = pane.reading, page.question
            same = now is not None and asked.request is now.request and page.weights == now.weights
            if same and asked.order == pane.order:
                pane.take_rows(page.start, page.rows)

        question = VocabularyQuestion(reading.request, message.order, message.places.start, message.places.stop)
        self.inquire(pane, question, take, pane.say_missing)

    @on(TableAsked)
    def _table_asked(self, message: TableAsked) -> None:
        reading = self.table_pane.reading
        if reading is None or reading.distribution is None:
            if self.has_text():
                self.say("there is no prediction yet")
            return
        getattr(self, f"_table_{message.what}")()

    def _row(self) -> Candidate | None:
        if (row := self.table_pane.selected) is None:
            self.say("no row is selected; select one with ↑ and ↓")
        return row

    def _table_order(self) -> None:
        pane, row = self.table_pane, self.table_pane.selected
        orders = tuple(ORDERS)
        pane.show_order(orders[(orders.index(pane.order) + 1) % len(orders)])
        if row is not None:  # the cursor stays on its token
            self._seek(f"#{row.id}", -1, quiet=True)
        else:
            pane.go_to(0)

    # ── search ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _table_find(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text:
                self.table_pane.search = text
                self._seek(text, -1)

        hint = f"{SEARCH} · Enter goes to the first, N to the next · a leading space counts"
        self.app.push_screen(AskScreen("Find a token", hint, self.table_pane.search), answered)

    def _table_next(self) -> None:
        pane = self.table_pane
        if not pane.search:
            self._table_find()
        else:
            self._seek(pane.search, -1 if pane.cursor is None else pane.place(pane.cursor))

    def _seek(self, text: str, after: int, quiet: bool = False) -> None:
        pane = self.table_pane
        assert pane.reading is not None

        def take(found: VocabularyMatch) -> None:
            if found.question.order != pane.order:
                return
            if found.place is None:
                pane.show_search(f"no token matches {text!r}")
                return
            if not quiet:
                pane.show_search(f"{text!r}: match {fmt.count(found.number)} of {fmt.count(found.matches)}; N: next")
            pane.go_to(found.place)

        self.inquire(pane, FindQuestion(pane.reading.request, pane.order, text, after), take)

    # ── what if ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _table_change(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        pane, row = self.table_pane, self._row()
        if row is None or pane.reading is None:
            return
        seen = pane.reading.request

        def answered(text: str | None) -> None:
            if not text:
                return
            try:
                value = new_logit(text, row.logit)
            except UserError as error:
                self.warn(str(error))
                return
            self.lab.change_logit(row.id, value, seen)
            self.ask()

        self.app.push_screen(
            AskScreen(
                "What if the row had another logit?",
                f"its logit is {fmt.number(row.logit, 4)} now: type another, or by +1, by -0.5 to change it; -inf makes it "
                "impossible · Enter sets it, Esc cancels",
            ),
            answered,
        )

    def _table_undo(self) -> None:
        if self.lab.undo_changes():
            self.say("the model's own logits again")
            self.ask()
        else:
            self.say("no logit was changed; e changes the one under the cursor")

    # ── temperatures, appending a token, the scratch table ───────────────────────────────────────────────────────

    def _table_temperatures(self) -> None:
        from tui_llm.tui.instruments.temperatures import TemperaturesScreen

        reading = self.table_pane.reading
        assert reading is not None

        def fetch(owner: Widget, temperatures: tuple[float, ...], take: Any, problem: Any) -> None:
            self.lab.temperatures = temperatures
            self.inquire(owner, TemperaturesQuestion(reading.request, temperatures), take, problem)

        self.app.push_screen(TemperaturesScreen(self.lab.temperatures, fetch, what_if_words(reading)))

    def _table_append(self) -> None:
        pane, row = self.table_pane, self._row()
        reading = pane.reading
        if row is None or reading is None or reading.distribution is None:
            return
        if reading.request.number != self.lab.number:
            self.say("the table is still updating; try again")
            return
        if reading.position < len(reading.prompt_ids):
            self.say("the table shows a position inside the text: move the token cursor to the end first")
            return
        self.stop_stream()
        stream = TextStream()
        for step in self.lab.steps:
            stream.feed(step.bytes)
        self.lab.steps = (
            *self.lab.steps,
            GeneratedToken(
                len(self.lab.steps), row.id, row.bytes, stream.feed(row.bytes), None, row.probability, row.raw_probability,
                row.rank, reading.distribution.candidates[:STEP_CANDIDATES], reading.request.sampler, self.lab.seed,
                reading.distribution.kept, by_hand=True, overrides=reading.request.overrides,
            ),
        )  # fmt: skip
        self.lab.note = ""
        self.query_one(GeneratePane).show(None)
        self.ask()

    def action_scratch(self) -> None:
        from tui_llm.tui.instruments.scratch import ScratchScreen

        self.app.push_screen(ScratchScreen(self.lab, self.inquire, footer("prompt")))
