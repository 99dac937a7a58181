"""Commands of the candidate table: loading rows, search, order, what-if, appending a token."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

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
from tui_llm.tui.lab.panes.logits import LogitsPane, what_if_words
from tui_llm.tui.state.context import STALE, LabContext
from tui_llm.tui.state.messages import RowsWanted, TableCommand

STEP_CANDIDATES = 12  # stored with a token that was appended by the user, as with one that was drawn


def new_logit(text: str, now: float) -> float:
    """Parses a typed logit: `+1` and `-0.5` are added to `now`, `1` and `=1` replace it, and so does `=-0.5`. Raises
    `UserError`.

    Example: new_logit("-0.5", 2) is 1.5, new_logit("=-0.5", 2) is -0.5.
    """
    word = "".join(text.replace("−", "-").split())
    adds = word.startswith(("+", "-"))
    try:
        value = float(word.removeprefix("=")) + (now if adds else 0.0)
    except ValueError:
        value = math.nan
    if math.isnan(value) or value == math.inf:
        raise UserError(
            f"{text.strip()!r} is not a logit; type +1 or -0.5 to add to it, 1 or =-0.5 to set it, -inf to make it impossible"
        )
    return value


class CandidateTableController:
    def __init__(self, context: LabContext, pane: LogitsPane) -> None:
        self.context, self.lab, self.pane = context, context.lab, pane
        self.commands: dict[str, Callable[[], None]] = {
            "find": self._find,
            "next": self._find_next,
            "order": self._next_order,
            "change": self._change_logit,
            "undo": self._undo_changes,
            "temperatures": self._open_temperatures,
            "append": self._append,
        }

    def do(self, message: TableCommand) -> None:
        """Carries out a command of the pane's keys, on the row under the cursor."""
        reading = self.pane.reading
        if reading is None or reading.distribution is None:
            if self.context.has_text():
                self.context.notify("there is no prediction yet")
            return
        if reading.weights != self.context.weights:
            self.context.notify(STALE)
            return
        self.commands[message.what]()

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def load_rows(self, message: RowsWanted) -> None:
        pane = self.pane
        reading = pane.reading
        if reading is None or reading.distribution is None:
            return

        def take(page: VocabularyPage) -> None:
            now, asked = pane.reading, page.question
            same = now is not None and asked.request is now.request and page.weights == now.weights
            if same and asked.order == pane.order:
                pane.take_rows(page.start, page.rows)

        question = VocabularyQuestion(reading.request, message.order, message.places.start, message.places.stop)
        self.context.questions.ask(pane, question, take, pane.show_missing)

    def _row(self) -> Candidate | None:
        if (row := self.pane.selected) is None:
            self.context.notify("no row is selected; select one with ↑ and ↓")
        return row

    def _next_order(self) -> None:
        pane, row = self.pane, self.pane.selected
        orders = tuple(ORDERS)
        pane.show_order(orders[(orders.index(pane.order) + 1) % len(orders)])
        if row is not None:  # the cursor stays on its token
            self._seek(f"#{row.id}", -1, quiet=True)
        else:
            pane.go_to(0)

    # ── search ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _find(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        def answered(text: str | None) -> None:
            if text:
                self.pane.search = text
                self._seek(text, -1)

        hint = f"{SEARCH} · Enter goes to the first, N to the next"
        self.context.push_screen(AskScreen("Find a token", hint, self.pane.search, spaces=True), answered)

    def _find_next(self) -> None:
        pane = self.pane
        if not pane.search:
            self._find()
        else:
            self._seek(pane.search, -1 if pane.cursor is None else pane.place(pane.cursor))

    def _seek(self, text: str, after: int, quiet: bool = False) -> None:
        pane = self.pane
        assert pane.reading is not None

        def take(found: VocabularyMatch) -> None:
            if found.question.order != pane.order or pane.reading is None:
                return
            if found.question.request is not pane.reading.request:
                self._seek(text, -1, quiet)  # it was overtaken: the table is another one now
                return
            if found.place is None:
                pane.show_search(f"no token matches {text!r}")
                return
            if not quiet:
                pane.show_search(f"{text!r}: match {fmt.count(found.number)} of {fmt.count(found.matches)}; N: next")
            pane.go_to(found.place)

        self.context.questions.ask(pane, FindQuestion(pane.reading.request, pane.order, text, after), take)

    # ── what if ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _change_logit(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        pane, row = self.pane, self._row()
        if row is None or pane.reading is None:
            return
        seen = pane.reading.request

        def answered(text: str | None) -> None:
            if not text:
                return
            try:
                value = new_logit(text, row.logit)
            except UserError as error:
                self.context.warn(str(error))
                return
            self.lab.change_logit(row.id, value, seen)
            self.context.request_reading()

        self.context.push_screen(
            AskScreen(
                "What if the row had another logit?",
                f"its logit is {fmt.number(row.logit, 4)} now · +1 or -0.5 adds to it · 1 or =1 sets it, =-0.5 a negative "
                "one · -inf makes it impossible · Enter applies it, Esc cancels",
            ),
            answered,
        )

    def _undo_changes(self) -> None:
        if self.lab.undo_changes():
            self.context.notify("the model's own logits again")
            self.context.request_reading()
        else:
            self.context.notify("no logit was changed; e changes the one under the cursor")

    # ── temperatures, appending a token, the scratch table ───────────────────────────────────────────────────────

    def _open_temperatures(self) -> None:
        from tui_llm.tui.instruments.temperatures import TemperaturesScreen

        reading = self.pane.reading
        assert reading is not None
        if not self.context.has_current_reading():
            return

        def fetch(owner: Widget, temperatures: tuple[float, ...], take: Any, problem: Any) -> None:
            self.lab.temperatures = temperatures
            self.context.questions.ask(owner, TemperaturesQuestion(reading.request, temperatures), take, problem)

        penalised = reading.request.sampler.repetition_penalty != 1
        self.context.push_screen(
            TemperaturesScreen(self.lab.temperatures, fetch, what_if_words(reading), penalised=penalised)
        )

    def _append(self) -> None:
        """Appends the row's token to the text, as if it had been drawn."""
        pane, row = self.pane, self._row()
        reading = pane.reading
        if row is None or reading is None or reading.distribution is None:
            return
        if not self.context.has_current_reading():
            return
        if reading.position < len(reading.prompt_ids):
            self.context.notify("the table shows a position inside the text: move the token cursor to the end first")
            return
        self.context.stop_generation()
        stream = TextStream()
        for step in self.lab.steps:
            stream.feed(step.bytes)
        self.lab.steps = (
            *self.lab.steps,
            GeneratedToken(
                len(self.lab.steps), row.id, row.bytes, stream.feed(row.bytes), None, row.probability, row.raw_probability,
                row.rank, reading.distribution.candidates[:STEP_CANDIDATES], reading.request.sampler, self.lab.seed,
                reading.distribution.kept, by_hand=True, overrides=reading.request.overrides,
                interventions=reading.request.interventions,
            ),
        )  # fmt: skip
        self.lab.note = ""
        self.context.refresh_generation()
        self.context.request_reading()

    def open_scratch(self) -> None:
        from tui_llm.tui.instruments.scratch import ScratchScreen

        self.context.push_screen(ScratchScreen(self.lab, self.context.questions.ask, footer("prompt")))
