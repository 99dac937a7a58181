"""Saving the copy that a screen trains as a model folder, and opening that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.screen import Screen

from tui_llm.facts.request import Question
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.live import is_live
from tui_llm.tui.kit.progress import Progress
from tui_llm.tui.state.context import LabContext

WRITING = "writing the folder"
ELSEWHERE = "in the five panes, m opens it"


class CopySaver:
    """The folder is written even if the screen closes meanwhile. `opens`: what the notification says while the screen is
    open."""

    def __init__(
        self, screen: Screen[None], context: LabContext, progress: Progress, opens: str = "o opens it in all panes"
    ) -> None:
        self._screen, self._context, self._progress, self._opens = screen, context, progress, opens
        self.folder = ""  # that was saved last

    def save(
        self, question: Callable[[str], Question[Any]], content: Callable[[Any], str], *, unnamed: str = ""
    ) -> None:
        """Asks for a name, then asks `question(name)`. `content` says what its answer, which has the folder, contains;
        `unnamed`, what an empty name means (by default nothing is saved)."""

        def answered(name: str | None) -> None:
            if name is not None and (name.strip() or unnamed):
                if not self._progress.doing:
                    self._progress.start(WRITING)
                self._context.questions.ask(None, question(name.strip()), saved, self._failed)

        def saved(made: Any) -> None:
            opens = ELSEWHERE
            if is_live(self._screen):
                self.folder, opens = made.folder, self._opens
                if self._progress.doing == WRITING:
                    self._progress.end()
            self._context.notify(f"saved {content(made)} as {made.folder}; {opens}")

        hint = " · ".join(filter(None, ("Enter saves", unnamed, "nothing is overwritten", "Esc cancels")))
        self._screen.app.push_screen(AskScreen("Save the copy as a new model: its name", hint), answered)

    def _failed(self, problem: str) -> None:
        if is_live(self._screen) and self._progress.doing == WRITING:
            self._progress.end(problem)
        else:
            self._context.warn(problem)

    def open(self) -> None:
        """Opens the folder in all panes and closes the screen."""
        if not self.folder:
            self._context.notify("save the copy first (k)")
            return
        self._context.open_model(self.folder)
        self._screen.dismiss(None)
