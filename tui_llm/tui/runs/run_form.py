"""Base class of the forms that create a run: their looks, and what happens when the run was started or could not be."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Select, Static

from tui_llm.common.display import visible
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.live import is_live


class RunForm(BaseScreen, ModalScreen[Run | None]):
    """Dismissed with the new run, whose worker has been started, or with None.

    A subclass composes `#form` with `#rows` (of `.row`, each with `.label`, a field and `.note`), `#trouble` and `#buttons`; it
    starts the run on a thread, which calls `start_ended`.
    """

    DEFAULT_CSS = """
    RunForm { align: center middle; background: transparent; }
    RunForm #form { max-width: 100%; height: auto; max-height: 100%; border: round $primary; background: $surface;
        padding: 0 1; }
    RunForm #rows { height: auto; max-height: 100%; }
    RunForm .group { color: $text-accent; text-style: bold; }
    RunForm .row { height: auto; min-height: 1; }
    RunForm .label { width: 18; padding-right: 1; }
    RunForm Field, RunForm Select { width: 34; }
    RunForm.-narrow Field, RunForm.-narrow Select { width: 20; }
    RunForm .note { width: 1fr; height: auto; padding-left: 1; color: $text-muted; }
    RunForm .note.-wrong { color: $text-error; }
    RunForm #buttons { height: 1; margin-top: 1; }
    RunForm Button { margin-right: 2; }
    RunForm #trouble { color: $text-error; height: auto; display: none; }
    RunForm #trouble.-some { display: block; }
    """

    def __init__(self, ended: Callable[[Run | None, str], object] | None = None) -> None:
        """`ended` is called if the form was closed while it started a run: with the run, or with why there is none."""
        super().__init__()
        self._ended = ended
        self._starting = False

    def text(self, name: str) -> str:
        """The text of a field."""
        field = self.query_one(f"#{name}")
        return str(field.value) if isinstance(field, Input | Select) else ""

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.focus_next()

    def show_trouble(self, line: str) -> None:
        """Shows why the run was not started; an empty line removes it."""
        trouble = self.query_one("#trouble", Static)
        trouble.update(Content(visible(line)))
        trouble.set_class(bool(line), "-some")

    def trouble(self, line: str) -> None:
        """Shows `line`; the run can be started again."""
        self._starting = False
        self.show_trouble(line)

    def start_ended(self, run: Run | None, problem: str) -> None:
        """Closes the form with the run that was started, or shows why there is none."""
        if not is_live(self):
            if self._ended is not None:
                self._ended(run, problem)
        elif run is None:
            self.trouble(problem)
        else:
            self.dismiss(run)

    def action_close(self) -> None:
        self.dismiss(None)
