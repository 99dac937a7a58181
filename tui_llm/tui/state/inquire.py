"""Questions to instruments, asked by the lab on behalf of the pane or screen that shows the answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from textual import on
from textual.widget import Widget

from tui_llm.facts.request import Question
from tui_llm.tui.kit.live import deliver, is_live
from tui_llm.tui.state.base import LabBase
from tui_llm.tui.state.messages import Answered

Taker = Callable[[Any], object]


class Inquiring(LabBase):
    def inquire(
        self, owner: Widget, question: Question, take: Taker, problem: Callable[[str], object] | None = None
    ) -> None:
        """Asks an instrument. `take` is called with the answer, or `problem` with a line that says why there is none
        (by default a notification). A newer question of the same kind replaces this one; then neither is called. Nor is
        either called once `owner`, the widget that shows the answer, is gone because its screen has closed. For an
        answer that must always arrive, `owner` is the lab."""
        self._takers[type(question)] = (owner, question, take, problem or self.warn)
        self.client.inquire(question)

    def forget(self, kind: type[Question]) -> None:
        """Drops the question of that kind: its callbacks are not called any more."""
        self._takers.pop(kind, None)
        self.client.forget(kind)

    @on(Answered)
    def _answered(self, message: Answered) -> None:
        kind = type(message.question)
        if kind not in self._takers or self._takers[kind][1] is not message.question:
            return
        owner, _, take, problem = self._takers.pop(kind)
        hear = (
            functools.partial(problem, message.problem) if message.problem else functools.partial(take, message.answer)
        )
        if is_live(owner):
            hear()
        elif not owner.is_mounted:  # the owner is still being composed
            deliver(owner, hear)
