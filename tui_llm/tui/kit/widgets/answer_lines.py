"""Lines that show an instrument's answer, `…` until it arrives, or why there is none."""

from __future__ import annotations

from rich.text import Text

from tui_llm.common.display import visible
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines


class AnswerLines(Lines):
    problem = ""

    def show_problem(self, line: str) -> None:
        """Shows why there is no answer."""
        self.problem = line
        self.rebuild()

    def awaited(self, width: int) -> list[Text]:
        line = Text(visible(self.problem), self.style("bad")) if self.problem else Text("…", self.style("muted"))
        return wrapped(line, width)
