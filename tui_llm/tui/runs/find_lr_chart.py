"""The chart of a search for a learning rate: the last validation loss against the rate, a line for each round. Pure but for
the widget at the end."""

from __future__ import annotations

import math

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from tui_llm.common.ticks import nice_ticks
from tui_llm.training.plan.find_lr import RateResult
from tui_llm.tui.kit.raster import Cell, Raster
from tui_llm.tui.runs.curves.plot import GUTTER, View, x_ticks
from tui_llm.tui.runs.curves.styles import Styles

TRIED, PICK, DIVERGED, ABOVE = "×o", "┃", "!", "↑"  # × of the first round, o of the others: not by colour alone
ROUNDS, PICKS = 4, 4  # colours of rounds, and the number of the pick's
HEADROOM = 1.6  # × the span of the losses near the best one: what is higher is drawn at the top


def span(result: RateResult) -> tuple[float, float]:
    """The losses at the ends of the y axis. A few very bad rates don't flatten the rest."""
    losses = sorted(trial.loss for trial in result.trials if trial.loss is not None)
    if not losses:
        return 0.0, 1.0
    low, middle = losses[0], losses[len(losses) // 2]
    high = min(losses[-1], low + max(HEADROOM * 2 * (middle - low), 0.02 * low))
    pad = max(0.05 * (high - low), 1e-6 * max(1.0, low))
    return low - pad, high + pad


def rates(result: RateResult) -> tuple[float, float] | None:
    """The rates at the ends of the x axis; None while none was tried."""
    tried = [trial.rate for trial in result.trials] + ([result.pick.rate] if result.pick else [])
    return (min(tried) / 1.3, max(tried) * 1.3) if tried else None


def drawn_rates(result: RateResult, width: int, height: int) -> list[tuple[str, list[Cell]]]:
    """The rows of the chart: the label of the y axis, and `width` cells. The last row is the x axis."""
    ends = rates(result)
    rows = height - 1
    if ends is None or width < 2 or rows < 1:
        return [("", [(" ", -1)] * max(0, width)) for _ in range(max(0, height))]
    view, (low, high) = View(*ends, log_x=True), span(result)
    raster = Raster(width, rows)

    def share(loss: float | None) -> float:
        return math.nan if loss is None else min(1.0, (loss - low) / (high - low))

    rounds = result.rounds()
    for number, trials in enumerate(rounds):
        raster.line([(view.share(one.rate), share(one.loss)) for one in trials], min(number, ROUNDS - 1))
    if result.pick is not None:
        for row in range(rows):
            raster.sign(view.share(result.pick.rate), row / max(1, rows - 1), PICK, PICKS)
    for number, trials in enumerate(rounds):
        for one in trials:
            mark = DIVERGED if one.loss is None else ABOVE if one.loss > high else TRIED[min(number, len(TRIED) - 1)]
            raster.sign(
                view.share(one.rate), 1.0 if one.loss is None else share(one.loss), mark, min(number, ROUNDS - 1)
            )
    axis = x_ticks(view, width, lambda rate: f"{rate:g}")
    cells = raster.rows()
    return [*zip(_labels(low, high, rows), cells, strict=True), ("", [(char, -1) for char in axis])]


def _labels(low: float, high: float, rows: int) -> list[str]:
    labels = [""] * rows
    for tick in nice_ticks(low, high, max(2, rows // 2)):
        row = round((1 - (tick - low) / (high - low)) * (rows - 1))
        if 0 <= row < rows and not labels[row]:
            labels[row] = f"{tick:.4g}"
    return labels


class RateChart(Widget):
    """Shows a `RateResult`."""

    DEFAULT_CSS = """
    RateChart { width: 1fr; height: 1fr; min-height: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.result = RateResult()
        self._rows: list[tuple[str, list[Cell]]] = []
        self._made_for: tuple[int, int, int] | None = None
        self._styles = Styles(Style.null(), {}, ROUNDS + 1, 1)

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._changed())

    def show(self, result: RateResult) -> None:
        """Draws `result` again: it has grown."""
        self.result = result
        self._changed()

    def _changed(self) -> None:
        self._made_for = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        state = self.size.width, self.size.height, len(self.result.trials)
        if state != self._made_for:
            self._made_for = state
            self._rows = drawn_rates(self.result, self.size.width - GUTTER, self.size.height)
            self._styles = Styles(self.rich_style, self.app.theme_variables, ROUNDS + 1, 1)
        if y >= len(self._rows):
            return Strip([]).adjust_cell_length(self.size.width, self.rich_style)
        label, cells = self._rows[y]
        edge = " ▏" if y < len(self._rows) - 1 else "  "
        segments = [Segment(label.rjust(GUTTER - 2)[: GUTTER - 2] + edge, self._styles("dim"))]
        segments += [Segment(char, self._styles(colour if colour >= 0 else "dim")) for char, colour in cells]
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)
