"""The top line: the model, or what the engine is doing, or a problem."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.timer import Timer

from tui_llm.tui.kit.widgets.bars import TopBar
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.messages import EngineProgress

CANCELLABLE_AFTER = 2.0  # seconds


class TopLineController:
    """`words` gives what is shown after the model, with what separates each from the words before: foreign text."""

    def __init__(self, context: LabContext, bar: TopBar, words: Callable[[], list[str]]) -> None:
        self.context, self.bar, self.words = context, bar, words
        self.problem = ""
        self._busy: tuple[str, float] | None = None  # what the engine is doing, and since when
        self._timer: Timer | None = None

    @property
    def busy(self) -> bool:
        return self._busy is not None

    def progress(self, message: EngineProgress) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._busy = (message.text, time.monotonic()) if message.text else None
        if self._busy is not None:
            self.problem = ""
            self._timer = self.context.set_interval(0.5, self.show)
        self.show()

    def show(self) -> None:
        weights = self.context.weights
        if self.problem:
            self.bar.show_problem(self.problem)
        elif self._busy is not None:
            text, since = self._busy
            seconds = time.monotonic() - since
            can_cancel = weights is not None and seconds >= CANCELLABLE_AFTER
            hint = "Esc cancels" if can_cancel else "ctrl+q quits" if seconds >= CANCELLABLE_AFTER else ""
            self.bar.show_busy(text, seconds, hint)
        elif weights is not None:
            self.bar.show_model(weights, self.context.reading, self.words())
