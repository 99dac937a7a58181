"""The table of the models that can be opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui_llm.common.display import fit, truncate, visible
from tui_llm.common.numbers import file_size
from tui_llm.common.paths import run_model
from tui_llm.facts.model import ModelInfo, Weights
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import HELP, WAY_OUT, CommandFactory, bindings, key_line
from tui_llm.tui.kit.confirm import ConfirmScreen
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.models.info import Ask, ModelInfoScreen
from tui_llm.tui.models.pull import ModelPull


def fitting(numbers: Sequence[str], text: str, room: int) -> str:
    """As many of the numbers as fit, each whole, then the text; `…` stands for what is left out."""
    whole = " · ".join([*numbers, text] if text else numbers)
    for count in range(len(numbers), 0, -1):
        shown = " · ".join(numbers[:count])
        if shown == whole and cell_len(shown) <= room:
            return shown
        if cell_len(shown) + len(" · …") <= room:
            return truncate(whole, room) if count == len(numbers) else f"{shown} · …"
    return truncate(whole, room) if not numbers else "…"[:room]


class ModelLines(Lines):
    """One line per model; the open one is marked."""

    def __init__(self, current: Weights | None) -> None:
        super().__init__(id="models")
        self.current = current
        self.models: tuple[ModelInfo, ...] | None = None

    def show(self, models: tuple[ModelInfo, ...]) -> None:
        self.models = models
        self.cursor = next((at for at, model in enumerate(models) if self._is_open(model)), 0)
        self.rebuild()
        self._show_cursor()

    def _is_open(self, model: ModelInfo) -> bool:
        """Whether the model is the open one. A run may have a shipped model's name; only a run has a step."""
        now = self.current
        return now is not None and model.name == now.name and (model.step is None) == (now.step is None)

    def head(self, width: int) -> list[Text]:
        if self.models:
            return []
        note = "looking for models …" if self.models is None else "no models here: p pulls one"
        return [Text(note, style=self.style("muted"), no_wrap=True)]

    def row_count(self, width: int) -> int:
        return len(self.models or ())

    def selectable(self, index: int) -> bool:
        return 0 <= index < len(self.models or ())

    def row(self, index: int, width: int, selected: bool) -> Text:
        assert self.models is not None
        model = self.models[index]
        line = Text("▸" if selected else " ", no_wrap=True)
        line.append("● " if self._is_open(model) else "  ")
        line.append(fit(visible(model.name), 24 if width > 90 else 14), self.style("strong")).append(
            f"  {model.kind:<8}"
        )
        room = max(0, width - line.cell_len)
        if model.problem:
            return line.append(truncate(visible(model.problem), room), self.style("bad"))
        numbers = [
            None
            if model.parameters is None
            else f"{fmt.parameters(model.parameters)}{' parameters' if width > 90 else ''}",
            None if model.size is None else file_size(model.size),
            None if model.context is None else f"context {fmt.count(model.context)}",
            None if model.vocabulary is None else f"vocabulary {fmt.count(model.vocabulary)}",
            None if model.step is None else f"step {fmt.count(model.step)}",
        ]
        parts = fitting([part for part in numbers if part], visible(model.origin), room)
        return line.append(parts, self.style("muted"))


_key = CommandFactory("models", "Models")
KEYS = (
    _key("open_model", "enter", "open", "Open the model under the cursor", "open"),
    _key("pull_model", "p", "pull", "Download a model from the Hugging Face Hub; asks for its name", "pull"),
    _key("cancel_pull", "c", "cancel", "Cancel the download; pulling again resumes it", "cancel_pull"),
    _key("model_info", "i", "info", "Show the model's details and its card", "info"),
    _key("delete_model", "D,delete", "delete", "Delete a pulled model; asks first", "delete"),
    _key("close_models", "escape,q,m", "back", "Back to the open model; cancels a download", "close", importance=WAY_OUT),
)  # fmt: skip


class ModelsScreen(BaseScreen, ModalScreen[str | None]):
    """Dismissed with the name or folder to open, or with None. The models in huggingface_hub's cache are listed a
    moment after the rest: scanning the cache may take a second."""

    BINDINGS = bindings(KEYS, modal=True)

    def __init__(self, current: Weights | None, reload: Callable[[], None], ask: Ask) -> None:
        """`reload` requests the list again; `show` is called with it. `ask` requests one model's choices."""
        super().__init__()
        self._ask = ask
        self._current = current
        self._own: tuple[ModelInfo, ...] | None = None
        self._cached: tuple[ModelInfo, ...] = ()
        self.files = FileActions(self, reload)
        self.pull = ModelPull(self, self.files, Static(id="models-pull", classes="-hidden"))
        self.action_pull = self.pull.ask
        self.action_cancel_pull = self.pull.cancel

    def compose(self) -> ComposeResult:
        with Vertical(id="models-window"):
            yield ModelLines(self._current)
            yield self.pull.line
            yield Static(Content(key_line((*KEYS, HELP))), id="models-keys")

    def on_mount(self) -> None:
        self.query_one("#models-window").border_title = Content("Models")
        self.query_one(ModelLines).focus()
        self._scan()

    def on_unmount(self) -> None:
        self.pull.close()

    @work(thread=True, group="models-cache")
    def _scan(self) -> None:
        from tui_llm.llm.hub import model_list

        found = tuple(model_list.cached())
        if found:
            deliver(self, self._take, found)

    def _take(self, found: tuple[ModelInfo, ...]) -> None:
        self._cached = found
        if self._own is not None:
            self._rebuild()

    def show(self, models: tuple[ModelInfo, ...]) -> None:
        self._own = models
        self._rebuild()

    def _rebuild(self) -> None:
        lines = self.query_one(ModelLines)
        before = self.selected
        lines.show((*(self._own or ()), *self._cached))
        if before is not None and before in (lines.models or ()):
            lines.cursor = (lines.models or ()).index(before)
            lines.refresh()

    @property
    def selected(self) -> ModelInfo | None:
        lines = self.query_one(ModelLines)
        return lines.models[lines.cursor] if lines.models and lines.cursor is not None else None

    def action_open(self) -> None:
        model = self.selected
        if self.pull.is_running:
            self.files.notify("a model is being pulled, and opening one would end that; c cancels it", "warning")
        elif model is not None:
            opened = {"folder": model.path, "cache": model.path, "run": run_model(model.name)}
            self.dismiss(opened.get(model.kind, model.name))

    def action_info(self) -> None:
        if self.selected is not None:
            self.app.push_screen(ModelInfoScreen(self.selected, self._ask))

    def action_delete(self) -> None:
        model = self.selected
        if model is None:
            return
        if not model.pulled:
            self.files.notify("only a pulled model is deleted here", "warning")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.files.act(lambda: _delete(model.name), f"{model.name} is deleted")

        self.app.push_screen(ConfirmScreen(f"Delete {model.name}? It can be pulled again.", "Delete"), answered)

    def on_click(self, event: events.Click) -> None:
        if event.chain > 1:
            self.action_open()

    def action_close(self) -> None:
        self.dismiss(None)


def _delete(name: str) -> None:
    from tui_llm.llm.hub import pull

    pull.delete(name)
