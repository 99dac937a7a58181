"""The models that could be opened."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui_llm.display import fit, visible
from tui_llm.reading import ModelInfo
from tui_llm.tui import format as fmt


def describe(model: ModelInfo, current: str | None) -> Content:
    name = fit(visible(model.name), 24)
    if model.problem:
        facts: Content = Content.assemble((visible(model.problem), "$text-error"))
    else:
        parts = [
            None if model.parameters is None else f"{fmt.parameters(model.parameters)} parameters",
            None if model.context is None else f"context {fmt.count(model.context)}",
            None if model.vocabulary is None else f"vocabulary {fmt.count(model.vocabulary)}",
            None if model.step is None else f"step {fmt.count(model.step)}",
        ]
        facts = Content(" · ".join(part for part in parts if part))
    mark = "● " if model.name == current else "  "
    return Content.assemble(mark, (name, "bold"), f"  {model.kind:<8}", facts)


class ModelsScreen(ModalScreen[str | None]):
    """Dismissed with the name to open, or with None."""

    BINDINGS = [("escape,q,m", "close", "Close")]

    def __init__(self, current: str | None) -> None:
        super().__init__()
        self._current = current
        self._models: tuple[ModelInfo, ...] = ()

    def compose(self) -> ComposeResult:
        options = OptionList(id="models", markup=False)
        options.border_title = "Models"
        options.border_subtitle = "Enter opens · Esc closes"
        yield options

    def on_mount(self) -> None:
        self.query_one(OptionList).add_option(Option(Content("looking for models …"), disabled=True))

    def show(self, models: tuple[ModelInfo, ...]) -> None:
        self._models = models
        options = self.query_one(OptionList)
        options.clear_options()
        if not models:
            options.add_option(Option(Content("no models here: `tui-llm train` makes one"), disabled=True))
        for index, model in enumerate(models):
            options.add_option(Option(describe(model, self._current), id=str(index)))
        options.focus()
        if models:
            options.highlighted = next((at for at, m in enumerate(models) if m.name == self._current), 0)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option.id is not None:
            model = self._models[int(event.option.id)]
            self.dismiss(model.path if model.kind == "folder" else model.name)

    def action_close(self) -> None:
        self.dismiss(None)
