"""The form for a ladder: text, preset, the budget of each rung, the rungs."""

from __future__ import annotations

from collections.abc import Callable

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widgets import Button, Input, Select, Static

from tui_llm.common import paths
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.llm.data import corpora
from tui_llm.llm.model.device_names import DEVICES
from tui_llm.training.plan import climb, ladder_rungs, ladder_text
from tui_llm.training.plan import ladder as ladders
from tui_llm.training.plan.corpus_check import describe_corpora, several
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRESETS
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.widgets.field import Field
from tui_llm.tui.runs.run_form import RunForm

FIELDS = {
    "corpus": ("corpus", "a text file, a folder, stories … (several: commas)"),
    "name": ("name", "its runs are NAME-0-gpt2, NAME-1-muon …"),
    "preset": ("preset", "the settings of all rungs"),
    "unit": ("budget in", "minutes: by a few measured steps of each rung"),
    "amount": ("budget", "of each rung"),
    "rungs": ("rungs", ""),
    "set": ("settings", "others of all rungs, as width=64, seed=2"),
    "device": ("device", ""),
}
CHOICES = {"preset": tuple(PRESETS), "unit": tuple(ladders.UNITS), "device": DEVICES}
_START = {"name": "ladder", "amount": "300", "rungs": ", ".join(ladder_rungs.DEFAULT)}

_key = CommandFactory("new_ladder", "New ladder")
KEYS = (
    _key("start_ladder", "ctrl+s", "start", "Start the ladder: its rungs are trained one after another, in the background", "start"),
    _key("close_new_ladder", "escape", "cancel", "Cancel: no run is created; one that is being started already goes on", "close", importance=WAY_OUT),
)  # fmt: skip


def ladder_of(texts: dict[str, str]) -> Ladder:
    """The ladder that the fields describe. Raises `UserError`."""
    try:
        amount = float(texts["amount"].replace(",", ""))
    except ValueError:
        raise UserError(f"the budget is {texts['amount'][:40]!r}; give a number, such as 300") from None
    given = ladder_text.parse_settings(texts["set"])
    describe_corpora(texts["corpus"])  # raises for one that can't be trained on
    return Ladder(
        texts["name"].strip(), tuple(map(corpora.place, several(texts["corpus"]))), texts["preset"], texts["unit"], amount,
        ladder_text.parse_rungs(texts["rungs"]), ladder_text.shared_settings(given), texts["device"],
    )  # fmt: skip


def free_name() -> str:
    """A name that no ladder has yet, and no run that a ladder of that name would begin with."""
    taken, number, name = set(ladders.names()), 1, _START["name"]
    while name in taken or any(paths.runs_dir().glob(f"{name}-0-*")):
        number += 1
        name = f"{_START['name']}-{number}"
    return name


class NewLadderScreen(RunForm):
    """Dismissed with the run of the first rung, after the ladder was started in the background, or with None."""

    BINDINGS = bindings(KEYS, modal=True)
    GOES_ON = "the ladder is being started already: S on its screen stops it"
    DEFAULT_CSS = """
    NewLadderScreen #form { width: 100; }
    """

    def __init__(self, ended: Callable[[Run | None, str], object] | None = None) -> None:
        """`ended` is called if the form was closed while it started a ladder."""
        super().__init__(ended)

    def compose(self) -> ComposeResult:
        with Vertical(id="form"):
            with VerticalScroll(id="rows", can_focus=False):
                for name, (label, hint) in FIELDS.items():
                    with Horizontal(classes="row"):
                        yield Static(Content(label), classes="label")
                        if name in CHOICES:
                            yield Select(
                                [(choice, choice) for choice in CHOICES[name]],
                                value="small" if name == "preset" else CHOICES[name][0],
                                allow_blank=False, id=name, compact=True,
                            )  # fmt: skip
                        else:
                            yield Field(_START.get(name, ""), id=name, compact=True)
                        yield Static(Content(hint), classes="note")
                for rung in ladder_rungs.RUNGS:
                    yield Static(Content.assemble((rung.name, "bold"), f": {visible(rung.sentence)}"), classes="rung")
            yield Static(id="trouble")
            with Horizontal(id="buttons"):
                yield Button("Start (ctrl+s)", id="start", variant="primary", compact=True)
                yield Button("Cancel (Esc)", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#form").border_title = Content("New ladder")
        self.query_one("#name", Input).value = free_name()
        self.query_one("#corpus", Field).focus()

    def lines_around(self, room: Size) -> int:
        return 9

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.show_trouble("")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "start":
            self.action_start()
        else:
            self.action_close()

    def action_start(self) -> None:
        if self._starting:
            return
        self._starting = True
        self.show_trouble("")
        self._start({name: self.text(name) for name in FIELDS}, self.app.call_later)

    @work(thread=True, group="start")
    def _start(self, texts: dict[str, str], call_later: Callable[..., object]) -> None:
        """`call_later`: the app's, since a thread of a closed screen can't find it any more."""
        try:
            ladder = ladder_of(texts)
            if ladder.name in ladders.names():
                raise UserError(f"there is a ladder {ladder.name} already; give another name")
            climb.detach(ladder)
        except (UserError, OSError) as error:
            call_later(self.start_ended, None, in_one_line(error))
        else:
            call_later(self.start_ended, ladder.run(0), "")
