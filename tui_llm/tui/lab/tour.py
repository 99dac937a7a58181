"""The tour, or another lesson, in the lab: shows it beside every screen, checks what the learner did, takes the learner's
answers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from textual.geometry import Size
from textual.screen import Screen
from textual.timer import Timer

from tui_llm.common.errors import UserError
from tui_llm.facts.request import Question, Request
from tui_llm.instruments.sft.question import LEARNED, Instructed, InstructQuestion
from tui_llm.instruments.textfile.question import TextFileQuestion
from tui_llm.llm.data.instruction_pairs import parse as parse_pairs
from tui_llm.tour.facts import Facts, RunFacts
from tui_llm.tour.step import Ask, Lesson
from tui_llm.tour.tour import Tour, dismiss, is_used
from tui_llm.training.run import pins
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.instruments.copy_saver import ELSEWHERE
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import Command
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.panes.panes import LabPanes
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.messages import Answered
from tui_llm.tui.tour.pane import KEYS, TourPane, room_for

NEW_HERE = "New here? F2: the tour"
INTERVAL = 0.2  # seconds between two checks of what the learner did


class TourController:
    """`fit_panes` lays the panes out again; `key_of` returns the key of a command, given its id."""

    def __init__(
        self,
        context: LabContext,
        panes: LabPanes,
        fit_panes: Callable[[], None],
        key_of: Callable[[str], str | None],
    ) -> None:
        self.context, self.panes, self.fit_panes, self.key_of = context, panes, fit_panes, key_of
        self.tour: Tour | None = None  # None: it is closed
        self.lesson: Lesson | None = None  # None: the tour
        self.learner = ""  # the name in a class
        self._timer: Timer | None = None
        self._asking: AskScreen | None = None  # the question that was asked last, which may be closed
        self._tuning: InstructQuestion | None = None  # asked last; the Fine-tune screen asks its own
        self._typed: dict[str, str] = {}
        self._pairs: dict[str, str] = {}  # that were typed; kept while the tour is closed
        self._answers: dict[type[Question], Any] = {}
        self._asked: dict[type[Question], Request] = {}  # what those answers are about
        self._problems: dict[type[Question], str] = {}

    def room(self, size: Size) -> Size:
        """The room that the tour takes up on a screen of that size."""
        return room_for(size) if self.tour is not None else Size(0, 0)

    @property
    def _called(self) -> str:
        return "the tour" if self.lesson is None or self.tour is None or self.tour.is_tour else "the lesson"

    # ── the line for newcomers ───────────────────────────────────────────────────────────────────────────────────

    @functools.cached_property
    def unused(self) -> bool:
        """Whether nobody has opened the tour yet, or dismissed its line."""
        try:
            return self.lesson is None and not is_used()
        except (UserError, OSError):
            return False

    def line(self, typing: bool) -> str:
        """The line that tells a newcomer of the tour; empty once it was used or dismissed."""
        if not self.unused:
            return ""
        return NEW_HERE if typing else f"{NEW_HERE} (Esc hides this)"

    def in_footer(self, commands: list[Command]) -> list[Command]:
        """The commands of a footer; while the tour is unused, its key is kept where others are dropped."""
        if not self.unused:
            return commands
        first = dataclasses.replace(KEYS[0], importance=8)
        return [first, *(command for command in commands if command.id != first.id)]

    def dismiss(self) -> None:
        """Hides the line, from now on."""
        self.unused = False
        try:
            dismiss()
        except UserError as error:
            self.context.warn(str(error))
        self.fit_panes()

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────

    def toggle(self) -> None:
        """Opens or closes the tour."""
        if self.tour is not None:
            self._close()
            return
        self.tour = Tour(self.lesson, self.learner)
        self._typed, self._answers, self._asked, self._problems = {}, {}, {}, {}
        if self.tour.load():
            self.context.notify(f"{self._called} continues where you stopped")
        if self.tour.damaged:
            self._set_aside()
        self._save()  # a class sees that it was opened; at the next start it is no longer unused
        self.unused = False
        for screen in self.context.screens:
            self.mount_beside(screen)
        self._timer = self.context.set_interval(INTERVAL, self.check)
        self.fit_panes()
        self.check()

    def _close(self) -> None:
        self._close_question()
        if self._timer is not None:
            self._timer.stop()
        if self._tuning is not None and self.context.questions.awaits(self._tuning):
            self.context.notify(
                f"the fine-tuning on your pairs is stopped; F2 opens {self._called} again, to start it anew"
            )
        self.tour = None
        self._forget_tuning()
        self.context.questions.forget(TextFileQuestion)
        for screen in self.context.screens:
            for pane in screen.query(TourPane):
                pane.close()
        self.fit_panes()

    def mount_beside(self, screen: Screen[Any]) -> None:
        """Mounts the tour beside a screen, if the tour is open."""
        if self.tour is None or not screen.is_attached or any(isinstance(c, TourPane) for c in screen.children):
            return
        pane = TourPane(self.key_of)
        pane.fit(screen.app.size)
        pane.show(self.tour)
        screen.mount(pane)

    # ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        if self.tour is None or not self.context.is_attached or not self.context.screens[-1].is_mounted:
            return  # a screen asks its questions while it is mounted: until then the answers are not its own
        before = self.tour.step, self.tour.part
        self.tour.update(self.facts())
        if before != (self.tour.step, self.tour.part):
            self._save()
        self._show()

    def _show(self) -> None:
        if self.tour is None:
            return
        for screen in self.context.screens:
            for pane in screen.query(TourPane):
                pane.fit(screen.app.size)
                pane.show(self.tour)

    def _save(self) -> None:
        assert self.tour is not None
        try:
            self.tour.save()
        except UserError as error:
            self.context.warn(str(error))

    def _set_aside(self) -> None:
        """Keeps a file of progress that can't be read: the next `_save` would replace it."""
        from tui_llm.tui.kit.save import set_aside

        assert self.tour is not None
        path = self.tour.path
        try:
            aside = set_aside(path)
        except (OSError, UserError) as error:
            self.context.warn(f"{path} can't be read or moved ({error}); delete it")
        else:
            self.context.warn(f"{self._called} begins anew: {path} can't be read; it is kept as {aside.name}")

    def answered(self, message: Answered) -> None:
        """Notes an instrument's answer, whoever asked for it."""
        if isinstance(message.question, InstructQuestion) and not self.context.questions.awaits(message.question):
            self._tuned_too_late(message)
        elif self.tour is not None:
            self._note(message)

    def _note(self, message: Answered) -> None:
        kind = type(message.question)
        if message.problem:
            self._problems[kind] = message.problem
            if not self._is_about(message.question):
                self._answers.pop(kind, None)
        else:
            self._problems.pop(kind, None)
            self._answers[kind], self._asked[kind] = message.answer, message.question.request
        self.check()

    def _is_about(self, question: Question) -> bool:
        """Whether the newest answer to a question of that kind is about the same request, such as its next step."""
        known = self._asked.get(type(question))
        return known is not None and dataclasses.replace(known, number=question.request.number) == question.request

    def _current_answers(self) -> dict[type[Question], Any]:
        """The newest answers, without those that are about to be replaced by answers about something else."""
        asked = (one.question for one in self.context.questions.pending.values())
        replaced = {type(question) for question in asked if not self._is_about(question)}
        return {kind: answer for kind, answer in self._answers.items() if kind not in replaced}

    def facts(self) -> Facts:
        """The current state, for the tour's checks."""
        context, lab, screens = self.context, self.context.lab, self.context.screens
        asking = _asks(screens[-1])
        top = next((one for one in reversed(screens) if not _asks(one)), screens[0])
        return Facts(
            prompt=lab.prompt,
            asking=asking,
            typing=asking or isinstance(screens[-1].focused, PromptEditor),
            reading=context.reading if context.reading_is_current else None,
            steps=lab.steps,
            streaming=lab.streaming,
            sampler=lab.sampler,
            screen=top.tour_name if isinstance(top, BaseScreen) else "other",
            view=top.tour_view if isinstance(top, BaseScreen) else "",
            place=self.panes.current,
            token_view=self.panes.tokens.view,
            stage=self.panes.logits.stage,
            answers=self._current_answers(),
            problems=dict(self._problems),
            run=_run_facts(self.panes.training.snapshot),
            pins=self._pins(),
            model=context.model,
            typed=dict(self._typed),
            scratch=lab.scratch,
        )

    def _pins(self) -> int:
        from tui_llm.tour.checks_numbers import pinned

        part = self.tour.here if self.tour is not None else None
        if part is None or part.check is not pinned:
            return 0  # not needed by this part: read no file
        try:
            return len(pins.of_user())
        except UserError:
            return 0

    # ── the tour's own keys ──────────────────────────────────────────────────────────────────────────────────────

    def move(self, direction: int) -> None:
        if self.tour is None:
            self.toggle()
        elif self.tour.move(direction, self.facts()):
            self._close_question()
            self._save()
            self._show()
        else:
            self.context.notify(f"this is the start of {self._called}" if direction < 0 else f"{self._called} is over")

    def answer(self) -> None:
        """Asks the learner for the answer that the current part wants."""
        if self.tour is None:
            self.context.notify("the tour is not open; F2 opens it")
            return
        ask = self.tour.here.ask if self.tour.here is not None else None
        if ask is None:
            self.context.notify(f"this step needs no answer: {self._called} checks what you do")
        elif ask.form == "pairs":
            self._ask_pairs(ask)
        elif not isinstance(self.context.screens[-1], AskScreen):
            self._asking = AskScreen(ask.title, ask.hint, self._typed.get(ask.key, ask.text))
            self.context.push_screen(self._asking, functools.partial(self._take, ask))

    def _close_question(self) -> None:
        """Closes the question of a step that is no longer shown."""
        if self._asking is not None:
            self._asking.dismiss(None)
            self._asking = None

    def _take(self, ask: Ask, text: str | None) -> None:
        if text is None or self.tour is None:
            return
        self._typed[ask.key] = text
        if ask.form == "file":
            self.context.questions.ask(None, TextFileQuestion(Request(), text), _nothing, _nothing)
        self.check()

    def _ask_pairs(self, ask: Ask) -> None:
        from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen

        def answered(text: str | None) -> None:
            if text is None or self.tour is None:
                return
            self._typed[ask.key] = self._pairs[ask.key] = text
            self._answers.pop(InstructQuestion, None)
            self._problems.pop(InstructQuestion, None)
            question = InstructQuestion(
                Request(interventions=self.context.lab.interventions), parse_pairs(text), learned=LEARNED
            )
            self._forget_tuning()  # it is queued, so the newer one does not replace it
            self._tuning = question
            self.context.questions.ask(None, question, self._tuned, _nothing)
            self.check()

        if not isinstance(self.context.screens[-1], InstructionPairsScreen):
            self.context.push_screen(InstructionPairsScreen(self._pairs.get(ask.key, ask.text)), answered)

    def _forget_tuning(self) -> None:
        if self._tuning is not None:
            self.context.questions.forget(self._tuning.key)
            self._tuning = None

    def _tuned(self, found: Instructed) -> None:
        self.context.open_model(found.name)

    def _tuned_too_late(self, message: Answered) -> None:
        """The folder was written before the tuning could be stopped, by closing the tour or by newer pairs."""
        if message.answer is not None:
            self.context.notify(
                f"fine-tuned and saved before it could be stopped: {message.answer.folder}; {ELSEWHERE}"
            )


def _asks(screen: Screen[Any]) -> bool:
    return isinstance(screen, BaseScreen) and screen.asks


def _nothing(_answer: Any) -> None:
    """Ignores an answer: `TourController.answered` gets every answer."""


def _run_facts(seen: RunSnapshot | None) -> RunFacts | None:
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
