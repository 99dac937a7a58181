"""Actions on a run, executed on a worker thread; each reports its result in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from textual import work
from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.tui.kit.live import deliver


class ActsOnRuns(Widget):
    """Base class of the Training pane and the Runs screen."""

    def look(self) -> object:
        """Reads the run's directory again."""
        raise NotImplementedError

    def say(self, line: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        self.notify(visible(line), severity=severity, markup=False)

    @work(thread=True, group="run-action")
    def act(self, action: Callable[[], None], done: str = "") -> None:
        """Runs `action`, which touches the run's files, on a worker thread, then calls `look`."""
        try:
            action()
        except (UserError, OSError) as error:
            self.app.call_later(self.say, " ".join(str(error).split()), "error")
        else:
            if done:
                self.app.call_later(self.say, done)
        deliver(self, self.look)
