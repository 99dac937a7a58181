"""One model's facts, and its model card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.screen import ModalScreen
from textual.widget import Widget

from tui_llm.common.display import visible
from tui_llm.common.numbers import file_size
from tui_llm.facts import report
from tui_llm.facts.model import ModelChoice, ModelChoices, ModelInfo
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import HELP, WAY_OUT, CommandFactory, bindings, key_line
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.widgets.lines import Lines

Ask = Callable[[Widget, ModelInfo, Callable[[ModelChoices], object]], object]


def facts(model: ModelInfo, choices: Sequence[ModelChoice] = ()) -> list[tuple[str, str]]:
    """(name, value) pairs; foreign text, not made visible yet. `choices`: what the model's numbers depend on."""
    rows = [("model", model.name), ("kind", model.kind), ("from", model.origin), ("folder", model.path)]
    numbers = {"parameters": model.parameters, "context": model.context}
    rows += [(name, f"{value:,}") for name, value in numbers.items() if value is not None]
    rows += [("vocabulary", model.vocabulary_text)] if model.vocabulary is not None else []
    rows += [("step", f"{model.step:,}")] if model.step is not None else []
    rows += [("size", file_size(model.size))] if model.size is not None else []
    rows += [("problem", model.problem)] if model.problem else []
    rows += [("note", model.note)] if model.note else []
    rows += [("choices", report.choices_text(choices))] if choices else []
    return rows


class InfoLines(Lines):
    def __init__(self, model: ModelInfo) -> None:
        super().__init__(id="model-info")
        self.model, self.card = model, ""
        self.choices: tuple[ModelChoice, ...] = ()
        self._lines: list[str] = []

    def row_count(self, width: int) -> int:
        """Wraps everything to the width, as a card's lines can be of any length."""
        self._lines = []
        for name, value in facts(self.model, self.choices):
            self._fold(f"{name:11} {visible(value)}", width)
        for line in ("", *self.card.splitlines()):
            self._fold(visible(line), width)
        return len(self._lines)

    def _fold(self, line: str, width: int) -> None:
        if not line:
            self._lines.append("")
            return
        self._lines += [part.plain for part in Text(line).wrap(self.app.console, max(1, width))]

    def row(self, index: int, width: int, selected: bool) -> Text:
        return Text(self._lines[index], no_wrap=True)


_key = CommandFactory("model_info", "Models")
KEYS = (
    _key("copy_model_info", "y", "copy", "Copy the model's details (tab-separated)", "copy"),
    _key("close_model_info", "escape,q,i", "back", "Back to the models", "close", importance=WAY_OUT),
)  # fmt: skip


class ModelInfoScreen(BaseScreen, ModalScreen[None]):
    BINDINGS = bindings(KEYS, modal=True)

    def __init__(self, model: ModelInfo, ask: Ask = lambda owner, model, take: None) -> None:
        """`ask` requests the model's choices."""
        super().__init__()
        self._model, self._ask = model, ask

    def compose(self) -> ComposeResult:
        yield InfoLines(self._model)

    def on_mount(self) -> None:
        lines = self.query_one(InfoLines)
        lines.border_title = Text(visible(self._model.name))
        lines.border_subtitle = key_line((*KEYS, HELP))
        lines.focus()
        self._read()
        self._ask(self, self._model, self._take)

    @work(thread=True)
    def _read(self) -> None:
        from tui_llm.llm.hub import model_list

        deliver(self, self._show, model_list.with_ids(self._model), model_list.card(Path(self._model.path)))

    def _show(self, model: ModelInfo, card: str) -> None:
        lines = self.query_one(InfoLines)
        self._model = lines.model = model
        lines.card = card
        lines.rebuild()

    def _take(self, choices: ModelChoices) -> None:
        lines = self.query_one(InfoLines)
        lines.choices = choices.lines()
        lines.rebuild()

    def action_copy(self) -> None:
        table = "\n".join(
            f"{name}\t{visible(value)}" for name, value in facts(self._model, self.query_one(InfoLines).choices)
        )
        self.app.copy_to_clipboard(table)
        self.notify("copied, tab-separated", markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
