"""What the full screens that show the model at one token of the text have: the token's number, and the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from rich.text import Text

from tui_llm.common.display import token_label, visible
from tui_llm.facts.model import Weights
from tui_llm.facts.place import Place
from tui_llm.facts.request import Question
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext

SHADES = " ░▒▓█"

Found = TypeVar("Found")


class TokenPage(Generic[Found]):
    """The selected token and the answer that `screen` shows: `question` makes what is asked, `taken` sees each answer
    before it is drawn. `number`: the token's; None is the text's last. failed: gets the line of a question that can't be
    answered; true if it has asked another one."""

    def __init__(
        self,
        screen: FullScreen,
        context: LabContext,
        question: Callable[[], Question[Found]],
        number: int | None = None,
        taken: Callable[[Found], None] = lambda _found: None,
        failed: Callable[[str], bool] = lambda _problem: False,
    ) -> None:
        self.screen, self.context, self.question = screen, context, question
        self.taken, self.failed = taken, failed
        self.request = context.lab.current_request()
        self.number = context.lab.position if number is None else number
        self.found: Found | None = None
        self._model = context.model
        self.problem = ""

    def ask(self) -> None:
        self.context.questions.ask(self.screen, self.question(), self._take, self._fail)

    def reopened(self, weights: Weights) -> None:
        """Asks again of the model that was opened; another one may have other tokens."""
        if weights.name != self._model:
            self.number, self._model = None, weights.name
            self.request = self.context.lab.current_request()
        self.ask()

    def forget(self, kind: type[Question[Found]]) -> None:
        """The screen closes: a question that is not answered yet is of no use."""
        self.context.questions.forget(kind)

    def _take(self, found: Found) -> None:
        self.found, self.problem = found, ""
        self.taken(found)
        self.screen.refill()

    def _fail(self, problem: str) -> None:
        if self.failed(problem):
            return
        self.problem = problem
        self.screen.refill()

    def instead(self, width: int) -> list[Text]:
        """The lines to show where there is no answer; empty if there is one."""
        if self.problem:
            return wrapped(Text(visible(self.problem), style=self.screen.style("bad")), width)
        return [] if self.found is not None else [Text("computing …", style=self.screen.style("muted"))]

    def place_words(self, weights: Weights, place: Place) -> str:
        """For the title: the token, and the model."""
        step = "" if weights.step is None else f" at step {fmt.count(weights.step)}"
        return (
            f"token {fmt.count(place.number + 1)} of {fmt.count(place.count)}: {token_label(place.token.text)} · "
            f"{weights.name}{step}"
        )

    def move(self, place: Place, by: int) -> None:
        """Selects another token of those that the model sees, and asks for it."""
        now = place.number if self.number is None else self.number
        last = place.count - 1
        self.number = max(place.first, min(now + by, last))
        if self.number != now:
            self.ask()
