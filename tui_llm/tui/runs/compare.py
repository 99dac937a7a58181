"""Compares runs side by side, one column each: their results, and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from tui_llm.common.display import visible
from tui_llm.training.run import compare
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import HELP, WAY_OUT, CommandFactory, bindings, key_line
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.grid import Grid

_key = CommandFactory("comparison", "Runs")
KEYS = (
    _key("copy_comparison", "y", "copy", "Copy the comparison of runs, tab-separated", "copy"),
    _key("close_comparison", "escape,q", "back", "Back to the runs", "close", importance=WAY_OUT),
)  # fmt: skip


class CompareScreen(BaseScreen, ModalScreen[None]):
    tour_name = "compare"
    """Reads the runs once, when it is mounted."""

    BINDINGS = bindings(KEYS, modal=True)
    DEFAULT_CSS = """
    CompareScreen { align: center middle; }
    CompareScreen #compare-window { width: 110; max-width: 100%; height: auto; max-height: 90%; min-height: 6;
        border: round $primary; background: $surface; }
    CompareScreen DataTable { height: auto; max-height: 100%; background: $surface; display: none; }
    CompareScreen #compare-none { padding: 0 1; }
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        super().__init__()
        self._compared = tuple(runs)
        self._rows: list[tuple[str, ...]] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="compare-window"):
            yield Static(Content("reading their metrics …"), id="compare-none")
            yield Grid(id="compare-table", cursor_type="row", fixed_columns=1)

    def on_mount(self) -> None:
        window = self.query_one("#compare-window")
        window.border_title = Content("Runs side by side")
        window.border_subtitle = Content(f"{key_line((*KEYS, HELP))} · ← → scroll")
        self._read()

    @work(thread=True)
    def _read(self) -> None:
        rows = compare.table(compare.compare(self._compared))
        deliver(self, self._show, rows)

    def _show(self, rows: list[tuple[str, ...]]) -> None:
        self._rows = rows
        table = self.query_one(DataTable)
        head, *body = rows
        for at, name in enumerate(head):
            table.add_column(Text(visible(name) if at else ""), key=str(at))
        for label, *values in body:
            same = len(set(values)) == 1
            table.add_row(Text(visible(label)), *(Text(visible(v) or "–", "dim" if same else "") for v in values))
        table.display = True
        self.query_one("#compare-none").display = False
        table.focus()

    def table(self) -> Iterable[tuple[str, ...]]:
        yield from self._rows

    def action_copy(self) -> None:
        self.notify(copy_rows(self.app, self._rows), markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
