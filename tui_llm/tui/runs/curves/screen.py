"""The curves of a run, and of runs over it: a grid of small charts with one cursor, whose values stand under each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen

from tui_llm.common.display import visible
from tui_llm.common.numbers import duration
from tui_llm.training.run import curve_charts
from tui_llm.training.run.curve_charts import AXES
from tui_llm.training.run.foreign.foreign_curves import curves_reader
from tui_llm.training.run.run import Run
from tui_llm.training.run.run_curves import CurveValues, RunCurves
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.format import compact
from tui_llm.tui.kit.live import deliver
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.runs.chart_export import NOTHING, ask_export
from tui_llm.tui.runs.curves.grid import CurvesGrid, PlotKey, Shown
from tui_llm.tui.runs.curves.plot import Plot, mark
from tui_llm.tui.runs.open_step import Branched, open_step

INTERVAL = 1.0  # seconds between two looks at the files

_key = CommandFactory("curves", "Curves")
KEYS = (
    _key("close_curves", "escape,q", "back", "Show all charts again, or go back", "close", importance=WAY_OUT),
    _key("curves_earlier", "left", "earlier", "Move the cursor of all charts to an earlier step", "cursor(-1)", priority=True, together="cursor", importance=5),
    _key("curves_later", "right", "later", "Move the cursor of all charts to a later step; at the end it follows the newest", "cursor(1)", priority=True, together="cursor", importance=5),
    _key("curves_much_earlier", "shift+left", "much earlier", "Move the cursor ten cells back", "cursor(-10)", footer=()),
    _key("curves_much_later", "shift+right", "much later", "Move the cursor ten cells forward", "cursor(10)", footer=()),
    _key("curves_first", "home", "first step", "Move the cursor to the first step in sight", "cursor(-100000)", priority=True, footer=()),
    _key("curves_newest", "end", "newest step", "Move the cursor to the newest step, and follow it", "cursor(100000)", priority=True, footer=()),
    _key("curves_up", "up", "chart above", "Select the chart above", "chart('up')", priority=True, together="chart", importance=4),
    _key("curves_down", "down", "chart below", "Select the chart below", "chart('down')", priority=True, together="chart", importance=4),
    _key("curves_previous", "left_square_bracket", "previous chart", "Select the previous chart", "chart('previous')", together="chart", importance=4),
    _key("curves_next", "right_square_bracket", "next chart", "Select the next chart", "chart('next')", together="chart", importance=4),
    _key("curves_open_step", "enter", "open step", "Recompute the step under the cursor of the first run: its rows with their places in the corpus, and what made its loss", "open_step", importance=5),
    _key("curves_full", "f", "full size", "Show the selected chart in full size, or all charts again", "full", importance=6),
    _key("curves_axis", "a", "by", "Draw over the next of: steps, tokens, seconds of training, FLOPs", "axis", importance=5),
    _key("curves_log_y", "l", "log y", "Make the value axes logarithmic where all values are above 0, or linear again", "log('y')", importance=3),
    _key("curves_log_x", "L", "log x", "Make the x axis logarithmic, or linear again", "log('x')", importance=3),
    _key("curves_zoom_in", "plus,equals_sign", "zoom in", "Show half of the steps in sight, around the cursor", "zoom(1)", together="zoom", importance=3),
    _key("curves_zoom_out", "minus", "zoom out", "Show twice as many steps", "zoom(-1)", together="zoom", importance=3),
    _key("export_curve", "x", "export", "Write the selected chart to a new file: .svg, .png or .csv", "export", importance=4),
    _key("copy_curve", "y", "copy", "Copy the selected chart's points, tab-separated", "copy", importance=2),
)  # fmt: skip


class CurvesScreen(BaseScreen, Screen[None]):
    """`runs` are drawn over each other; the first is the one whose step and time the cursor shows."""

    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    CurvesScreen { layout: vertical; overflow: hidden; }
    CurvesScreen #curves-cursor { background: $background; }
    """

    def __init__(self, runs: Sequence[Run], branched: Branched | None = None) -> None:
        """`branched` is called with the first run and a new branch of it, once this screen has closed."""
        super().__init__()
        self.readers = [curves_reader(run) for run in {run.name: run for run in runs}.values()]
        self._branched = branched
        self.files = FileActions(self, lambda: None)
        self._grid = CurvesGrid("curves-grid")
        self._busy, self._loaded = False, False
        self._asked = 0  # the number of the newest question for the values at the cursor
        self._shown_values = 0  # the number of the question whose answer is shown

    def compose(self) -> ComposeResult:
        yield Bar(id="curves-top")
        yield Bar(id="curves-cursor")
        yield self._grid
        yield KeyBar()

    def on_mount(self) -> None:
        self._grid.focus()
        self.query_one(KeyBar).show_commands(command for command in KEYS if command.footer)
        self.query_one("#curves-top", Bar).put(Content("reading the run's metrics …"))
        self.set_interval(INTERVAL, self.reload)
        self.reload()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def reload(self) -> None:
        """Reads what is new, unless a read is in progress."""
        if not self._busy:
            self._busy = True
            self._reload()

    @work(thread=True, group="curves")
    def _reload(self) -> None:
        try:
            shown = 0.0
            while True:
                found = tuple(reader.read() for reader in self.readers)
                reading = any(one.reading for one in found)
                if not reading or time.monotonic() - shown >= INTERVAL:
                    shown = time.monotonic()
                    shown_now = replace(self._grid.shown, runs=found)
                    deliver(self, self._show, shown_now, self._grid.prepared(shown_now))
                if not reading or not self.is_running:
                    return
        finally:
            self._busy = False

    def _show(self, found: Shown, plots: dict[PlotKey, Plot]) -> None:
        grid = self._grid
        if found.runs == grid.shown.runs and self._loaded:
            return
        self._loaded = True
        now = replace(grid.shown, runs=found.runs)
        grid.show(now, plots if now == found else None)  # keys may have changed the view meanwhile
        self._ask()

    def _ask(self) -> None:
        """Has the values at the cursor read."""
        if not self._grid.shown.runs:
            return  # nothing is read yet
        self._asked += 1
        shown, x = self._grid.shown, self._grid.cursor_x
        steps = [_step(run, shown.axis, x) for run in shown.runs]
        self._read_values(self._asked, steps)
        self._say()

    @work(thread=True, group="values")
    def _read_values(self, number: int, steps: list[int]) -> None:
        if number != self._asked:
            return
        found = [reader.at(step) for reader, step in zip(self.readers, steps, strict=True)]
        deliver(self, self._show_values, number, found, steps)

    def _show_values(self, number: int, found: list[dict[str, CurveValues]], steps: list[int]) -> None:
        if number == self._asked:
            self._shown_values = number
            self._grid.show_values(found, steps)
            self._say()

    # ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────

    def _say(self) -> None:
        shown, grid = self._grid.shown, self._grid
        if not shown.runs:
            return
        main = shown.runs[0]
        top: list[str | tuple[str, str]] = [("Curves of ", "bold"), (visible(main.name), "bold")]
        top.append((f"  by {AXES[shown.axis]}", "$text-muted"))
        top += [("  log x", "$text-muted")] if shown.log_x else []
        top += [("  log y", "$text-muted")] if shown.log_y else []
        if shown.window is not None:
            top.append(("  zoomed", "$text-muted"))
        top += [("  reading its metrics …", "$text-muted")] if any(run.reading for run in shown.runs) else []
        for run in shown.runs:
            if why := curve_charts.missing(run, shown.axis):
                top.append((f"  {visible(run.name)} is left out: {why}", "$text-warning"))
        with self.app.batch_update():
            self.query_one("#curves-top", Bar).put(Content.assemble(*top))
            self.query_one("#curves-cursor", Bar).put(self._cursor_line(main, grid.values[0] if grid.values else {}))

    def _cursor_line(self, main: RunCurves, values: Mapping[str, CurveValues]) -> Content:
        if len(self._grid.shown.runs) > 1:
            runs = self._grid.shown.runs
            names = "   ".join(f"{mark(at, len(runs))} {visible(run.name)}" for at, run in enumerate(runs))
        else:
            names = ""
        loss = values.get("loss")
        if loss is None:
            return Content.assemble((names, "bold"))
        parts: list[str | tuple[str, str]] = [(f"step {loss.step:,}", "bold")]
        if main.step_tokens is not None:
            parts.append(f"  {compact(main.tokens_at(loss.step))} tokens")
        if main.clock.steps:
            parts.append(f"  {duration(main.clock.at(loss.step))} of training")
        if loss.time > 0:
            parts.append((time.strftime("  %Y-%m-%d %H:%M:%S", time.localtime(min(loss.time, 4e9))), "$text-muted"))
        if not curve_charts.missing(main, "flops"):
            flops = curve_charts.x_of(main, "flops", loss.step)
            parts.append((f"  {compact(flops)} FLOPs", "$text-muted"))
        return Content.assemble(*parts, f"   {names}")

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    @on(CurvesGrid.Moved)
    def _moved(self) -> None:
        self._ask()

    def action_cursor(self, cells: int) -> None:
        self._grid.move(cells)
        self._ask()

    def action_chart(self, where: str) -> None:
        step = {"up": -self._grid.columns, "down": self._grid.columns, "previous": -1, "next": 1}[where]
        if not 0 <= self._grid.selected + step < len(self._grid.infos):
            step = 0
        self._grid.select(step)

    def action_full(self) -> None:
        self._grid.toggle_full()

    def action_axis(self) -> None:
        names = list(AXES)
        shown, grid = self._grid.shown, self._grid
        steps = [_step(run, shown.axis, grid.cursor_x) for run in shown.runs[:1]]
        for _ in names:  # the next one that the first run can be drawn over
            axis = names[(names.index(shown.axis) + 1) % len(names)]
            shown = replace(shown, axis=axis, window=None)
            if shown.runs and not curve_charts.missing(shown.runs[0], axis):
                break
        if grid.cursor is not None and steps:
            grid.cursor = curve_charts.x_of(shown.runs[0], shown.axis, steps[0])
        grid.show(shown)
        self._ask()

    def action_log(self, axis: str) -> None:
        shown = self._grid.shown
        log_x, log_y = shown.log_x != (axis == "x"), shown.log_y != (axis == "y")
        self._grid.show(replace(shown, log_x=log_x, log_y=log_y))
        self._ask()

    def action_zoom(self, direction: int) -> None:
        self._grid.zoom(direction)
        self._ask()

    def action_open_step(self) -> None:
        """Opens the first run's step under the cursor."""
        shown, grid = self._grid.shown, self._grid
        if shown.runs:
            step = _step(shown.runs[0], shown.axis, grid.cursor_x)
            open_step(self.app, self.files, self.readers[0].run, step or None, self._leave_for)

    def _leave_for(self, parent: Run, run: Run) -> None:
        """A branch was made: the Training pane shows it, if that opened this screen."""
        self.dismiss(None)
        if self._branched is not None:
            self._branched(parent, run)
        else:
            self.app.notify(f"{run.name} trains; Enter in the list of runs watches it", markup=False)

    def action_export(self) -> None:
        grid, shown = self._grid, self._grid.shown
        if not grid.infos or not shown.runs:
            self.files.notify(NOTHING, "warning")
            return
        info = grid.infos[grid.selected]
        data = curve_charts.chart(shown.runs, info, shown.axis, log_x=shown.log_x, log_y=shown.log_y)
        ask_export(self.app, self.files, data, f"{shown.runs[0].name}-{info.key}", self.readers[0].run)

    def table(self) -> Iterable[tuple[str, ...]]:
        """The selected chart's points."""
        grid = self._grid
        if grid.infos:
            yield from curve_charts.chart(grid.shown.runs, grid.infos[grid.selected], grid.shown.axis).rows()

    def action_copy(self) -> None:
        self.files.notify(copy_rows(self.app, list(self.table())))

    def action_close(self) -> None:
        if self._grid.full:
            self._grid.toggle_full()
        else:
            self.dismiss(None)


def _step(run: RunCurves, axis: str, x: float) -> int:
    """The step of `run` at a place on the axis."""
    step = curve_charts.step_of(run, axis, x)
    return max(0, min(round(step), 10**12)) if step == step else 0
