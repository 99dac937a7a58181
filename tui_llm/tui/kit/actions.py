"""Acting on a run from the screen: off its thread, with one line to say how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from textual import work
from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.tui.kit.live import deliver


class ActsOnRuns(Widget):
    """What the Training pane and the Runs screen have in common."""

    def look(self) -> object:
        """Looks at the run's directory again."""
        raise NotImplementedError

    def say(self, line: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        self.notify(visible(line), severity=severity, markup=False)

    @work(thread=True, group="run-action")
    def act(self, action: Callable[[], None], done: str = "") -> None:
        """Touches the run's files off the screen's thread, then takes a look."""
        try:
            action()
        except (UserError, OSError) as error:
            self.app.call_later(self.say, " ".join(str(error).split()), "error")
        else:
            if done:
                self.app.call_later(self.say, done)
        deliver(self, self.look)
