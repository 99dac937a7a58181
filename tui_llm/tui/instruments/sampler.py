"""The form with the sampler's settings: five typed numbers, each of which can be switched on and off, and how cuts combine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input, Static

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.facts.sampler import APP_TEMPERATURE, APP_TOP_P, GENERATE_TOP_K, SamplerSettings
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.static_text import set_text
from tui_llm.tui.kit.visits import FieldVisits
from tui_llm.tui.kit.widgets.field import Field
from tui_llm.tui.tour.pane import left_of


@dataclass(frozen=True, slots=True)
class SamplerField:
    name: str  # the field of `SamplerSettings`
    label: str
    off: float  # the value that has no effect
    usual: float  # the initial value
    help: str


SETTINGS = (
    SamplerField(
        "repetition_penalty", "repetition penalty", 1.0, 1.2, "tokens in the text: logit ÷ it, or × it if negative"
    ),
    SamplerField("temperature", "temperature", 1.0, 0.8, "divides the logits; 0 is greedy"),
    SamplerField("top_k", "top-k", 0, 40, "keep this many of the likeliest tokens"),
    SamplerField("top_p", "top-p", 1.0, 0.9, "keep the fewest tokens that add up to it"),
    SamplerField("min_p", "min-p", 0.0, 0.05, "keep tokens with this share of the largest p"),
)


SEQUENCE = {
    True: "as generate: top-p is of what top-k left",
    False: "off: generate's top-p is of what top-k left",
}
ORDER = (
    f"applied in this order; the rest is renormalized. The app starts with temperature {APP_TEMPERATURE:g} and top-p {APP_TOP_P:g}, "
    "the commands (tui-llm logits …) with 1 and 1"
)
GENERATE = f"transformers' generate has top-k {GENERATE_TOP_K} by default: ctrl+g takes its settings"


def parsed(setting: SamplerField, text: str) -> float:
    """The value that `text` gives the setting. Raises `UserError` if it is not a valid one."""
    kind = int if setting.name == "top_k" else float
    try:
        value = kind(text.strip())
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"{text.strip()!r} is not {what}, such as {setting.usual:g}") from None
    one: dict[str, Any] = {setting.name: value}
    SamplerSettings(**one)
    return value


class NumberField(Field):
    """An input for one number."""


_key = CommandFactory("sampler", "Sampler form")
KEYS = (
    _key("use_sampler", "ctrl+s", "use", "Use these settings", "use"),
    _key("generate_sampler", "ctrl+g", "as generate", "Take the settings of transformers' generate", "generate"),
    _key("close_sampler", "escape", "cancel", "Cancel: keep the current settings", "close", importance=WAY_OUT),
)  # fmt: skip


class SamplerScreen(BaseScreen, ModalScreen[SamplerSettings | None]):
    """Dismissed with the settings, or with None. `switched_off` keeps the values of switched-off settings, by name, for
    the next time."""

    BINDINGS = bindings(KEYS, modal=True)
    DEFAULT_CSS = """
    SamplerScreen { align: center middle; }
    SamplerScreen #form { width: 84; max-width: 100%; height: auto; max-height: 100%; border: round $primary;
        background: $surface; padding: 0 1; }
    SamplerScreen #rows { height: auto; max-height: 100%; }
    SamplerScreen .row { height: auto; min-height: 1; }
    SamplerScreen Checkbox { width: 25; }
    SamplerScreen NumberField { width: 12; }
    SamplerScreen .note { width: 1fr; height: auto; padding-left: 1; color: $text-muted; }
    SamplerScreen .note.-wrong { color: $text-error; }
    SamplerScreen #order, SamplerScreen #generate { color: $text-muted; height: auto; }
    SamplerScreen #buttons { height: 1; margin-top: 1; }
    SamplerScreen Button { margin-right: 2; }
    """

    def __init__(self, settings: SamplerSettings, switched_off: dict[str, float]) -> None:
        super().__init__()
        self._settings, self._switched_off = settings, switched_off
        self._visits = FieldVisits()

    def compose(self) -> ComposeResult:
        with Vertical(id="form"):
            with VerticalScroll(id="rows", can_focus=False):
                yield Static(Content(ORDER), id="order")
                for setting in SETTINGS:
                    now = getattr(self._settings, setting.name)
                    on = now != setting.off
                    value = now if on else self._switched_off.get(setting.name, setting.usual)
                    with Horizontal(classes="row"):
                        yield Checkbox(setting.label, on, id=f"{setting.name}-on", compact=True)
                        yield NumberField(f"{value:g}", id=setting.name, compact=True)
                        yield Static(id=f"{setting.name}-note", classes="note")
                with Horizontal(classes="row"):
                    yield Checkbox(
                        "cuts in sequence", self._settings.sequential_cuts, id="sequential_cuts", compact=True
                    )
                    yield Static(id="sequential_cuts-note", classes="note")
                yield Static(Content(GENERATE), id="generate")
            with Horizontal(id="buttons"):
                yield Button("Use (ctrl+s)", id="use", variant="primary", compact=True)
                yield Button("Cancel (Esc)", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#form").border_title = Content("Sampler")
        self.query_one("#form").border_subtitle = Content("Tab: next · Space: on or off")
        self._check()
        self.query_one("#temperature", NumberField).focus()

    def on_resize(self, event: events.Resize) -> None:
        self.query_one("#rows").styles.max_height = max(1, left_of(self).height - 5)

    def _check(self) -> str:
        """Shows beside each setting what is wrong with it; returns the name of the first invalid setting, or an empty
        string."""
        first = ""
        for box in self.query(Checkbox):
            box.BUTTON_INNER = "X" if box.value else " "  # otherwise only colour would show the state
            box.refresh()
        set_text(self.query_one("#sequential_cuts-note", Static), SEQUENCE[self._sequence.value])
        for setting in SETTINGS:
            problem = ""
            if self._on(setting):
                try:
                    parsed(setting, self._text(setting))
                except UserError as error:
                    problem = str(error)
                    first = first or setting.name
            if not self._visits.shows(self.query_one(f"#{setting.name}")):
                problem = ""
            line = problem or (setting.help if self._on(setting) else "off")
            note = self.query_one(f"#{setting.name}-note", Static)
            set_text(note, ("✗ " if problem else "") + visible(line))
            note.set_class(bool(problem), "-wrong")
        return first

    @property
    def _sequence(self) -> Checkbox:
        return self.query_one("#sequential_cuts", Checkbox)

    def _on(self, setting: SamplerField) -> bool:
        return self.query_one(f"#{setting.name}-on", Checkbox).value

    def _text(self, setting: SamplerField) -> str:
        return self.query_one(f"#{setting.name}", NumberField).value

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.input.has_focus and event.input.id:  # typing a value switches the setting on
            self.query_one(f"#{event.input.id}-on", Checkbox).value = True
        self._check()

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        if self._visits.leave(event.widget):
            self._check()

    def on_checkbox_changed(self, event: Checkbox.Changed) -> None:
        event.stop()
        self._check()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_use()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_use() if event.button.id == "use" else self.action_close()

    def action_use(self) -> None:
        self._visits.submitted = True
        if wrong := self._check():
            self.query_one(f"#{wrong}", NumberField).focus()
            return
        chosen: dict[str, Any] = {"sequential_cuts": self._sequence.value}
        for setting in SETTINGS:
            if self._on(setting):
                chosen[setting.name] = parsed(setting, self._text(setting))
            else:
                try:
                    self._switched_off[setting.name] = parsed(setting, self._text(setting))
                except UserError:
                    self._switched_off.pop(setting.name, None)
        self.dismiss(SamplerSettings(**chosen))

    def action_generate(self) -> None:
        """Fills in what transformers' `generate(do_sample=True)` uses; the temperature is kept."""
        theirs = SamplerSettings.of_generate()
        for setting in SETTINGS:
            if setting.name == "temperature":
                continue
            value = getattr(theirs, setting.name)
            if value != setting.off:
                self.query_one(f"#{setting.name}", NumberField).value = f"{value:g}"
            self.query_one(f"#{setting.name}-on", Checkbox).value = value != setting.off
        self._sequence.value = theirs.sequential_cuts
        self._check()

    def action_close(self) -> None:
        self.dismiss(None)
