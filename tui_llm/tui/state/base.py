"""The base class of the lab screen's mixins: state, reading, engine thread, prompt and panes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from textual.screen import Screen
from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.facts.engine import Engine
from tui_llm.facts.model import Weights
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Target
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.text import NO_TEXT
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.state.engine_client import EngineClient
from tui_llm.tui.state.lab import Lab


class LabBase(BaseScreen, Screen[None]):
    def __init__(self, open_engine: Callable[[], Engine], prompt: str) -> None:
        super().__init__()
        self.lab = Lab(prompt=prompt)
        self.weights: Weights | None = None
        self.reading: Reading | None = None
        self.client = EngineClient(open_engine, self.post_message)
        self.current = "logits"  # the pane that has, or last had, the focus
        self._takers: dict[
            type[Question], tuple[Widget, Question, Callable[[Any], object], Callable[[str], object]]
        ] = {}
        self._job: int | None = None  # number of the generation whose tokens are accepted

    @abstractmethod
    def ask(self) -> None:
        """Requests a reading of the current state."""

    @abstractmethod
    def tell_dropped(self) -> None:
        """Notifies the user if logits that were changed by hand have been dropped."""

    @abstractmethod
    def inquire(
        self,
        owner: Widget,
        question: Question,
        take: Callable[[Any], object],
        problem: Callable[[str], object] | None = None,
    ) -> None:
        """Asks an instrument (see `Inquiring.inquire`)."""

    @abstractmethod
    def show(self, reading: Reading) -> None:
        """Shows a reading in all panes."""

    @abstractmethod
    def show_top(self) -> None:
        """Updates the top line."""

    @abstractmethod
    def stop_stream(self) -> None:
        """Stops the running generation."""

    @property
    def prompt(self) -> PromptEditor:
        return self.query_one("#prompt", PromptEditor)

    def pane(self, name: str) -> Widget:
        return self.query_one(f"#panes > #{name}")

    def target_text(self, target: Target | None) -> tuple[str | None, bool]:
        """A target of the open reading as text, and whether there is a target that can't be written as text."""
        if target is None or (target.id is None and not target.own):
            return (target.text if target else None), False
        rows = [*(self.reading.loss.tokens if self.reading and self.reading.loss else ())]
        data = next((row.token.bytes for row in rows if target.own or row.token.id == target.id), b"")
        try:
            return data.decode() or None, not data
        except UnicodeDecodeError:
            return None, True

    def has_text(self) -> bool:
        """Whether there is any token for a screen to show; if not, notifies the user what to do."""
        if self.lab.empty:
            self.say(NO_TEXT)
        return not self.lab.empty

    # Foreign text reaches notifications only through these two.

    def say(self, line: str) -> None:
        self.notify(visible(line), markup=False, timeout=3)

    def warn(self, line: str) -> None:
        self.notify(visible(line), markup=False, severity="error", timeout=8)
