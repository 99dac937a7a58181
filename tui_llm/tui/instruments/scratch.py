"""The scratch table: the user's own tokens and logits, with the same stages and sampler as the model's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.scratch.question import EXAMPLE, Scratch, ScratchQuestion, split
from tui_llm.tui.instruments.sampler_keys import cut_keys, temperature_keys
from tui_llm.tui.instruments.temperatures import TemperaturesScreen
from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory, bindings, in_footer
from tui_llm.tui.kit.over import OverLab, Row
from tui_llm.tui.kit.spaces import QUOTED
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.kit.widgets.vocab_columns import COLUMNS, cells
from tui_llm.tui.kit.widgets.vocab_table import VocabTable
from tui_llm.tui.state.lab import MIN_PS, TEMPERATURES, TOP_PS, Lab, further, step

Inquire = Callable[..., None]


class ScratchTable(VocabTable):
    def __init__(self) -> None:
        super().__init__(id="scratch-table", classes="pane")
        self.problem = ""

    def rebuild(self) -> None:
        super().rebuild()
        if self.border_title != (title := f"Softmax of your own logits{self.stage_words()}"):
            self.border_title = title

    def head(self, width: int) -> list[Text]:
        if self.problem:
            return wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        distribution = self.distribution
        if distribution is None:
            return [Text("…", style=self.style("muted"))]
        header = self.header(width)
        lines = self.facts(width) if self.size.height > 6 else []
        if distribution.sampler.repetition_penalty != 1 and self.size.height > 8:
            note = "there is no text before these tokens, so the repetition penalty has no effect"
            lines += wrapped(Text(note, style=self.style("accent")), width)[:1]
        return [*lines, header]

    def take(self, found: Scratch) -> None:
        self.problem = ""
        self.show_distribution(found.distribution)

    def show_problem(self, line: str) -> None:
        self.problem = line
        self.show_distribution(None)


_key = CommandFactory("scratch", "Scratch table")
KEYS = (
    _key("type_scratch", "i,slash", "type", "Type tokens and logits", "type"),
    _key("scratch_stages", "C", "stages", "Show the stages from logit to probability, page by page", "stages"),
    *temperature_keys(_key, "scratch_"),
    *cut_keys(_key, "scratch_"),
    _key("scratch_sampler", "K", "sampler", "Type all sampler settings", "sampler_form"),
    _key("scratch_temperatures", "T", "temperatures", "Show temperatures side by side", "temperatures"),
    _key("copy_scratch", "y", "copy", "Copy the table (tab-separated)", "copy"),
    _key("close_scratch", "escape,q,X", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


class ScratchScreen(OverLab):
    tour_name = "scratch"
    own_keys = KEYS
    shows_model = False  # typed by the user
    shows_text = False
    BINDINGS = bindings(KEYS)

    def __init__(self, lab: Lab, inquire: Inquire, typing_keys: Sequence[Command] = ()) -> None:
        """`typing_keys` are shown while text is typed."""
        super().__init__()
        self.lab, self._inquire, self._typing_keys = lab, inquire, typing_keys
        self.sampler = SamplerSettings()
        self._switched_off: dict[str, float] = {}

    def compose(self) -> ComposeResult:
        yield PromptEditor(self.lab.scratch, id="prompt", spaces=QUOTED)
        yield ScratchTable()
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.editor.border_title = Text(f'TOKEN=LOGIT …, such as {EXAMPLE} or " mat"=3.2')
        self.editor.focus()
        self._ask()

    @property
    def editor(self) -> PromptEditor:
        return self.query_one(PromptEditor)

    @property
    def shown(self) -> ScratchTable:
        return self.query_one(ScratchTable)

    def _question(self, temperatures: tuple[float, ...] = ()) -> ScratchQuestion:
        return ScratchQuestion(Request(), split(self.lab.scratch), self.sampler, temperatures)

    def _ask(self) -> None:
        self._inquire(self, self._question(), self._take, self._show_problem)

    def _take(self, found: Scratch) -> None:
        self.shown.take(found)

    def _show_problem(self, line: str) -> None:
        self.shown.show_problem(line)

    # ── typing ───────────────────────────────────────────────────────────────────────────────────────────────────

    @on(PromptEditor.Edited)
    def _edited(self, event: PromptEditor.Edited) -> None:
        event.stop()
        self.lab.scratch = self.editor.prompt_text
        self._ask()

    @on(PromptEditor.TypingDone)
    def _typing_done(self, event: PromptEditor.TypingDone) -> None:
        event.stop()
        self.shown.focus()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.query_one(KeyBar).show(self._typing_keys if event.widget is self.editor else in_footer(KEYS, "scratch"))

    def action_type(self) -> None:
        self.editor.focus()

    # ── the table and its sampler ────────────────────────────────────────────────────────────────────────────────

    def action_stages(self) -> None:
        self.shown.next_stage()

    def _set(self, **changed: Any) -> None:
        self.sampler = dataclasses.replace(self.sampler, **changed)
        self._ask()

    def action_temperature(self, direction: int) -> None:
        self._set(temperature=step(TEMPERATURES, self.sampler.temperature, direction))

    def action_top_p(self, direction: int) -> None:
        self._set(top_p=step(TOP_PS, self.sampler.top_p, direction))

    def action_top_k(self, direction: int) -> None:
        self._set(top_k=further(self.sampler.top_k, direction))

    def action_min_p(self, direction: int) -> None:
        self._set(min_p=step(MIN_PS, self.sampler.min_p, direction))

    def action_sampler_form(self) -> None:
        from tui_llm.tui.instruments.sampler import SamplerScreen

        def chosen(settings: SamplerSettings | None) -> None:
            if settings is not None:
                self.sampler = settings
                self._ask()

        self.app.push_screen(SamplerScreen(self.sampler, self._switched_off), chosen)

    def action_temperatures(self) -> None:
        def fetch(owner: Widget, temperatures: tuple[float, ...], take: Any, problem: Any) -> None:
            self.lab.temperatures = temperatures
            self._inquire(owner, self._question(temperatures), lambda found: take(found.temperatures), problem)

        self.app.push_screen(TemperaturesScreen(self.lab.temperatures, fetch))

    def table(self) -> Iterable[Row]:
        distribution = self.shown.distribution
        return () if distribution is None else [COLUMNS, *(cells(row, False) for row in distribution.candidates)]
