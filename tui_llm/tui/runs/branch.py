"""The form for a branch: a run that continues from a step of another one, with other settings or without a file."""

from __future__ import annotations

from collections.abc import Callable

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Input, Select, Static

from tui_llm.common.display import truncate, visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.training.plan import branch
from tui_llm.training.plan.corpus_check import several
from tui_llm.training.plan.fields import field_problems, text_of
from tui_llm.training.plan.first_start import start_or_delete
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRETRAINING
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.static_text import set_text
from tui_llm.tui.kit.widgets.field import Field
from tui_llm.tui.runs.new_run_fields import GROUPS, LABELS, name_problem, names_for, row
from tui_llm.tui.runs.run_form import RunForm

# A branch ends by its number of steps.
NAMES = tuple(name for name in names_for(PRETRAINING) if name not in (*branch.OF_THE_MODEL, "minutes"))
SHOWN_FILES = 4  # names of files beside the field that leaves some out

_key = CommandFactory("branch", "A branch")
KEYS = (
    _key("start_branch", "ctrl+s", "start", "Create the branch and start its worker", "start"),
    _key("close_branch", "escape", "cancel", "Cancel: no run is created; one that is being started already goes on", "close", importance=WAY_OUT),
)  # fmt: skip


class BranchScreen(RunForm):
    """Dismissed with the branch of `parent` after `step` steps, whose worker has been started, or with None."""

    BINDINGS = bindings(KEYS, modal=True)
    DEFAULT_CSS = """
    BranchScreen #form { width: 100; }
    BranchScreen #about { height: 1; color: $text-muted; }
    """

    def __init__(
        self, parent: Run, step: int, config: RunConfig, ended: Callable[[Run | None, str], object] | None = None
    ) -> None:
        """`config` is the parent's. `ended` is called if the form was closed while it started a run."""
        super().__init__(ended)
        self._parent_run, self._config = parent, config
        self._filled = {name: text_of(config.settings, name) for name in NAMES}
        self._files = "files of its corpus, by name"  # until they are known
        self._own = {"name": branch.free_name(parent.name, step), "step": str(step), "exclude": ""}
        self._wrong: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        with Vertical(id="form"):
            yield Static(id="about")
            with VerticalScroll(id="rows", can_focus=False):
                for name, label, note in (
                    ("exclude", "leave out", self._files),
                    ("step", "after step", ""),
                    ("name", "name", ""),
                ):
                    yield Horizontal(
                        Static(Content(label), classes="label"),
                        Field(self._own[name], id=name, compact=True),
                        Static(Content(note), id=f"{name}-note", classes="note"),
                        classes="row",
                    )
                for title, names in GROUPS.items():
                    ours = [name for name in names if name in NAMES]
                    if ours:
                        yield Static(Content(title), classes="group")
                    for name in ours:
                        yield row(name)
            yield Static(id="trouble")
            with Horizontal(id="buttons"):
                yield Button("Start (ctrl+s)", id="start", variant="primary", compact=True)
                yield Button("Cancel (Esc)", id="cancel", compact=True)

    @work(thread=True, group="files")
    def _list_files(self) -> None:
        try:
            names = branch.file_names(self._parent_run)
        except UserError as error:
            names = [str(error)]
        deliver(self, self._files_listed, names)

    def _files_listed(self, names: list[str]) -> None:
        shown = [truncate(visible(name), 24) for name in names[:SHOWN_FILES]]
        more = f" and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
        self._files = f"of {', '.join(shown)}{more}"
        self._check()

    def on_mount(self) -> None:
        self.query_one("#form").border_title = Content.assemble("Branch of ", visible(self._parent_run.name))
        for name, text in self._filled.items():
            field = self.query_one(f"#{name}")
            if isinstance(field, Input | Select):
                field.value = text
        self._check()
        self._list_files()
        self.query_one("#exclude", Field).focus()

    # ── the fields ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def given(self) -> dict[str, str]:
        """The settings that differ from the parent's."""
        texts = {name: self.text(name) if name == "sample_prompt" else self.text(name).strip() for name in NAMES}
        return {name: text for name, text in texts.items() if text != self._filled[name]}

    def on_select_changed(self, event: Select.Changed) -> None:
        event.stop()
        if self.changed():
            self._check()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.changed():
            self._check()

    def _check(self) -> None:
        """Shows beside each field what is wrong with it, and what the branch begins with."""
        self.show_trouble("")
        wrong = field_problems(self.given, self._config.settings)
        step = self.text("step").strip()
        if not (step.isascii() and step.isdigit()):
            wrong["step"] = "give a whole number of steps"
        if why := name_problem(self.text("name")):
            wrong["name"] = why
        if '"' in self.text("exclude"):
            try:
                several(self.text("exclude"))
            except UserError as error:
                wrong["exclude"] = str(error)
        notes = {"exclude": self._files, "step": "the branch's own steps follow it", "name": ""}
        for name in (*self._own, *NAMES):
            otherwise = notes[name] if name in notes else f"parent: {self._filled[name]}" if name in self.given else ""
            self.show_note(name, wrong.get(name, otherwise), wrong=name in wrong)
        self._wrong = wrong
        count = len(self.given)
        changed = f"{count} setting{'' if count == 1 else 's'} changed" if count else "settings as the parent’s"
        set_text(self.query_one("#about", Static), f"{changed}; continues its weights and optimizer state")

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        (self.action_start if event.button.id == "start" else self.action_close)()

    def action_start(self) -> None:
        if self._starting:
            return
        for name, why in self._wrong.items():
            self.show_trouble(f"{LABELS.get(name, name)}: {why}")
            self.query_one(f"#{name}").focus()
            return
        self._starting = True
        exclude = several(self.text("exclude"))
        self._start(int(self.text("step")), self.text("name"), self.given, exclude, self.app.call_later)

    @work(thread=True, group="start")
    def _start(
        self,
        step: int,
        name: str,
        given: dict[str, str],
        exclude: list[str],
        call_later: Callable[..., object],  # the app's: a thread of a closed screen can't find it any more
    ) -> None:
        try:
            run = branch.create(self._parent_run, step, name, given, exclude=exclude)
            start_or_delete(run)
        except (UserError, OSError) as error:
            call_later(self.start_ended, None, in_one_line(error))
        else:
            call_later(self.start_ended, run, "")
