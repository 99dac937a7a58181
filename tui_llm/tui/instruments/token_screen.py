"""The base of the full screens that show the model at one token of the text: its number, and the question."""

from __future__ import annotations

from typing import Any, ClassVar

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


class TokenScreen(FullScreen):
    """A subclass makes the `question` and shows its answer, `found`. `number`: the selected token's; None is the
    text's last."""

    found: Any = None
    ASKS: ClassVar[tuple[type[Question[Any]], ...]] = ()  # forgotten when the screen closes

    def __init__(self, context: LabContext, number: int | None = None) -> None:
        super().__init__()
        self.context = context
        self.request = context.lab.current_request()
        self.number = context.lab.position if number is None else number
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.ask()

    def on_unmount(self) -> None:
        for kind in self.ASKS:
            self.context.questions.forget(kind)

    def question(self) -> Question[Any]:
        raise NotImplementedError

    def ask(self) -> None:
        self.context.questions.ask(self, self.question(), self.take, self._fail)

    def take(self, found: Any) -> None:
        self.found, self.problem = found, ""
        self.refill()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self.refill()

    def instead(self, width: int) -> list[Text]:
        """The lines to show where there is no answer; empty if there is one."""
        if self.problem:
            return wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        return [] if self.found is not None else [Text("computing …", style=self.style("muted"))]

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
