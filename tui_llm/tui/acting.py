"""Acting on a run from the screen: off its thread, with one line to say how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from textual import work
from textual.widget import Widget

from tui_llm import paths
from tui_llm.display import visible
from tui_llm.errors import UserError
from tui_llm.training.run import Run


def model_of(run: Run) -> str:
    """How to ask for the run's newest checkpoint as a model: a shipped model may have the run's name."""
    return str(run.path) if (paths.shipped_models_dir() / run.name).exists() else run.name


class ActsOnRuns(Widget):
    """What the Training pane and the Runs screen have in common."""

    def look(self) -> object:
        """Looks at the run's directory again."""
        raise NotImplementedError

    def say(self, line: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        self.notify(visible(line), severity=severity, markup=False)

    @work(thread=True, group="run-action", exit_on_error=False)
    def act(self, action: Callable[[], None], done: str = "") -> None:
        """Touches the run's files off the screen's thread, then takes a look."""
        try:
            action()
        except (UserError, OSError) as error:
            self.app.call_from_thread(self.say, " ".join(str(error).split()), "error")
        else:
            if done:
                self.app.call_from_thread(self.say, done)
        self.app.call_from_thread(self.look)
