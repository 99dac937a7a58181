"""The lab asks instruments for whoever shows what they say: a pane, or a screen over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual import on

from tui_llm.reading import Question
from tui_llm.tui.messages import Answered
from tui_llm.tui.screens.lab_base import LabBase

Taker = Callable[[Any], object]


class Inquiring(LabBase):
    def inquire(self, question: Question, take: Taker, problem: Callable[[str], object] | None = None) -> None:
        """Asks; `take` gets the answer, or `problem` a line that says why there is none (a notification otherwise).
        A newer question of the same kind replaces this one, and it is never heard of again."""
        self._takers[type(question)] = (question, take, problem or self.warn)
        self.asker.inquire(question)

    def forget(self, kind: type[Question]) -> None:
        """The answer to the question of that kind is not wanted any more."""
        self._takers.pop(kind, None)
        self.asker.forget(kind)

    @on(Answered)
    def _answered(self, message: Answered) -> None:
        kind = type(message.question)
        question, take, problem = self._takers.get(kind, (None, None, None))
        if question is not message.question or take is None or problem is None:
            return
        del self._takers[kind]
        if message.problem:
            problem(message.problem)
        else:
            take(message.answer)
