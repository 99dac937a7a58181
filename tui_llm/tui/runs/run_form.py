"""Base class of the forms that create a run: their looks, and what happens when the run was started or could not be."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

from textual import events
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Input, Select, Static

from tui_llm.common.display import visible
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.live import is_live
from tui_llm.tui.kit.static_text import set_text
from tui_llm.tui.tour.pane import left_of


class RunForm(BaseScreen, ModalScreen[Run | None]):
    """Dismissed with the new run, whose worker has been started, or with None.

    A subclass composes `#form` with `#rows` (of `.row`, each with `.label`, a field and `.note`), `#trouble` and `#buttons`; it
    starts the run on a thread, which calls `start_ended`.
    """

    NARROW: ClassVar[int] = 90  # columns; with fewer, the fields are narrow
    GOES_ON: ClassVar[str] = "the run is being started already: S in the Training pane stops it"

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
        self._checked: dict[str | None, str] = {}  # the text of each field when `changed` was called last

    def on_compose(self) -> None:
        self.update_classes(self.size_classes(self.size))  # while there are no widgets whose styles they change

    def on_mount(self) -> None:
        self.fit()  # before the first layout, which would have to be done again

    def on_resize(self, event: events.Resize) -> None:
        self.fit()

    def fit(self) -> None:
        """Adapts the form to the size of the screen. Only the fields scroll: they get what the other lines leave."""
        room = left_of(self)
        self.update_classes(self.size_classes(room))
        self.query_one("#rows").styles.max_height = max(1, room.height - self.lines_around(room))

    def size_classes(self, room: Size) -> dict[str, bool]:
        """The classes of the form in a screen of that size."""
        return {"-narrow": room.width < self.NARROW}

    def lines_around(self, room: Size) -> int:
        """How many lines of the form are above and below its fields."""
        return 8

    @cached_property
    def _fields(self) -> list[Input | Select[str]]:
        return [field for field in self.query("*") if isinstance(field, Input | Select)]

    def changed(self) -> set[str | None]:
        """Which fields have another text than at the last call. Each field of a new form reports a change, and so does each
        that the form itself fills in: one check of the form is enough for all."""
        before, self._checked = self._checked, {field.id: str(field.value) for field in self._fields}
        return {name for name, text in self._checked.items() if before.get(name) != text}

    def filled_in(self, field: Input | Select[str]) -> None:
        """The form itself has set the text of a field. `changed` then does not name an Input, whose change the form has not been
        told; a Select reports its own, and the form is checked again."""
        if isinstance(field, Input):
            self._checked[field.id] = field.value

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
        set_text(trouble, visible(line))
        trouble.set_class(bool(line), "-some")

    def show_note(self, name: str, line: str, wrong: bool = False) -> None:
        """Shows `line` beside a field: what it is, or what is wrong with it."""
        note = self.query_one(f"#{name}-note", Static)
        set_text(note, ("✗ " if wrong else "") + visible(line))
        note.set_class(wrong, "-wrong")

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
        self._close(goes_on=self._starting)

    def _close(self, *, goes_on: bool) -> None:
        """Closes the form. `goes_on`: the run is being started, which nothing here can stop."""
        if goes_on:
            self.notify(self.GOES_ON, severity="warning", markup=False)
        self.dismiss(None)
