"""The form for a new training run. Each wrong field says beside it why; the rules are those of the worker."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from textual import events, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Button, Input, Select, Static

from tui_llm import paths
from tui_llm.display import visible
from tui_llm.errors import UserError
from tui_llm.llm.device_names import DEVICES
from tui_llm.training import launch, pins
from tui_llm.training.presets import PRESETS, TrainingSettings, from_fields
from tui_llm.training.run import Run, check_name
from tui_llm.tui import format as fmt
from tui_llm.tui.commands import bindings
from tui_llm.tui.corpus_check import complete, corpus_size, kind

FIELDS = ("steps", "batch_size", "block_size", "learning_rate", "seed")
LABELS = {
    "corpus": "corpus",
    "name": "name",
    "preset": "preset",
    "steps": "steps",
    "batch_size": "batch size",
    "block_size": "block size",
    "learning_rate": "learning rate",
    "seed": "seed",
    "device": "device",
}
SETTLE = 0.15  # seconds without a key before the corpus is looked at


def free_name(corpus: str, preset: str) -> str:
    """A name that no run has yet, such as `tales-toy` or `tales-toy-2`."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(corpus.rstrip("/")).stem)[:40].strip("-").lower()
    base = f"{stem}-{preset}" if stem else preset
    name, at = base, 1
    while (paths.runs_dir() / name).exists():
        at += 1
        name = f"{base}-{at}"
    return name


def name_problem(name: str) -> str:
    """Why `name` can't name a new run; empty where it can."""
    try:
        check_name(name)
    except UserError as error:
        return str(error)
    return "there is a run of this name already" if (paths.runs_dir() / name).exists() else ""


def field_problem(field: str, text: str, base: TrainingSettings) -> str:
    """Why `text` can't be the setting `field`, everything else being as in `base`; empty where it can."""
    try:
        from_fields({field: text.strip()}, base)
    except UserError as error:
        return str(error)
    return ""


def shape(settings: TrainingSettings) -> str:
    return f"{settings.layers} layers, {settings.heads} heads, width {settings.width}, {settings.tokenizer} vocabulary"


def row(name: str, widget: Widget) -> Horizontal:
    """A label, what is put in, and what is said about that."""
    return Horizontal(
        Static(Content(LABELS[name]), classes="label"),
        widget,
        Static(id=f"{name}-says", classes="says"),
        classes="row",
    )


class PathSuggester(Suggester):
    """Completes a path from what lies in its folder."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(complete, value) if value else None


class Field(Input):
    """One line of text. What could not be seen in it can't be typed or pasted into it either."""

    def validate_value(self, value: str) -> str:
        return value if value.isprintable() else "".join(c for c in value if c.isprintable())


class NewRunScreen(ModalScreen[Run | None]):
    """Dismissed with the run, whose worker is started, or with None."""

    BINDINGS = bindings("new_run")
    DEFAULT_CSS = """
    NewRunScreen { align: center middle; }
    NewRunScreen #form { width: 92; max-width: 100%; height: auto; max-height: 100%; border: round $primary;
        background: $surface; padding: 0 1; }
    NewRunScreen #rows { height: auto; max-height: 100%; }
    NewRunScreen .row { height: auto; min-height: 1; }
    NewRunScreen .label { width: 15; }
    NewRunScreen Field { width: 30; }
    NewRunScreen #corpus-line Field { width: 1fr; }
    NewRunScreen Select { width: 30; }
    NewRunScreen.-narrow Field, NewRunScreen.-narrow Select { width: 14; }
    NewRunScreen .says { width: 1fr; height: auto; padding-left: 1; color: $text-muted; }
    NewRunScreen .says.-wrong { color: $text-error; }
    NewRunScreen #corpus-row .says { width: 100%; padding-left: 15; }
    NewRunScreen #corpus-row { layout: vertical; }
    NewRunScreen #corpus-line { height: 1; }
    NewRunScreen #buttons { height: 1; margin-top: 1; }
    NewRunScreen Button { margin-right: 2; }
    NewRunScreen #trouble { color: $text-error; height: auto; display: none; }
    NewRunScreen #trouble.-some { display: block; }
    """

    def __init__(self, corpus: str = "") -> None:
        super().__init__()
        self._corpus = corpus
        self._suggested = ""  # the name that the form chose itself
        self._wrong: dict[str, str] = {"corpus": "?"}
        self._settle: Timer | None = None
        self._starting = False

    def compose(self) -> ComposeResult:
        first = next(iter(PRESETS))
        with Vertical(id="form"):
            with VerticalScroll(id="rows", can_focus=False):
                with Vertical(id="corpus-row", classes="row"):
                    with Horizontal(id="corpus-line"):
                        yield Static(Content(LABELS["corpus"]), classes="label")
                        yield Field(
                            self._corpus,
                            placeholder="a text file, a folder, stories … (→ completes)",
                            id="corpus",
                            compact=True,
                            suggester=PathSuggester(),
                        )
                    yield Static(id="corpus-says", classes="says")
                yield row("preset", Select([(name, name) for name in PRESETS], value=first, allow_blank=False,
                                           id="preset", compact=True))  # fmt: skip
                for name in ("name", *FIELDS):
                    yield row(name, Field(id=name, compact=True))
                yield row("device", Select([(name, name) for name in DEVICES], value="auto", allow_blank=False,
                                           id="device", compact=True))  # fmt: skip
            yield Static(id="trouble")
            with Horizontal(id="buttons"):
                yield Button("Start (ctrl+s)", id="start", variant="primary", compact=True)
                yield Button("Cancel (Esc)", id="cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#form").border_title = Content("New training run")
        self._fill(next(iter(PRESETS)))
        self._suggest_name()
        self._check_all()
        self._check_corpus_soon()
        self.query_one("#corpus", Field).focus()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < 76, "-narrow")
        # Whatever scrolls, the buttons and what went wrong stay in sight.
        self.query_one("#rows").styles.max_height = max(1, event.size.height - 5)

    # ── the fields ───────────────────────────────────────────────────────────────────────────────────────────────

    def text(self, name: str) -> str:
        return self.query_one(f"#{name}", Field).value

    @property
    def preset(self) -> str:
        return str(self.query_one("#preset", Select).value)

    @property
    def base(self) -> TrainingSettings:
        return PRESETS[self.preset]

    def _fill(self, preset: str) -> None:
        for name in FIELDS:
            self.query_one(f"#{name}", Field).value = (
                f"{getattr(PRESETS[preset], name):g}"
                if (name == "learning_rate")
                else str(getattr(PRESETS[preset], name))
            )

    def on_select_changed(self, event: Select.Changed) -> None:
        event.stop()
        if event.select.id == "preset":
            self._fill(self.preset)
            self._suggest_name()
            self._check_all()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.input.id == "corpus":
            self._suggest_name()
            self._check_corpus_soon()
        self._check_all()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.focus_next()

    def _suggest_name(self) -> None:
        """Keeps the name in step with corpus and preset until the user types one."""
        if self.text("name") in ("", self._suggested):
            self._suggested = free_name(self.text("corpus"), self.preset)
            self.query_one("#name", Field).value = self._suggested

    # ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────

    def _check_all(self) -> None:
        self._says("preset", shape(self.base))
        self._judge("name", name_problem(self.text("name")))
        for name in FIELDS:
            self._judge(name, field_problem(name, self.text(name), self.base))

    def _judge(self, name: str, problem: str, otherwise: str = "") -> None:
        if problem:
            self._wrong[name] = problem
        else:
            self._wrong.pop(name, None)
        self._says(name, problem or otherwise, wrong=bool(problem))

    def _says(self, name: str, line: str, wrong: bool = False) -> None:
        says = self.query_one(f"#{name}-says", Static)
        says.update(Content(("✗ " if wrong else "") + visible(line)))
        says.set_class(wrong, "-wrong")

    def _check_corpus_soon(self) -> None:
        self._wrong["corpus"] = "it is still being looked at; try again"
        if self._settle is not None:
            self._settle.stop()
        self._settle = self.set_timer(SETTLE, lambda: self._check_corpus(self.text("corpus")))

    @work(thread=True, exclusive=True, group="corpus", exit_on_error=False)
    def _check_corpus(self, text: str) -> None:
        try:
            size = corpus_size(text)
            problem, fact = "", f"{fmt.count(size)} bytes of text" if size is not None else kind(text)
        except UserError as error:
            problem, fact = str(error), ""
        self.app.call_from_thread(self._corpus_checked, text, problem, fact)

    def _corpus_checked(self, text: str, problem: str, fact: str) -> None:
        if self.is_mounted and text == self.text("corpus"):
            self._judge("corpus", problem, fact)

    # ── what is done ─────────────────────────────────────────────────────────────────────────────────────────────

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "start":
            self.action_start()
        else:
            self.action_leave()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_start(self) -> None:
        if self._starting:
            return
        for name in LABELS:
            if name in self._wrong:
                self._trouble(f"{LABELS[name]}: {self._wrong[name]}")
                self.query_one(f"#{name}").focus()
                return
        try:
            settings = from_fields({name: self.text(name).strip() for name in FIELDS}, self.base)
        except UserError as error:
            self._trouble(str(error))
            return
        self._starting = True
        device = str(self.query_one("#device", Select).value)
        self._start(self.text("name"), self.text("corpus").strip(), settings, self.preset, device)

    def _trouble(self, line: str) -> None:
        self._starting = False
        trouble = self.query_one("#trouble", Static)
        trouble.update(Content(visible(line)))
        trouble.set_class(bool(line), "-some")

    @work(thread=True, group="start", exit_on_error=False)
    def _start(self, name: str, corpus: str, settings: TrainingSettings, preset: str, device: str) -> None:
        run = None
        try:
            pinned = pins.of_user()
            run = launch.create(name, [corpus], settings, preset=preset, device=device, pinned=pinned)
            launch.start(run)
        except (UserError, OSError) as error:
            if run is not None and not run.checkpoints() and not run.alive():
                run.delete()  # so that the same name can be tried again
            self.app.call_from_thread(self._trouble, " ".join(str(error).split()))
        else:
            self.app.call_from_thread(self.dismiss, run)
