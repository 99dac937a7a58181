"""Every training run on this machine, as a table: watch, open, resume, stop, delete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Button, DataTable, Static

from tui_llm.display import visible
from tui_llm.errors import UserError
from tui_llm.training import launch
from tui_llm.training.run import Run, runs
from tui_llm.tui import format as fmt
from tui_llm.tui.acting import ActsOnRuns
from tui_llm.tui.commands import bindings, footer
from tui_llm.tui.panes.training import state_words
from tui_llm.tui.run_watch import last_sign, last_validation, loss_glimpse
from tui_llm.tui.widgets.loss_chart import OTHERS

REFRESH = 2.0  # seconds, while a run is alive
BLOCKS = "▁▂▃▄▅▆▇█"
SPARK = 12  # cells of a sparkline
MARK = "◆"  # before the name of a run that the chart shows too
COLUMNS = ("run", "state", "step", "loss", "val loss", "loss so far", "size", "preset")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run's line, all of it plain numbers and words."""

    name: str
    state: str
    step: int
    steps: int
    loss: float | None
    val_loss: float | None
    losses: tuple[float, ...]
    size: int
    preset: str
    changed: float
    alive: bool


def row_of(run: Run) -> RunRow:
    """Reads what the table shows of `run`; never raises on what it finds."""
    status, last = run.status(), run.last_metric()
    try:
        preset = run.config().preset
    except UserError:
        preset = "?"
    try:
        size = run.size()
    except OSError:  # a checkpoint went away just now
        size = 0
    return RunRow(
        run.name, status.state, status.step, status.steps, last.loss if last else None, last_validation(run.metrics_path),
        tuple(loss_glimpse(run.metrics_path, SPARK)), size, preset, last_sign(run), status.alive,
    )  # fmt: skip


def spark(values: tuple[float, ...]) -> str:
    """Heights of `values` as block characters, from the lowest to the highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = high - low or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((v - low) / span * len(BLOCKS)))] for v in values)


def size_text(size: int) -> str:
    for unit, letters in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {letters}"
    return f"{size} B"


def cells(row: RunRow, marked: bool = False) -> tuple[Text, ...]:
    words, _style = state_words(row.state)
    return (
        Text(f"{MARK} {visible(row.name)}" if marked else visible(row.name)),
        Text(words),
        Text(f"{fmt.count(row.step)}/{fmt.count(row.steps)}", justify="right"),
        Text("" if row.loss is None else fmt.number(row.loss, 3), justify="right"),
        Text("" if row.val_loss is None else fmt.number(row.val_loss, 3), justify="right"),
        Text(spark(row.losses)),
        Text(size_text(row.size), justify="right"),
        Text(visible(row.preset)),
    )


class ConfirmScreen(ModalScreen[bool]):
    """Asks before something is lost. Dismissed with whether it was agreed to."""

    BINDINGS: ClassVar = [("y", "dismiss(True)", "Yes"), ("n,escape,q", "dismiss(False)", "No")]
    DEFAULT_CSS = """
    ConfirmScreen { align: center middle; }
    ConfirmScreen > Vertical { width: 60; max-width: 100%; height: auto; border: round $error; background: $surface;
        padding: 0 1; }
    ConfirmScreen Horizontal { height: 1; margin-top: 1; }
    ConfirmScreen Button { margin-right: 2; }
    """

    def __init__(self, question: str, agree: str) -> None:
        super().__init__()
        self._question, self._agree = question, agree

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Content(visible(self._question)))
            with Horizontal():
                yield Button("No, keep it (n)", id="no", compact=True)
                yield Button(Content(f"{self._agree} (y)"), id="yes", variant="error", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "yes")


class RunsScreen(ActsOnRuns, ModalScreen[tuple[str, Run | None] | None]):
    """Dismissed with (`watch`, `open` or `new`, the run), or with None. `marked_runs` are then those to lay over the
    watched one, at first the `marked` ones."""

    BINDINGS = bindings("runs")
    DEFAULT_CSS = """
    RunsScreen { align: center middle; }
    RunsScreen #runs-window { width: 110; max-width: 100%; height: auto; max-height: 90%; min-height: 6;
        border: round $primary; background: $surface; }
    RunsScreen DataTable { height: auto; max-height: 100%; background: $surface; }
    RunsScreen #runs-none { padding: 0 1; }
    RunsScreen .-hidden { display: none; }
    """

    def __init__(self, marked: Iterable[str] = ()) -> None:
        super().__init__()
        self.marked = list(marked)
        self.rows: tuple[RunRow, ...] = ()
        self._runs: dict[str, Run] = {}
        self._timer: Timer | None = None
        self._busy = False

    def compose(self) -> ComposeResult:
        with Vertical(id="runs-window"):
            yield Static(Content("looking for runs …"), id="runs-none")
            yield DataTable(id="runs-table", cursor_type="row", zebra_stripes=False)

    def on_mount(self) -> None:
        window = self.query_one("#runs-window")
        window.border_title = Content("Training runs")
        window.border_subtitle = Content(" · ".join(f"{c.key_text} {c.label}" for c in footer("runs")[1:9]))
        table = self.query_one(DataTable)
        for name in COLUMNS:
            table.add_column(Text(name), key=name)
        table.set_class(True, "-hidden")
        self._timer = self.set_interval(REFRESH, self.look, pause=True)
        self.look()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Reads all runs anew, off the screen's thread."""
        if not self._busy:
            self._busy = True
            self._look()

    @work(thread=True, group="runs", exit_on_error=False)
    def _look(self) -> None:
        try:
            launch.reap()
            found = {run.name: run for run in runs()}
            rows = sorted(map(row_of, found.values()), key=lambda row: (not row.alive, -row.changed))
        finally:
            self._busy = False
        self.app.call_from_thread(self._show, found, tuple(rows))

    def _show(self, found: dict[str, Run], rows: tuple[RunRow, ...]) -> None:
        if not self.is_mounted or self._timer is None:
            return
        if any(row.alive for row in rows):
            self._timer.resume()
        else:
            self._timer.pause()
        self._runs = found
        table, none = self.query_one(DataTable), self.query_one("#runs-none", Static)
        with self.app.batch_update():
            if [row.name for row in rows] != [row.name for row in self.rows]:
                selected = self.selected
                table.clear()
                for row in rows:
                    table.add_row(*cells(row, row.name in self.marked), key=row.name)
                if selected is not None and selected.name in found:
                    table.move_cursor(row=table.get_row_index(selected.name))
            else:
                for row, before in zip(rows, self.rows, strict=True):
                    if row != before:
                        for column, cell in zip(COLUMNS, cells(row, row.name in self.marked), strict=True):
                            table.update_cell(row.name, column, cell, update_width=True)
            self.rows = rows
            table.set_class(not rows, "-hidden")
            none.set_class(bool(rows), "-hidden")
            none.update(Content("no training run yet: n makes one"))
        if rows and self.app.focused is None:
            table.focus()

    @property
    def selected(self) -> Run | None:
        table = self.query_one(DataTable)
        if not self.rows or not 0 <= table.cursor_row < len(self.rows):
            return None
        return self._runs.get(self.rows[table.cursor_row].name)

    @property
    def marked_runs(self) -> list[Run]:
        """In the order in which they were marked; those that are gone are left out."""
        return [self._runs[name] for name in self.marked if name in self._runs]

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_watch_run()

    def action_watch_run(self) -> None:
        if self.selected is not None:
            self.dismiss(("watch", self.selected))

    def action_mark_run(self) -> None:
        run = self.selected
        if run is None:
            return
        self.marked = [name for name in self.marked if name in self._runs]
        if run.name in self.marked:
            self.marked.remove(run.name)
        elif len(self.marked) == len(OTHERS):
            self.say(f"{len(OTHERS)} runs are marked already; unmark one first", "warning")
            return
        else:
            self.marked.append(run.name)
        row = next(row for row in self.rows if row.name == run.name)
        self.query_one(DataTable).update_cell(
            run.name, "run", cells(row, run.name in self.marked)[0], update_width=True
        )

    def action_open_run(self) -> None:
        run = self.selected
        if run is not None and run.checkpoints():
            self.dismiss(("open", run))
        elif run is not None:
            self.say(f"{run.name} has no checkpoint yet", "warning")

    def action_resume_run(self) -> None:
        run = self.selected
        if run is not None:
            if run.status().state == "finished":
                self.say(f"{run.name} is finished", "warning")
            else:
                self.act(lambda: launch.resume(run))

    def action_stop_run(self) -> None:
        run = self.selected
        if run is not None:
            self.act(lambda: launch.stop(run), f"{run.name} saves, then stops")

    def action_delete_run(self) -> None:
        run = self.selected
        if run is None:
            return
        if run.alive():
            self.say(f"{run.name} is being trained; stop it first", "warning")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.act(run.delete, f"{run.name} is deleted")

        self.app.push_screen(ConfirmScreen(f"Delete {run.name} and all its checkpoints?", "Delete"), answered)

    def action_new_run(self) -> None:
        self.dismiss(("new", None))

    def action_leave(self) -> None:
        self.dismiss(None)
