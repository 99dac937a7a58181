"""The form for a new training run. Each wrong field shows its problem beside it; the rules are the worker's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from textual import events, work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.timer import Timer
from textual.widgets import Button, Input, Select, Static

from tui_llm.common.errors import UserError, in_one_line
from tui_llm.llm.data.formats import TextFormat
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens.closed_files import KINDS
from tui_llm.training.plan import budget
from tui_llm.training.plan.corpus_check import describe_corpora, several
from tui_llm.training.plan.fields import NAMES, field_problems, launch_problems
from tui_llm.training.run.promises import USUAL_CORPORA, usual_corpus
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import BUDGET, PRESETS, TrainingSettings, from_fields
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.live import deliver, is_live
from tui_llm.tui.kit.visits import FieldVisits
from tui_llm.tui.runs.estimate import Fields, RunEstimate, plan_run
from tui_llm.tui.runs.find_lr import FindRateScreen
from tui_llm.tui.runs.new_run_fields import (
    BESIDE,
    GROUPS,
    HINTS,
    LABELS,
    MODELS_OWN,
    CorpusField,
    arch_hint,
    buttons,
    corpus_note,
    corpus_row,
    create_and_start,
    default_texts,
    examine,
    free_name,
    name_problem,
    names_for,
    rate_finder,
    row,
    shape,
    show_rows,
    texts_of,
)  # fmt: skip
from tui_llm.tui.runs.run_form import RunForm

LOW = 12  # lines of the screen; with fewer, the cost takes one line and what to expect none
SETTLE = 0.15  # seconds after the last key before files are checked
CHECKING = "it is still being checked; try again"

_key = CommandFactory("new_run", "New run")
KEYS = (
    _key("start_run", "ctrl+s", "start", "Create the run and start its worker", "start"),
    _key("close_form", "escape", "cancel", "Cancel: no run is created; one that is being started already goes on", "close", importance=WAY_OUT),
    _key("estimate_run", "ctrl+e", "estimate", "Begin the run for some seconds: the time of all of it, and a band; again to stop", "estimate", priority=True),
    _key("find_rate", "ctrl+r", "find a rate", "Find a learning rate: a minute of short runs, their losses on a chart, a pick", "find_rate", priority=True),
)  # fmt: skip


class NewRunScreen(RunForm):
    """Dismissed with the new run, whose worker has been started, or with None."""

    BINDINGS = bindings(KEYS, modal=True)
    NARROW = 100
    DEFAULT_CSS = """
    NewRunScreen #form { width: 104; }
    NewRunScreen #corpus-line Field { width: 1fr; }
    NewRunScreen #corpus-row .note { width: 100%; padding-left: 18; }
    NewRunScreen #corpus-row { layout: vertical; }
    NewRunScreen #corpus-line { height: 1; }
    NewRunScreen #cost { height: auto; margin-top: 1; }
    NewRunScreen #estimate, NewRunScreen #promise { height: auto; color: $text-muted; }
    NewRunScreen.-narrow Button { margin-right: 0; }
    NewRunScreen.-low #promise { display: none; }
    NewRunScreen.-low #cost { max-height: 1; margin-top: 0; }
    NewRunScreen.-low #estimate { max-height: 1; }
    """

    def __init__(self, corpus: str = "", ended: Callable[[Run | None, str], object] | None = None) -> None:
        """`ended` is called if the form was closed while it started a run: with the run, or with why there is none."""
        super().__init__(ended)
        self._corpus = corpus
        self._suggested = ""  # the name that the form suggested last
        self._filled: dict[str, str] = {}  # each field's text according to the preset or the model to start from
        self._model: GPTConfig | None = None  # the shape of the model to start from
        self._field_problems: dict[str, str] = {"corpus": "?"}
        self._examined_problems: dict[str, str] = {}  # problems that only reading files has shown
        self._corpus_timer: Timer | None = None
        self._start_waits = False  # for the corpus to be checked
        self._examine_timer: Timer | None = None
        self._examinations = 0  # how many were wanted; what any but the newest has found is dropped
        self._visits = FieldVisits()
        # The fields; their problem, or what they are
        self._corpus_found: tuple[tuple[str, ...], str, str] = (), "", ""
        self.estimate = RunEstimate(
            self,
            lambda: not self._first_wrong(without=("name",)),
            lambda: (self.given, self.preset, self.text("device"), self.corpora),
            self.fit,
        )
        self.action_estimate = self.estimate.toggle

    def compose(self) -> ComposeResult:
        with Vertical(id="form"):
            with VerticalScroll(id="rows", can_focus=False):
                yield corpus_row(self._corpus)
                for at, (title, names) in enumerate(GROUPS.items()):
                    if at:
                        yield Static(Content(title), classes="group")
                    for name in names:
                        yield row(name)
            yield from (self.estimate.cost, self.estimate.promise, self.estimate.time)
            yield Static(id="trouble")
            yield buttons()

    def on_mount(self) -> None:
        self.query_one("#form").border_title = Content("New training run")
        self._changed()
        self._check_corpus_soon()
        self.query_one("#corpus", CorpusField).focus()

    def on_unmount(self) -> None:
        self.estimate.stop()

    def size_classes(self, room: Size) -> dict[str, bool]:
        return super().size_classes(room) | {"-low": room.height < LOW}

    def lines_around(self, room: Size) -> int:
        return (8 if room.height < LOW else 10) + max(1, self.estimate.time.size.height)

    # ── the fields ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def corpora(self) -> list[str]:
        """The corpora as typed; none while a quotation mark is not closed."""
        with suppress(UserError):
            return several(self.text("corpus"))
        return []

    def on(self, name: str) -> bool:
        return self.text(name) == "on"

    @property
    def preset(self) -> str:
        return self.text("preset")

    @property
    def given(self) -> dict[str, str]:
        """The fields that the user has changed."""
        own = MODELS_OWN if self.text("from_model").strip() else ()
        return {
            name: self.text(name) if name == "sample_prompt" else self.text(name).strip()
            for name in names_for(self.text("objective"))
            if name not in own and self.text(name) != self._filled.get(name)
        }

    def _refill(self) -> None:
        """Sets the fields that the user has not changed, from the preset and the model."""
        given = self.given if self._filled else {}
        before = self._filled
        self._filled = default_texts(self.preset, given, self._model, self.text("from_model").strip())
        for name, text in self._filled.items():
            field = self.query_one(f"#{name}")
            if name in given or not isinstance(field, Input | Select):
                continue
            if field.value != text and (not before or field.value == before[name] or name in MODELS_OWN):
                # Each change would check the whole form; that of the text field also has the corpus read again.
                with self.prevent(*(() if name == "field" else (Input.Changed,))):
                    field.value = text
                self.filled_in(field)
        show_rows(self, self.text("objective"))
        for name in MODELS_OWN:
            self.query_one(f"#{name}").disabled = self._model is not None

    def on_select_changed(self, event: Select.Changed) -> None:
        event.stop()
        if event.select.id == "preset":
            self._suggest_corpus()
        if event.select.id in ("format", "objective"):
            self._check_corpus_soon()
        self._changed()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.input.id in ("corpus", "field"):
            self._check_corpus_soon()
        self._changed()

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        if self._visits.leave(event.widget):
            self._show_problems()

    def _show_problems(self) -> None:
        """Shows what was held back while a field was empty."""
        self._check_all()
        self._corpus_checked(*self._corpus_found)

    def _changed(self) -> None:
        changed = self.changed()
        if not changed:
            return
        self.show_trouble("")  # it was about the fields as they were
        self._suggest_name()
        made_of_it = "corpus" in changed and self.text("tokenizer").strip() in KINDS
        if made_of_it or changed - {"corpus", "name"}:
            self._refill()
            self._examined_problems.clear()
            self._examine_soon()
        self._check_all()

    def _suggest_corpus(self) -> None:
        """Fills in the text that the preset is made for, until the user types one."""
        usual = usual_corpus(self.preset)
        if usual and self.text("corpus") in ("", *USUAL_CORPORA):
            self.query_one("#corpus", CorpusField).value = usual

    def _suggest_name(self) -> None:
        """Derives the suggested name from corpus and preset, until the user types one."""
        if self.text("name") in ("", self._suggested):
            self._suggested = free_name(self.text("corpus"), self.preset)
            self.query_one("#name", Input).value = self._suggested

    # ── validation ───────────────────────────────────────────────────────────────────────────────────────────────

    def _check_all(self) -> None:
        self.show_note("preset", shape(self.preset))
        self.estimate.show_promise(self.preset, self.text("objective"))
        self._set_problem("name", name_problem(self.text("name")))
        texts = texts_of(self.text)
        wrong = field_problems(texts, PRESETS[self.preset])
        settings = None if wrong else from_fields(texts, PRESETS[self.preset])
        wrong = {**self._examined_problems, **wrong}
        if settings is not None and settings.minutes and (clash := budget.conflict(self.given, self.preset)):
            wrong[clash[0]] = clash[1]
        wrong |= launch_problems(
            self.text("nproc").strip(), shard=self.on("shard"), events=self.on("tensorboard"), settings=settings
        )
        for name in (*NAMES, *BESIDE):
            own = self._model is not None and name in MODELS_OWN
            hint = arch_hint(self.text(name)) if name == "arch" else HINTS.get(name, "")
            self._set_problem(name, wrong.get(name, ""), "the model's own" if own else hint)

    def _set_problem(self, name: str, problem: str, otherwise: str = "") -> None:
        if problem:
            self._field_problems[name] = problem
        else:
            self._field_problems.pop(name, None)
        shown = problem if self._visits.shows(self.query_one(f"#{name}")) else ""
        self.show_note(name, shown or otherwise, wrong=bool(shown))

    def _check_corpus_soon(self) -> None:
        self._field_problems["corpus"] = CHECKING
        if self._start_waits:  # for another text
            self._start_waits = False
            self.show_trouble("")
        if self._corpus_timer is not None:
            self._corpus_timer.stop()
        self._corpus_timer = self.set_timer(SETTLE, lambda: self._check_corpus(*self._corpus_fields()))

    def _corpus_fields(self) -> tuple[str, str, str, str]:
        return self.text("corpus"), self.text("format"), self.text("field").strip(), self.text("objective")

    @work(thread=True, exclusive=True, group="corpus")
    def _check_corpus(self, text: str, format: str, field: str, objective: str) -> None:
        try:
            problem, fact = "", describe_corpora(text, TextFormat(format, field), objective)
        except UserError as error:
            problem, fact = str(error), ""
        deliver(self, self._corpus_checked, (text, format, field, objective), problem, fact)

    def _corpus_checked(self, fields: tuple[str, ...], problem: str, fact: str) -> None:
        if fields == self._corpus_fields():
            self._corpus_found = fields, problem, fact
            self._set_problem("corpus", problem, corpus_note(fact, fields[-1]))
            waited, self._start_waits = self._start_waits, False
            if waited:
                self.action_start()

    def _examine_soon(self) -> None:
        """Checks the model, the vocabulary and the cost, on a worker thread."""
        self.estimate.forget()
        if self._examine_timer is not None:
            self._examine_timer.stop()
        self._examinations = number = self._examinations + 1
        self._examine_timer = self.set_timer(
            SETTLE, lambda: self._examine(number, self.given, self.preset, self.corpora)
        )

    @work(thread=True, exclusive=True, group="examine")
    def _examine(self, number: int, given: dict[str, str], preset: str, corpora: list[str]) -> None:
        # `exclusive` does not end the thread of an older examination, which may finish after a newer one.
        deliver(self, self._examined, number, given, preset, *examine(given, preset, corpora))

    def _examined(
        self,
        number: int,
        given: dict[str, str],
        preset: str,
        model: GPTConfig | None,
        settled: tuple[TrainingSettings, GPTConfig] | None,
        unfit: dict[str, str],
    ) -> None:
        if (number, given, preset) != (self._examinations, self.given, self.preset):
            return
        if model != self._model:
            self._model = model
            self._refill()
        wrong = field_problems(texts_of(self.text), PRESETS[self.preset])
        self._examined_problems = {} if wrong else unfit
        self._check_all()
        self.estimate.show_cost(settled, picked_later=self.preset == BUDGET and self._model is None)

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        {"start": self.action_start, "measure": self.action_estimate, "find-rate": self.action_find_rate}.get(
            event.button.id or "", self.action_close
        )()

    def _first_wrong(self, without: tuple[str, ...] = ()) -> bool:
        """Focuses the first wrong field and shows its problem; returns False if there is none."""
        for name in (name for name in ("corpus", *LABELS) if name in self._field_problems and name not in without):
            self.trouble(f"{LABELS[name]}: {self._field_problems[name]}")
            self.query_one(f"#{name}").focus()
            return True
        return False

    def action_find_rate(self) -> None:
        """Tries learning rates for the run as it is in the form; the pick goes into its field."""
        self._visits.submitted = True
        self._show_problems()
        if self._starting or self._first_wrong(without=("name",)):
            return
        self.show_trouble("")
        self.estimate.forget()
        find = rate_finder(self.corpora, self.given, self.preset, self.text("device"))
        self.app.push_screen(FindRateScreen(find, self.text("learning_rate").strip()), self._rate_found)

    def _rate_found(self, rate: float | None) -> None:
        if rate is not None:
            field = self.query_one("#learning_rate", Input)
            field.value = f"{rate:g}"
            field.focus()

    def action_start(self) -> None:
        self._visits.submitted = True
        self._show_problems()
        checking = self._field_problems == {"corpus": CHECKING}
        if checking and not self._starting:
            self._start_waits = True
            self.show_trouble("the text is still being checked; then the run starts")
        if checking or self._starting or self._first_wrong():
            return
        self.show_trouble("")
        minutes = texts_of(self.text).get("minutes", "")  # none for some objectives
        self._starting = True
        self.estimate.say("measuring the machine, then starting …" if float(minutes or 0) else "")
        beside = {"nproc": int(self.text("nproc")), "shard": self.on("shard"), "tensorboard": self.on("tensorboard")}
        self._start(
            self.text("name"), (self.given, self.preset, self.text("device"), self.corpora), beside, self.app.call_later
        )

    def start_ended(self, run: Run | None, problem: str) -> None:
        if run is None and is_live(self):
            self.estimate.forget()  # the measurement that the start made, and what was said of it
        super().start_ended(run, problem)

    def action_close(self) -> None:
        """Closing cancels the measurement that the start made, and with it the start, which then says so."""
        self._close(goes_on=self._starting and self.estimate.measurement is None)

    @work(thread=True, group="start")
    def _start(
        self,
        name: str,
        fields: Fields,
        beside: dict[str, Any],
        call_later: Callable[..., object],  # the app's: a thread of a closed screen can't find it any more
    ) -> None:
        try:
            plan = self.estimate.plan_of(fields) or plan_run(fields, self.estimate.own)
            self.estimate.measurement = None  # it has ended: there is nothing to cancel any more
            given, preset, device, corpora = fields
            run = create_and_start(name, corpora, given, preset, device, beside, plan)
        except (UserError, OSError) as error:
            call_later(self.start_ended, None, in_one_line(error))
        else:
            call_later(self.start_ended, run, "")
