"""The models that could be opened."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.screen import ModalScreen

from tui_llm.display import fit, visible
from tui_llm.paths import run_model
from tui_llm.reading import ModelInfo, Weights
from tui_llm.tui import format as fmt
from tui_llm.tui.commands import bindings
from tui_llm.tui.widgets.lines import Lines


class ModelLines(Lines):
    """One line a model; the one that is open is marked."""

    def __init__(self, current: Weights | None) -> None:
        super().__init__(id="models")
        self.current = current
        self.models: tuple[ModelInfo, ...] | None = None

    def on_mount(self) -> None:
        self.border_title = "Models"
        self.border_subtitle = "Enter opens · Esc closes"

    def show(self, models: tuple[ModelInfo, ...]) -> None:
        self.models = models
        self.cursor = next((at for at, model in enumerate(models) if self._is_open(model)), 0)
        self.rebuild()
        self._show_cursor()

    def _is_open(self, model: ModelInfo) -> bool:
        """A run may have a shipped model's name; only a run has steps."""
        now = self.current
        return now is not None and model.name == now.name and (model.step is None) == (now.step is None)

    def head(self, width: int) -> list[Text]:
        if self.models:
            return []
        said = "looking for models …" if self.models is None else "no models here; `tui-llm train` makes one"
        return [Text(said, style=self.style("muted"), no_wrap=True)]

    def row_count(self, width: int) -> int:
        return len(self.models or ())

    def selectable(self, index: int) -> bool:
        return 0 <= index < len(self.models or ())

    def row(self, index: int, width: int, selected: bool) -> Text:
        assert self.models is not None
        model = self.models[index]
        line = Text("▸" if selected else " ", no_wrap=True)
        line.append("● " if self._is_open(model) else "  ")
        line.append(fit(visible(model.name), 24), self.style("strong")).append(f"  {model.kind:<8}")
        if model.problem:
            line.append(visible(model.problem), self.style("bad"))
            return line
        parts = [
            None if model.parameters is None else f"{fmt.parameters(model.parameters)} parameters",
            None if model.context is None else f"context {fmt.count(model.context)}",
            None if model.vocabulary is None else f"vocabulary {fmt.count(model.vocabulary)}",
            None if model.step is None else f"step {fmt.count(model.step)}",
        ]
        line.append(" · ".join(part for part in parts if part), self.style("muted"))
        return line


class ModelsScreen(ModalScreen[str | None]):
    """Dismissed with the name or folder to open, or with None."""

    BINDINGS = bindings("models")

    def __init__(self, current: Weights | None) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        yield ModelLines(self._current)

    def show(self, models: tuple[ModelInfo, ...]) -> None:
        self.query_one(ModelLines).show(models)

    def action_open(self) -> None:
        lines = self.query_one(ModelLines)
        if lines.models and lines.cursor is not None:
            model = lines.models[lines.cursor]
            self.dismiss({"folder": model.path, "run": run_model(model.name)}.get(model.kind, model.name))

    def on_click(self, event: events.Click) -> None:
        if event.chain > 1:
            self.action_open()

    def action_close(self) -> None:
        self.dismiss(None)
