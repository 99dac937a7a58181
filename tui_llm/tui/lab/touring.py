"""The tour in the lab: collects the facts that the tour's checks need, and shows the tour beside every screen."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from textual import events, on
from textual.geometry import Size
from textual.screen import Screen
from textual.timer import Timer

from tui_llm.common.errors import UserError
from tui_llm.facts.request import Question, Request
from tui_llm.instruments.instruct.question import Instructed, InstructQuestion
from tui_llm.instruments.textfile.question import TextFileQuestion
from tui_llm.llm.data.instruction_pairs import typed as typed_pairs
from tui_llm.tour.facts import Facts, RunFacts
from tui_llm.tour.step import Ask
from tui_llm.tour.tour import Tour
from tui_llm.training.run import pins
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.panes.logits import LogitsPane
from tui_llm.tui.lab.panes.tokens import TokensPane
from tui_llm.tui.runs.pane import TrainingPane
from tui_llm.tui.state.inquire import Inquiring
from tui_llm.tui.state.messages import Answered
from tui_llm.tui.tour.pane import TourPane, room_for

INTERVAL = 0.2  # seconds between two checks of what the learner did
NAMES = {  # screens over the lab, by class name
    "PairsScreen": "pairs",
    "VocabulariesScreen": "vocabularies",
    "MergesScreen": "merges",
    "LettersScreen": "letters",
    "InsideScreen": "inside",
    "ScratchScreen": "scratch",
    "TemperaturesScreen": "temperatures",
    "LearnScreen": "learn",
    "LearnedScreen": "learned",
    "DrawScreen": "draw",
    "DrawManyScreen": "draw_many",
}


class Touring(Inquiring):
    tour: Tour | None = None
    tour_asked = False  # open the tour once the screen is mounted
    key_of: Callable[[str], str | None]  # the key of a command, by the command's id
    _tour_timer: Timer | None = None
    _tour_typed: dict[str, str]
    _tour_answers: dict[type[Question], Any]
    _tour_problems: dict[type[Question], str]

    @abstractmethod
    def fit_panes(self) -> None:
        """Lays out the panes again."""

    @abstractmethod
    def open_model(self, model: str) -> None:
        """Opens another model."""

    @property
    def tour_room(self) -> Size:
        """The room that the tour takes up on the screen."""
        return room_for(self.size) if self.tour is not None else Size(0, 0)

    @on(events.Mount)
    def _open_asked_tour(self) -> None:
        if self.tour_asked and self.tour is None:
            self.call_after_refresh(self.open_or_close_tour)

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────

    def open_or_close_tour(self) -> None:
        if self.tour is not None:
            self._close_tour()
            return
        self.tour = Tour()
        self._tour_typed, self._tour_answers, self._tour_problems = {}, {}, {}
        if self.tour.load():
            self.say("the tour continues where you stopped")
        for screen in self.app.screen_stack:
            self.stand_beside(screen)
        self._tour_timer = self.set_interval(INTERVAL, self.look_at_tour)
        self.fit_panes()
        self.look_at_tour()

    def _close_tour(self) -> None:
        if self._tour_timer is not None:
            self._tour_timer.stop()
        self.tour = None
        self.forget(InstructQuestion)
        self.forget(TextFileQuestion)
        for screen in self.app.screen_stack:
            for pane in screen.query(TourPane):
                pane.leave()
        self.fit_panes()

    def stand_beside(self, screen: Screen[Any]) -> None:
        """Mounts the tour beside a screen, if the tour is open."""
        if self.tour is None or not screen.is_attached or any(isinstance(c, TourPane) for c in screen.children):
            return
        pane = TourPane(self.key_of)
        pane.fit(self.app.size)
        pane.show(self.tour)
        screen.mount(pane)

    # ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────

    def look_at_tour(self) -> None:
        if self.tour is None or not self.is_attached:
            return
        before = self.tour.step, self.tour.part
        self.tour.look(self.tour_facts())
        if before != (self.tour.step, self.tour.part):
            self._keep_tour()
        self._show_tour()

    def _show_tour(self) -> None:
        if self.tour is None:
            return
        for screen in self.app.screen_stack:
            for pane in screen.query(TourPane):
                pane.fit(self.app.size)
                pane.show(self.tour)

    def _keep_tour(self) -> None:
        assert self.tour is not None
        try:
            self.tour.save()
        except UserError as error:
            self.warn(str(error))

    @on(Answered)
    def _tour_heard(self, message: Answered) -> None:
        if self.tour is None:
            return
        kind = type(message.question)
        if message.problem:
            self._tour_problems[kind] = message.problem
        else:
            self._tour_problems.pop(kind, None)
            self._tour_answers[kind] = message.answer
        self.look_at_tour()

    def tour_facts(self) -> Facts:
        """The current state, for the tour's checks."""
        asking = isinstance(self.app.screen, AskScreen)
        over = [screen for screen in self.app.screen_stack if type(screen).__name__ in NAMES]
        top = next((s for s in reversed(self.app.screen_stack) if not isinstance(s, AskScreen)), self)
        name = (
            "lab" if top is self else NAMES.get(type(top).__name__, "other") if not over or top is over[-1] else "other"
        )
        reading = self.reading if self.reading and self.reading.request.number == self.lab.number else None
        return Facts(
            prompt=self.lab.prompt,
            asking=asking,
            typing=asking or isinstance(self.app.screen.focused, PromptEditor),
            reading=reading,
            steps=self.lab.steps,
            streaming=self.lab.streaming,
            sampler=self.lab.sampler,
            screen=name,
            view=_view(top),
            place=self.current,
            token_view=self.query_one(TokensPane).view,
            stage=self.query_one(LogitsPane).stage,
            answers=dict(self._tour_answers),
            problems=dict(self._tour_problems),
            run=self._watched_run(),
            pins=self._pins(),
            model=self.weights.name if self.weights is not None else "",
            typed=dict(self._tour_typed),
        )

    def _watched_run(self) -> RunFacts | None:
        seen = self.query_one(TrainingPane).snapshot
        if seen is None:
            return None
        return RunFacts(
            seen.name,
            seen.status.state,
            seen.status.step,
            seen.status.steps,
            seen.last_validation[1] if seen.last_validation else None,
            seen.uniform_loss,
            seen.unigram_loss,
            seen.bigram_loss,
            seen.sample.step if seen.sample else None,
            seen.sample.text if seen.sample else "",
        )

    def _pins(self) -> int:
        if self.tour is None or self.tour.finished or self.tour.steps[self.tour.step].name != "learn":
            return 0  # not needed by this step: read no file
        try:
            return len(pins.of_user())
        except UserError:
            return 0

    # ── the tour's own keys ──────────────────────────────────────────────────────────────────────────────────────

    def move_tour(self, direction: int) -> None:
        if self.tour is None:
            self.open_or_close_tour()
        elif self.tour.move(direction, self.tour_facts()):
            self._keep_tour()
            self._show_tour()
        else:
            self.say("this is the start of the tour" if direction < 0 else "the tour is over")

    def answer_tour(self) -> None:
        if self.tour is None:
            self.say("the tour is not open; F2 opens it")
            return
        ask = self.tour.here.ask if self.tour.here is not None else None
        if ask is None:
            self.say("this step needs no answer: the tour checks what you do")
        elif ask.form == "pairs":
            self._ask_pairs(ask)
        elif not isinstance(self.app.screen, AskScreen):
            text = self._tour_typed.get(ask.key, ask.text)
            self.app.push_screen(AskScreen(ask.title, ask.hint, text), functools.partial(self._tour_answered, ask))

    def _tour_answered(self, ask: Ask, text: str | None) -> None:
        if text is None or self.tour is None:
            return
        self._tour_typed[ask.key] = text
        if ask.form == "file":
            self.inquire(self, TextFileQuestion(Request(), text), _nothing, _nothing)
        self.look_at_tour()

    def _ask_pairs(self, ask: Ask) -> None:
        from tui_llm.tui.tour.pairs import TourPairsScreen

        def answered(text: str | None) -> None:
            if text is None or self.tour is None:
                return
            self._tour_typed[ask.key] = text
            self._tour_answers.pop(InstructQuestion, None)
            self._tour_problems.pop(InstructQuestion, None)
            self.inquire(self, InstructQuestion(Request(), typed_pairs(text)), self._tour_tuned, _nothing)
            self.look_at_tour()

        if not isinstance(self.app.screen, TourPairsScreen):
            self.app.push_screen(TourPairsScreen(self._tour_typed.get(ask.key, ask.text)), answered)

    def _tour_tuned(self, found: Instructed) -> None:
        self.open_model(found.name)


def _nothing(_answer: Any) -> None:
    """Ignores an answer: `_tour_heard` gets every answer."""


def _view(screen: Any) -> str:
    """The name of the view that a screen shows."""
    if type(screen).__name__ == "MergesScreen":
        return "first" if screen.merges is not None and screen.step == 0 else ""
    return str(getattr(screen, "view", ""))
