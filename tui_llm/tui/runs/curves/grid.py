"""Lays the charts of some runs out in a grid, or shows one in full size, with one cursor for all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui_llm.common.display import truncate, visible
from tui_llm.common.numbers import duration, memory_size
from tui_llm.common.ticks import step_label
from tui_llm.training.run import curve_charts
from tui_llm.training.run.run_curves import CurveInfo, CurveValues, RunCurves
from tui_llm.tui.kit.format import compact
from tui_llm.tui.kit.themes import theme_rgb
from tui_llm.tui.runs.curves.plot import GUTTER, MARKS, Curve, Plot, View, drawn, x_ticks

LEAST_WIDTH, LEAST_HEIGHT = 36, 6  # cells of a chart in the grid
RUN_COLOURS = ("primary", "success", "error", "secondary", "accent")
CURSOR = "│"
UNRECORDED = "not recorded by this run"

Pieces = list[tuple[str, str | int]]
"""Text with the name of a style, or the number of a line's colour."""


def value_label(key: str, value: float) -> str:
    """A value of the chart `key`, in at most seven characters."""
    if math.isnan(value):
        return "–"
    if key == "memory_bytes":
        return memory_size(value)
    return compact(value).replace("-", "−")


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
        self._plots: dict[tuple[object, ...], Plot] = {}

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.refresh())

    def show(self, shown: Shown) -> None:
        self.shown, self._plots = shown, {}
        if shown.runs and shown.runs[0].infos:
            found = {key for run in shown.runs for key in run.lines}
            keys = {info.key for info in shown.runs[0].infos if info.key in found or not _optional(info.key)}
            self.infos = tuple(info for info in shown.runs[0].infos if info.key in keys)
        self.selected = min(self.selected, max(0, len(self.infos) - 1))
        self.refresh()

    def show_values(self, values: Sequence[Mapping[str, CurveValues]], steps: Sequence[int]) -> None:
        """The values of each run at the cursor, by the charts' keys, and the step of each run there."""
        self.values, self.steps = values, steps
        self.refresh()

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
        shown = self.shown
        ends = [curve_charts.x_of(run, shown.axis, step) for run in shown.runs for step in run.steps]
        ends = [x for x in ends if math.isfinite(x)] or [0.0, 1.0]
        left, right = shown.window or (min(ends), max(ends))
        if shown.log_x and left <= 0:
            left = min((x for x in ends if x > 0), default=1.0) / 1000
        return View(left, right if right > left else left + 1, shown.log_x, shown.log_y)

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
        """Shows half of the x axis around the cursor (+1), or twice as much (−1)."""
        view, at = self.view(), self.cursor_x
        whole = replace(self.shown, window=None)
        self.shown, now = whole, self.view()
        self.shown, all_of = replace(whole, window=(view.left, view.right)), now
        share, half = view.share(at), 0.25 if direction > 0 else 1.0
        left, right = view.at(max(share - half, -1.0)), view.at(min(share + half, 2.0))
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
        width, height = self.chart_size
        if self.full:
            pieces = self._full_line(self.selected, y) if self.infos else []
            return self._strip([(pieces, self.size.width)])
        row, line = divmod(y, height)
        first = (self.top + row) * self.columns
        if y // height >= self._rows_in_sight:
            return self._strip([])
        charts = range(first, min(first + self.columns, len(self.infos)))
        return self._strip([(self._line(at, line, height), width) for at in charts])

    def _strip(self, parts: list[tuple[Pieces, int]]) -> Strip:
        base = self.rich_style
        segments, used = list[Segment](), 0
        for pieces, width in parts:
            room = width
            for text, style in pieces:
                text = truncate(text, room)
                segments.append(Segment(text, base + self._style(style)))
                room -= Segment(text).cell_length
            segments.append(Segment(" " * max(0, room), base))
            used += width
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _style(self, name: str | int) -> Style:
        if isinstance(name, int):
            return Style(color=self._line_colour(name)) if name >= 0 else Style.null()
        variables = self.app.theme_variables
        rgb = theme_rgb(variables, {"cursor": "text-warning", "dim": "text-muted", "strong": "text-accent"}.get(name, "foreground"))  # fmt: skip
        if name == "dim":
            rgb = Color(*theme_rgb(variables, "foreground")).blend(Color(*theme_rgb(variables, "background")), 0.4).rgb
        return Style(color=f"rgb({rgb[0]},{rgb[1]},{rgb[2]})", bold=name in ("bold", "strong"))

    def _line_colour(self, number: int) -> str:
        """Of a run, or of a layer: from the theme's primary colour to its warning colour."""
        variables, runs = self.app.theme_variables, self.shown.runs
        if len(runs) > 1:
            name = RUN_COLOURS[number % len(RUN_COLOURS)]
            rgb = theme_rgb(variables, f"text-{name}", name)
        else:
            ends = (Color(*theme_rgb(variables, f"text-{name}", name)) for name in ("primary", "warning"))
            first, last = ends
            rgb = first.blend(last, number / max(1, self._layers - 1)).rgb
        return f"rgb({rgb[0]},{rgb[1]},{rgb[2]})"

    @property
    def _layers(self) -> int:
        return max((len(lines) for run in self.shown.runs for lines in run.lines.values()), default=1)

    def curves(self, info: CurveInfo) -> list[Curve]:
        chart = curve_charts.chart(self.shown.runs, info, self.shown.axis)
        return [(line.name, line.points, line.marks and len(self.shown.runs) == 1) for line in chart.lines]

    def _plot(self, info: CurveInfo, width: int, height: int) -> Plot:
        view = self.view()
        key = (info.key, width, height, view)
        found = self._plots.get(key)
        if found is None:
            found = drawn(self.curves(info), view, width, height, lambda value: value_label(info.key, value))
            self._plots[key] = found
        return found

    def _line(self, at: int, line: int, height: int) -> Pieces:
        """A line of a chart in the grid."""
        info, chosen = self.infos[at], at == self.selected
        if line == 0:
            mark = "▌" if chosen else " "
            return [(mark, "strong"), (info.title, "strong" if chosen else "bold")]
        if line == height - 1:
            return [(" ", ""), *self._values(info)]
        return self._plot_line(info, line - 1, self.plot_width, height - 2)

    def _plot_line(self, info: CurveInfo, line: int, width: int, height: int) -> Pieces:
        plot = self._plot(info, width, max(1, height))
        if plot.empty:
            words = "–  " + (UNRECORDED if any(run.lines for run in self.shown.runs) else "no steps yet")
            return [(" " * GUTTER + (words if line == height // 2 else ""), "dim")]
        column = round(self.view().share(self.cursor_x) * (width - 1))
        pieces: Pieces = [(plot.labels[line].rjust(GUTTER - 2)[: GUTTER - 2] + " ▏", "dim")]
        signs = self._signs(info, plot, height)
        for x, (char, colour) in enumerate(plot.rows[line]):
            if x == column:
                char, style = signs.get(line, (CURSOR if char == " " else char, "cursor"))
                pieces.append((char, style))
            elif len(pieces) > 1 and pieces[-1][1] == colour:
                pieces[-1] = (pieces[-1][0] + char, colour)
            else:
                pieces.append((char, colour))
        return pieces

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
                found.append((MARKS[number % len(MARKS)], value, one.step if one else -1))
            elif one is not None:
                layered = run.lines.get(info.key) and run.lines[info.key][0].layer is not None
                found += [(str(at) if layered else "", value, one.step) for at, value in enumerate(one.values)]
        return found

    def _values(self, info: CurveInfo) -> Pieces:
        """The values at the cursor on one line."""
        found, pieces = self._found(info), Pieces()
        for number, (name, value, step) in enumerate(found):
            pieces += [(f"{name} " if name else "", number), (value_label(info.key, value), "bold")]
            last = number == len(found) - 1
            pieces += [(self._late(number, step) if last or len(self.shown.runs) > 1 else "", "dim"), ("  ", "")]
        return pieces or [("–", "dim")]

    def _late(self, number: int, step: int) -> str:
        """Says the step of a value where it is an earlier one than the cursor's: that of the last evaluation, or of the
        end of a run that is shorter than the others."""
        run = number if len(self.shown.runs) > 1 else 0
        return f" at step {step:,}" if 0 <= step < self.steps[run] else ""

    def _full_line(self, at: int, y: int) -> Pieces:
        """A line of a chart in full size: title, plot, labels of the x axis, values."""
        info, height = self.infos[at], self.size.height
        rows = self._value_rows(info)
        plot = height - 3 - len(rows)
        if y == 0:
            log = "  log y" if self.shown.log_y and self._plot(info, self.plot_width, max(1, plot)).log_y else ""
            together = curve_charts.joined_words(info.key) if len(self.shown.runs) > 1 and self._layered(info) else ""
            words = "; ".join(filter(None, (info.meaning, together)))
            return [("▌", "strong"), (info.title, "strong"), (f"  {words}{log}", "dim")]
        if y <= plot:
            return self._plot_line(info, y - 1, self.plot_width, plot)
        if y == plot + 1:
            view = self.view()
            line = x_ticks(view, self.plot_width, lambda x: x_label(self.shown.axis, x))
            return [(" " * GUTTER + line, "dim")]
        return rows[y - plot - 2] if 0 <= y - plot - 2 < len(rows) else []

    def _layered(self, info: CurveInfo) -> bool:
        return any(len(run.lines.get(info.key, ())) > 1 for run in self.shown.runs)

    def _value_rows(self, info: CurveInfo) -> list[Pieces]:
        """The legend of a chart in full size: each line's sign, name and value, on as many rows as needed."""
        rows, room = [Pieces()], 0
        for number, (name, value, step) in enumerate(self._found(info)):
            label = f"{name} {visible(self.shown.runs[number].name)}" if len(self.shown.runs) > 1 else f"layer {name}" if name else info.title  # fmt: skip
            late = self._late(number, step)
            text = value_label(info.key, value)
            size = len(label) + len(text) + len(late) + 4
            if room and room + size > self.plot_width and len(rows) < 4:
                rows.append(Pieces())
                room = 0
            rows[-1] += [(f"{label} ", number), (text, "bold"), (late, "dim"), ("   ", "")]
            room += size
        return [[(" " * GUTTER, ""), *row] for row in rows]


def _optional(key: str) -> bool:
    """Charts that not every model has: without values they are left out."""
    return key.endswith((".head", ".final_norm", ".vectors"))


def _joined(key: str, values: Sequence[float]) -> float:
    """As `curve_charts.joined`, at one step."""
    if len(values) == 1:
        return values[0]
    if any(map(math.isnan, values)):
        return math.nan
    return math.sqrt(sum(v * v for v in values)) if key.startswith("gradient") else sum(values) / len(values)
