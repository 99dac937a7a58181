"""Questions to instruments, and the callbacks that take their answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from textual.widget import Widget

from tui_llm.facts.request import Question
from tui_llm.tui.kit.live import deliver, is_live
from tui_llm.tui.state.engine_client import EngineClient
from tui_llm.tui.state.messages import Answered

Taker = Callable[[Any], object]


class Pending(NamedTuple):
    """A question that has not been answered yet."""

    owner: Widget | None
    question: Question
    take: Taker
    problem: Callable[[str], object]


class Questions:
    """Asks an instrument on behalf of the pane or screen that shows the answer."""

    def __init__(self, client: EngineClient, warn: Callable[[str], object]) -> None:
        self._client, self._warn = client, warn
        self.pending: dict[object, Pending] = {}  # by `Question.key`

    def ask(
        self,
        owner: Widget | None,
        question: Question,
        take: Taker,
        problem: Callable[[str], object] | None = None,
    ) -> None:
        """Asks an instrument. `take` is called with the answer, or `problem` with a line that says why there is none
        (by default a notification). A newer question of the same key replaces this one; then neither is called. Nor is
        either called once `owner`, the widget that shows the answer, is gone because its screen has closed; None if the
        answer must always arrive."""
        self.pending[question.key] = Pending(owner, question, take, problem or self._warn)
        self._client.inquire(question)

    def forget(self, key: object) -> None:
        """Drops the question of that key, which is its type unless it is `queued`: its callbacks are not called any more."""
        self.pending.pop(key, None)
        self._client.forget(key)

    def awaits(self, question: Question) -> bool:
        """Whether the question is not answered yet, and neither dropped nor replaced."""
        pending = self.pending.get(question.key)
        return pending is not None and pending.question is question

    def answered(self, message: Answered) -> None:
        """Gives an answer from the engine thread to the callback that waits for it."""
        if not self.awaits(message.question):
            return
        owner, _, take, problem = self.pending.pop(message.question.key)
        hear = (
            functools.partial(problem, message.problem) if message.problem else functools.partial(take, message.answer)
        )
        if owner is None or is_live(owner):
            hear()
        elif not owner.is_mounted:  # the owner is still being composed
            deliver(owner, hear)
