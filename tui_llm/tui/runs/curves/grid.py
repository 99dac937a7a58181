"""Lays the charts of some runs out in a grid, or shows one in full size, with one cursor for all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui_llm.common.display import truncate, visible
from tui_llm.common.numbers import duration, memory_size
from tui_llm.common.ticks import step_label
from tui_llm.training.run import curve_charts
from tui_llm.training.run.run_curves import CurveInfo, CurveValues, RunCurves
from tui_llm.tui.kit.format import compact
from tui_llm.tui.runs.curves.plot import GUTTER, Plot, View, drawn, mark, x_ticks
from tui_llm.tui.runs.curves.styles import Styles

LEAST_WIDTH, LEAST_HEIGHT = 36, 6  # cells of a chart in the grid
CURSOR = "│"
UNRECORDED = "not recorded by this run"

PlotKey = tuple[str, int, int, View]
"""Of a plot: the chart, its width and height in cells, and the view."""

Pieces = list[tuple[str, str | int]]
"""Text with the name of a style, or the number of a line's colour."""


def value_label(key: str, value: float) -> str:
    """A value of the chart `key`, in at most seven characters."""
    if math.isnan(value):
        return "–"
    if key == "memory_bytes":
        return memory_size(value)
    return compact(value)


def x_label(axis: str, x: float) -> str:
    if axis == "time":
        return duration(x)
    return step_label(x) if axis == "step" else compact(x)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the grid draws. `window` is the part of the x axis in sight, None for all."""

    runs: tuple[RunCurves, ...] = ()
    axis: str = "step"
    log_x: bool = False
    log_y: bool = False
    window: tuple[float, float] | None = None


class CurvesGrid(Widget, can_focus=True):
    """`selected` is a chart; `cursor` a place on the x axis, None at the newest step."""

    DEFAULT_CSS = """
    CurvesGrid { width: 1fr; height: 1fr; background: $background; }
    """

    class Moved(Message):
        """The cursor was moved, or another chart selected, with the mouse."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.shown = Shown()
        self.infos: tuple[CurveInfo, ...] = ()
        self.values: Sequence[Mapping[str, CurveValues]] = ()
        self.steps: Sequence[int] = ()  # of each run, that `values` were asked for
        self.selected = 0
        self.top = 0  # the first row of charts in sight
        self.full = False
        self.cursor: float | None = None
        self._view: View | None = None  # of what is shown
        self._plots: dict[PlotKey, Plot] = {}
        self._blocks: dict[int, tuple[object, list[Strip]]] = {}  # the lines of each chart, and what they depend on
        self._version = 0  # of the data and the theme
        self._styles = Styles(Style.null(), {}, 1, 1)

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._changed())

    def show(self, shown: Shown, plots: dict[PlotKey, Plot] | None = None) -> None:
        """Shows `shown`; `plots` are those that `prepared` has drawn of it."""
        self.shown, self._plots, self._view = shown, plots or {}, None
        if shown.runs and shown.runs[0].infos:
            found = {key for run in shown.runs for key in run.lines}
            keys = {info.key for info in shown.runs[0].infos if info.key in found or not _optional(info.key)}
            self.infos = tuple(info for info in shown.runs[0].infos if info.key in keys)
        self.selected = min(self.selected, max(0, len(self.infos) - 1))
        self._changed()

    def show_values(self, values: Sequence[Mapping[str, CurveValues]], steps: Sequence[int]) -> None:
        """The values of each run at the cursor, by the charts' keys, and the step of each run there."""
        self.values, self.steps = values, steps
        self._changed()

    # ── layout ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def columns(self) -> int:
        return 1 if self.full else max(1, self.size.width // LEAST_WIDTH)

    @property
    def chart_size(self) -> tuple[int, int]:
        """Cells of a chart with its title and values."""
        if self.full:
            return self.size.width, self.size.height
        needed = max(1, -(-len(self.infos) // self.columns))
        height = max(
            LEAST_HEIGHT, min(12, self.size.height // needed), self.size.height // max(1, self.size.height // 7)
        )
        return self.size.width // self.columns, min(height, max(1, self.size.height))

    @property
    def plot_width(self) -> int:
        return max(2, self.chart_size[0] - GUTTER - 1)

    @property
    def _rows_in_sight(self) -> int:
        return max(1, self.size.height // self.chart_size[1])

    def view(self) -> View:
        """The part of the x axis in sight."""
        if self._view is None:
            self._view = _view(self.shown)
        return self._view

    @property
    def cursor_x(self) -> float:
        view = self.view()
        return view.right if self.cursor is None else min(max(self.cursor, view.left), view.right)

    # ── moves ────────────────────────────────────────────────────────────────────────────────────────────────────

    def move(self, cells: int) -> None:
        """Moves the cursor by so many cells of a chart; from the right end it follows the newest step."""
        view, width = self.view(), self.plot_width
        at = round(view.share(self.cursor_x) * (width - 1)) + cells
        self.cursor = (
            None if at >= width - 1 and self.shown.window is None else view.at(max(0, min(at, width - 1)) / (width - 1))
        )
        self.refresh()

    def select(self, by: int) -> None:
        if self.infos:
            self.selected = max(0, min(self.selected + by, len(self.infos) - 1))
            self._scroll()

    def toggle_full(self) -> None:
        self.full = not self.full
        self._scroll()

    def zoom(self, direction: int) -> None:
        """Shows half of the x axis around the cursor (+1), or twice as much (−1); the cursor keeps its place in sight."""
        view, at = self.view(), self.cursor_x
        whole = replace(self.shown, window=None)
        all_of = _view(whole)
        share, span = view.share(at), 0.5 if direction > 0 else 2.0
        left, right = view.at(share - share * span), view.at(share + (1 - share) * span)
        left, right = max(left, all_of.left), min(right, all_of.right)
        self.cursor = at
        self.show(replace(whole, window=None if (left, right) == (all_of.left, all_of.right) else (left, right)))

    def _scroll(self) -> None:
        row = self.selected // self.columns
        self.top = max(min(self.top, row), row - self._rows_in_sight + 1)
        self.refresh()

    def on_resize(self) -> None:
        self._scroll()

    def on_click(self, event: events.Click) -> None:
        width, height = self.chart_size
        column, row = event.x // width, event.y // height
        at = self.selected if self.full else (self.top + row) * self.columns + column
        if column < self.columns and at < len(self.infos):
            self.selected = at
            share = (event.x - column * width - GUTTER) / (self.plot_width - 1)
            if -0.1 <= share <= 1:
                self.cursor = self.view().at(max(0.0, share))
            self.refresh()
            self.post_message(self.Moved())

    def on_mouse_scroll_down(self) -> None:
        last = -(-len(self.infos) // self.columns) - self._rows_in_sight
        self.top = max(0, min(self.top + 1, last))
        self.refresh()

    def on_mouse_scroll_up(self) -> None:
        self.top = max(0, self.top - 1)
        self.refresh()

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def render_line(self, y: int) -> Strip:
        height = self.chart_size[1]
        if self.full:
            block = self._block(self.selected) if self.infos else []
            return (block[y] if y < len(block) else Strip([])).adjust_cell_length(self.size.width, self.rich_style)
        row, line = divmod(y, height)
        first = (self.top + row) * self.columns
        blocks = range(first, min(first + self.columns, len(self.infos))) if row < self._rows_in_sight else range(0)
        return Strip.join(self._block(at)[line] for at in blocks).adjust_cell_length(self.size.width, self.rich_style)

    def _block(self, at: int) -> list[Strip]:
        """The lines of a chart, made again only if something in it changed."""
        info, (width, height), view = self.infos[at], self.chart_size, self.view()
        column = round(view.share(self.cursor_x) * (self.plot_width - 1))
        state = (self._version, info.key, width, height, view, column, at == self.selected, self.full)
        before = self._blocks.get(at)
        if before is None or before[0] != state:
            lines = self._full_lines(info, column) if self.full else self._lines(info, column, at == self.selected)
            before = self._blocks[at] = state, [self._strip(pieces, width) for pieces in lines]
        return before[1]

    def _changed(self) -> None:
        """Forgets all lines: the data, the values or the theme have changed."""
        runs = self.shown.runs
        layers = max((len(lines) for run in runs for lines in run.lines.values()), default=1)
        self._styles = Styles(self.rich_style, self.app.theme_variables, len(runs), layers)
        self._version += 1
        self._blocks = {}
        self.refresh()

    def _strip(self, pieces: Pieces, width: int) -> Strip:
        segments, room = list[Segment](), width
        for text, style in pieces:
            if len(text) > room or not text.isascii():
                text = truncate(text, room)
            segments.append(Segment(text, self._styles(style)))
            room -= segments[-1].cell_length
        return Strip([*segments, Segment(" " * max(0, room), self._styles(""))])

    def _plot(self, info: CurveInfo, width: int, height: int) -> Plot:
        view = self.view()
        key = (info.key, width, height, view)
        found = self._plots.get(key)
        if found is None:
            found = self._plots[key] = _drawn(self.shown, info, view, width, height)
        return found

    def prepared(self, shown: Shown) -> dict[PlotKey, Plot]:
        """The plots of the charts in sight, for `show`. Runs on a thread, so that drawing does not stop the screen."""
        view, (_, height), width = _view(shown), self.chart_size, self.plot_width
        if self.full:
            return {}
        first = self.top * self.columns
        infos = self.infos[first : first + self.columns * self._rows_in_sight]
        return {
            (info.key, width, height - 2, view): _drawn(shown, info, view, width, max(1, height - 2)) for info in infos
        }

    def _lines(self, info: CurveInfo, column: int, chosen: bool) -> list[Pieces]:
        """A chart in the grid: title, plot, values."""
        width, height = self.plot_width, self.chart_size[1]
        title: Pieces = [("▌" if chosen else " ", "strong"), (info.title, "strong" if chosen else "bold")]
        values: Pieces = [(" ", ""), *self._values(info)]
        return [title, *self._plot_lines(info, column, width, height - 2), values][:height]

    def _plot_lines(self, info: CurveInfo, column: int, width: int, height: int) -> list[Pieces]:
        if height < 1:
            return []
        plot = self._plot(info, width, height)
        if plot.empty:
            words = "–  " + (UNRECORDED if any(run.lines for run in self.shown.runs) else "no steps yet")
            return [[(" " * GUTTER + (words if line == height // 2 else ""), "dim")] for line in range(height)]
        signs, made = self._signs(info, plot, height), list[Pieces]()
        for line, cells in enumerate(plot.rows):
            pieces: Pieces = [(plot.labels[line].rjust(GUTTER - 2)[: GUTTER - 2] + " ▏", "dim")]
            for x, (char, colour) in enumerate(cells):
                if x == column:
                    pieces.append(signs.get(line, (CURSOR if char == " " else char, "cursor")))
                elif len(pieces) > 1 and pieces[-1][1] == colour:
                    pieces[-1] = (pieces[-1][0] + char, colour)
                else:
                    pieces.append((char, colour))
            made.append(pieces)
        return made

    def _signs(self, info: CurveInfo, plot: Plot, height: int) -> dict[int, tuple[str, str | int]]:
        """What stands on the cursor's line, by row: the layers' last digits, or the runs' marks."""
        signs: dict[int, tuple[str, str | int]] = {}
        for number, (name, value, _) in reversed(list(enumerate(self._found(info)))):
            share = plot.height_of(value) if math.isfinite(value) else math.nan
            if math.isfinite(share) and 0 <= share <= 1 and name:
                signs[round((1 - share) * (height - 1))] = (name[-1], number)
        return signs

    def _found(self, info: CurveInfo) -> list[tuple[str, float, int]]:
        """The values at the cursor: the line's sign, the value, and its step."""
        runs, found = self.shown.runs, list[tuple[str, float, int]]()
        for number, (run, values) in enumerate(zip(runs, self.values, strict=False)):
            one = values.get(info.key)
            if len(runs) > 1:
                value = math.nan if one is None else _joined(info.key, one.values)
                found.append((mark(number, len(runs)), value, one.step if one else -1))
            elif one is not None:
                layered = run.lines.get(info.key) and run.lines[info.key][0].layer is not None
                found += [(str(at) if layered else "", value, one.step) for at, value in enumerate(one.values)]
        return found

    def _values(self, info: CurveInfo) -> Pieces:
        """The values at the cursor on one line."""
        found, pieces = self._found(info), Pieces()
        for number, (name, value, step) in enumerate(found):
            pieces += [(f"{name} " if name else "", number), (value_label(info.key, value), "bold")]
            pieces.append((self._row(info, number), "dim"))
            last = number == len(found) - 1
            pieces += [(self._late(number, step) if last or len(self.shown.runs) > 1 else "", "dim"), ("  ", "")]
        return pieces or [("–", "dim")]

    def _late(self, number: int, step: int) -> str:
        """Says the step of a value where it is an earlier one than the cursor's: that of the last evaluation, or of the
        end of a run that is shorter than the others."""
        run = number if len(self.shown.runs) > 1 else 0
        return f" at step {step:,}" if 0 <= step < self.steps[run] else ""

    def _row(self, info: CurveInfo, number: int) -> str:
        """Says which row a largest row loss is of."""
        one = self.values[number].get(info.key) if number < len(self.values) else None
        return "" if one is None or one.row is None else f" row {one.row + 1}"

    def _full_lines(self, info: CurveInfo, column: int) -> list[Pieces]:
        """A chart in full size: title and meaning, plot, labels of the x axis, legend with values."""
        rows = self._value_rows(info)
        height = self.size.height - 2 - len(rows)
        log = "  log y" if self.shown.log_y and height > 0 and self._plot(info, self.plot_width, height).log_y else ""
        together = curve_charts.joined_words(info.key) if len(self.shown.runs) > 1 and self._layered(info) else ""
        words = "; ".join(filter(None, (curve_charts.meaning(self.shown.runs, info), together)))
        title: Pieces = [("▌", "strong"), (info.title, "strong"), (f"  {words}{log}", "dim")]
        axis = x_ticks(self.view(), self.plot_width, lambda x: x_label(self.shown.axis, x))
        plot = self._plot_lines(info, column, self.plot_width, height)
        below: Pieces = [(" " * GUTTER + axis, "dim")]
        return [title, *plot, below, *rows][: self.size.height]

    def _layered(self, info: CurveInfo) -> bool:
        return any(len(run.lines.get(info.key, ())) > 1 for run in self.shown.runs)

    def _value_rows(self, info: CurveInfo) -> list[Pieces]:
        """The legend of a chart in full size: each line's sign, name and value, on as many rows as needed."""
        rows, room = [Pieces()], 0
        for number, (name, value, step) in enumerate(self._found(info)):
            label = f"{name} {visible(self.shown.runs[number].name)}" if len(self.shown.runs) > 1 else f"layer {name}" if name else info.title  # fmt: skip
            late = self._row(info, number) + self._late(number, step)
            text = value_label(info.key, value)
            size = len(label) + len(text) + len(late) + 4
            if room and room + size > self.plot_width and len(rows) < 4:
                rows.append(Pieces())
                room = 0
            rows[-1] += [(f"{label} ", number), (text, "bold"), (late, "dim"), ("   ", "")]
            room += size
        return [[(" " * GUTTER, ""), *row] for row in rows]


def _view(shown: Shown) -> View:
    ends = [curve_charts.x_of(run, shown.axis, step) for run in shown.runs for step in run.steps]
    ends = [x for x in ends if math.isfinite(x)] or [0.0, 1.0]
    left, right = shown.window or (min(ends), max(ends))
    if shown.log_x and left <= 0:
        left = min((x for x in ends if x > 0), default=1.0) / 1000
    return View(left, right if right > left else left + 1, shown.log_x, shown.log_y)


def _drawn(shown: Shown, info: CurveInfo, view: View, width: int, height: int) -> Plot:
    chart = curve_charts.chart(shown.runs, info, shown.axis)
    curves = [(line.name, line.points, line.marks and len(shown.runs) == 1) for line in chart.lines]
    return drawn(curves, view, width, height, lambda value: value_label(info.key, value))


def _optional(key: str) -> bool:
    """Charts that not every run has: without values they are left out."""
    return key == "row_loss" or key.endswith((".head", ".final_norm", ".vectors"))


def _joined(key: str, values: Sequence[float]) -> float:
    """As `curve_charts.joined`, at one step."""
    if len(values) == 1:
        return values[0]
    if any(map(math.isnan, values)):
        return math.nan
    return math.sqrt(sum(v * v for v in values)) if key.startswith("gradient") else sum(values) / len(values)
