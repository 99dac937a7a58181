"""All training runs on this machine, as a table. The actions on a run are in `run_actions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import DataTable, Static

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError, in_one_line
from tui_llm.training.plan import launch
from tui_llm.training.run.foreign import foreign_run
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.run import Run, runs
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import HELP, WAY_OUT, CommandFactory, bindings, key_line
from tui_llm.tui.kit.live import deliver, is_live
from tui_llm.tui.kit.widgets.grid import Grid
from tui_llm.tui.runs.loss_chart import OTHERS
from tui_llm.tui.runs.run_actions import RunActions
from tui_llm.tui.runs.run_rows import COLUMNS, RowReader, RunRow, cells

REFRESH = 2.0  # seconds between two reads while a run is alive
WHOLE = 90  # terminal columns from which the whole table is shown


_key = CommandFactory("runs", "Runs")
KEYS = (
    _key("watch_run", "enter", "watch", "Watch the run under the cursor in the Training pane", "watch_run"),
    _key("mark_run", "space", "mark", "Mark or unmark the run: the chart draws its loss over the watched run's (at most four)", "mark_run"),
    _key("open_listed_run", "o", "open", "Open the run's newest checkpoint as the model of all panes", "open_run"),
    _key("resume_listed_run", "e", "resume", "Resume a run that has stopped or died, from its last checkpoint", "resume_run"),
    _key("stop_listed_run", "S", "stop", "Stop the run: it saves, then ends", "stop_run"),
    _key("delete_run", "D,delete", "delete", "Delete the run and its checkpoints; asks first", "delete_run"),
    _key("new_listed_run", "n", "new run", "Train a model on your own text", "new_run"),
    _key("close_runs", "escape,q", "back", "Back to the five panes", "close", importance=WAY_OUT),
    _key("continue_run", "plus", "more steps", "Continue the run with more steps, or with fewer than planned; asks for the new total", "continue_run"),
    _key("compare_runs", "c", "compare", "Compare the marked runs with the one under the cursor", "compare_runs"),
    _key("listed_curves", "C", "curves", "Show all curves of the run under the cursor in a grid, over them those of the marked runs", "curves"),
    _key("rename_run", "r", "rename", "Rename the run", "rename_run"),
    _key("export_run", "x", "export", "Write the run's newest checkpoint as a model folder", "export_run"),
    _key("foreign_run", "f", "other program", "Open checkpoints or a log of another program by path: nanoGPT, nanochat, transformers, TensorBoard, wandb", "foreign_run"),
)  # fmt: skip


class RunsScreen(BaseScreen, ModalScreen[tuple[str, Run | None] | Path | None]):
    """Dismissed with (`watch`, `open` or `new`, the run), with the path of a checkpoint of another program, or with None. `marked_runs` are then the runs to show in the
    watched run's chart; at first, those named in `marked`."""

    BINDINGS = bindings(KEYS, modal=True)
    DEFAULT_CSS = """
    RunsScreen { align: center middle; background: transparent; }
    RunsScreen #runs-window { width: 110; max-width: 100%; height: auto; max-height: 90%; min-height: 6;
        border: round $primary; background: $surface; }
    RunsScreen DataTable { height: auto; max-height: 100%; background: $surface; }
    RunsScreen #runs-none { padding: 0 1; }
    RunsScreen #runs-keys { padding: 0 1; color: $text-muted; height: auto; dock: bottom; }
    RunsScreen .-hidden { display: none; }
    """

    def __init__(self, marked: Iterable[str] = ()) -> None:
        super().__init__()
        self.marked = list(marked)
        self.rows: tuple[RunRow, ...] = ()
        self._columns: Sequence[str] = COLUMNS
        self._runs: dict[str, Run] = {}
        self._reader = RowReader()
        self._timer: Timer | None = None
        self._busy = self._again = False
        self.files = FileActions(self, self.reload)
        actions = RunActions(self, self.files, self._own_selected, lambda: self.marked_runs, self._renamed)
        of_any = RunActions(self, self.files, lambda: self.selected, lambda: self.marked_runs, self._renamed)
        self.action_resume_run = actions.resume
        self.action_stop_run = actions.stop
        self.action_delete_run = of_any.delete
        self.action_continue_run = actions.extend
        self.action_rename_run = actions.rename
        self.action_export_run = actions.export
        self.action_compare_runs = of_any.compare
        self.action_curves = of_any.curves

    def compose(self) -> ComposeResult:
        with Vertical(id="runs-window"):
            yield Static(Content("looking for runs …"), id="runs-none")
            yield Grid(id="runs-table", cursor_type="row", zebra_stripes=False)
            yield Static(Content(key_line((*KEYS, HELP))), id="runs-keys")

    def on_mount(self) -> None:
        window = self.query_one("#runs-window")
        window.border_title = Content("Training runs")
        self.query_one(DataTable).set_class(True, "-hidden")
        self._fit_columns()
        self._timer = self.set_interval(REFRESH, self.reload, pause=True)
        self.reload()

    def on_resize(self, event: events.Resize) -> None:
        self._fit_columns()

    def _fit_columns(self) -> None:
        """A narrow terminal would truncate the last column, the preset, to a letter, so it is omitted there."""
        columns = COLUMNS if self.app.size.width >= WHOLE else COLUMNS[:-1]
        table = self.query_one(DataTable)
        if table.columns and columns == self._columns:
            return
        self._columns, at = columns, table.cursor_row
        table.clear(columns=True)
        for name in columns:
            table.add_column(Text(name), key=name)
        for row in self.rows:
            table.add_row(*cells(row, row.name in self.marked)[: len(columns)], key=row.name)
        table.move_cursor(row=at)

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def reload(self) -> None:
        """Reads all runs again, on a worker thread. If a read is in progress, they are read once more after it, as it
        may have missed the newest change."""
        self._again = self._busy
        if not self._busy:
            self._busy = True
            self._reload()

    @work(thread=True, group="runs")
    def _reload(self) -> None:
        try:
            launch.reap()
            found: dict[str, Run] = {run.name: run for run in (*runs(), *foreign_run.opened())}
            rows = sorted(map(self._reader.read, found.values()), key=lambda row: (not row.alive, -row.changed))
        finally:
            self._busy = False
        deliver(self, self._show, found, tuple(rows))

    def _show(self, found: dict[str, Run], rows: tuple[RunRow, ...]) -> None:
        if self._timer is None:
            return
        if self._again:
            self.reload()
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
                    table.add_row(*cells(row, row.name in self.marked)[: len(self._columns)], key=row.name)
                if selected is not None and selected.name in found:
                    table.move_cursor(row=table.get_row_index(selected.name))
            else:
                for row, before in zip(rows, self.rows, strict=True):
                    if row != before:
                        for column, cell in zip(self._columns, cells(row, row.name in self.marked), strict=False):
                            table.update_cell(row.name, column, cell, update_width=True)
            self.rows = rows
            table.set_class(not rows, "-hidden")
            none.set_class(bool(rows), "-hidden")
            none.update(Content("no training run yet: n starts one"))
        if rows and self.app.focused is None:
            table.focus()

    @property
    def selected(self) -> Run | None:
        table = self.query_one(DataTable)
        if not self.rows or not 0 <= table.cursor_row < len(self.rows):
            return None
        return self._runs.get(self.rows[table.cursor_row].name)

    def _own_selected(self) -> Run | None:
        """The run under the cursor if it is one of tui-llm; says so if it is not."""
        run = self.selected
        if isinstance(run, ForeignRun):
            self.files.notify(f"{run.name} is of another program: it is only read", "warning")
            return None
        return run

    @property
    def marked_runs(self) -> list[Run]:
        """The marked runs that still exist, in the order in which they were marked."""
        return [self._runs[name] for name in self.marked if name in self._runs]

    def _renamed(self, old: str, new: str) -> None:
        self.marked = [new if name == old else name for name in self.marked]

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_watch_run()

    def action_watch_run(self) -> None:
        if isinstance(self.selected, ForeignRun):
            self._show_foreign(self.selected)
        elif self.selected is not None:
            self.dismiss(("watch", self.selected))

    def action_foreign_run(self) -> None:
        self._ask_for_foreign()

    def _ask_for_foreign(self, text: str = "", why: str = "") -> None:
        """`why`: why `text` could not be opened."""

        def answered(text: str | None) -> None:
            if text is not None and text.strip():
                self._open_foreign(text.strip(), self.app.call_later)

        hint = "a folder of checkpoints (checkpoint-500, step_1000, …), or a log: it is only read"
        self.app.push_screen(
            AskScreen("Path of another program's run", f"{why}\n{hint}" if why else hint, text), answered
        )

    @work(thread=True, group="foreign-open")
    def _open_foreign(self, text: str, call_later: Callable[..., object]) -> None:
        try:
            found = foreign_run.open_path(text)
            foreign_run.remember(found)
        except (UserError, OSError) as error:
            call_later(self._not_opened, text, in_one_line(error))
            return
        deliver(self, self._show_foreign, found)

    def _not_opened(self, text: str, why: str) -> None:
        """Asks for the path again, with what was typed; if this screen is not in front any more, only says why."""
        if is_live(self) and self.app.screen is self:
            self._ask_for_foreign(text, visible(why))
        else:
            self.files.notify(why, "error")

    def _show_foreign(self, run: ForeignRun) -> None:
        """Its checkpoints; of a log its curves."""
        self.reload()
        self._look(run)

    @work(thread=True, group="foreign-open")
    def _look(self, run: ForeignRun) -> None:
        deliver(self, self._push_foreign, run, bool(run.steps()))

    def _push_foreign(self, run: ForeignRun, checkpoints: bool) -> None:
        from tui_llm.tui.runs.curves.screen import CurvesScreen
        from tui_llm.tui.runs.foreign import ForeignScreen

        def left(checkpoint: Path | None) -> None:
            self.reload()
            if checkpoint is not None:
                self.dismiss(checkpoint)

        if checkpoints:
            self.app.push_screen(ForeignScreen(run), left)
        else:
            self.app.push_screen(CurvesScreen([run, *self.marked_runs]))

    def action_mark_run(self) -> None:
        run = self.selected
        if run is None:
            return
        self.marked = [name for name in self.marked if name in self._runs]
        if run.name in self.marked:
            self.marked.remove(run.name)
        elif len(self.marked) == len(OTHERS):
            self.files.notify(f"{len(OTHERS)} runs are marked already; unmark one first", "warning")
            return
        else:
            self.marked.append(run.name)
        row = next(row for row in self.rows if row.name == run.name)
        self.query_one(DataTable).update_cell(
            run.name, "run", cells(row, run.name in self.marked)[0], update_width=True
        )

    def action_open_run(self) -> None:
        run = self.selected
        if isinstance(run, ForeignRun):
            if found := run.checkpoints():
                self.dismiss(found[-1][1])
            else:
                self.files.notify(f"{run.name} is a log: it has no checkpoint to open", "warning")
        elif run is not None and run.checkpoints():
            self.dismiss(("open", run))
        elif run is not None:
            self.files.notify(f"{run.name} has no checkpoint yet", "warning")

    def action_new_run(self) -> None:
        self.dismiss(("new", None))

    def action_close(self) -> None:
        self.dismiss(None)
