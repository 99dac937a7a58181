"""The chart of the Ladder screen as lines of text: the curves of all rungs, each with the mark of its rung at its end. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from tui_llm.common.numbers import duration
from tui_llm.training.plan import ladder_results
from tui_llm.training.plan.ladder_results import LadderResults
from tui_llm.tui.kit.format import compact
from tui_llm.tui.runs.curves.plot import GUTTER, NUMBERS, Plot, View, drawn, x_ticks
from tui_llm.tui.runs.curves.styles import Styles

LEAST, MOST = 6, 24  # rows of the plot
FEWEST = 4  # points of the longest curve that are drawn without its beginning
Curve = tuple[int, Sequence[tuple[float, float]]]
"""The number of a rung, and its points."""


def mark(number: int) -> str:
    """The sign of rung `number`, in the table and at the end of its curve."""
    return NUMBERS[number % len(NUMBERS)]


def lines(
    results: LadderResults, axis: str, width: int, height: int, styles: Styles, muted: Style
) -> tuple[list[Text], int]:
    """The lines of the chart over `axis`, about `height` of them, and how many rungs are drawn. Rungs whose place on the axis is
    not known are left out."""
    chart = ladder_results.chart(results, axis)
    known = {line.name: [(x, y) for x, y in line.points if math.isfinite(x)] for line in chart.lines}
    curves: list[Curve] = [
        (at, known[one.rung.name]) for at, one in enumerate(results.rungs) if known.get(one.rung.name)
    ]
    if not curves or width < GUTTER + 10:
        return [], len(curves)
    height, cells = max(LEAST, min(MOST, height - 2)), width - GUTTER - 1
    curves, left_out = _without_first(curves)
    view = _view([x for _, points in curves for x, _ in points], left_out)
    plot = drawn([("", points, False) for _, points in curves], view, cells, height, lambda value: f"{value:.2f}")
    _end_marks(plot, view, curves, cells, height)
    made = []
    for label, row in zip(plot.labels, plot.rows, strict=True):
        text = Text(f"{label:>{GUTTER - 2}} ┤", muted, no_wrap=True)
        for char, number in row:
            text.append(char, styles(curves[number][0]) if number >= 0 else "")
        made.append(text)
    ticks = x_ticks(view, cells, duration if axis == "time" else compact)
    title = f"validation loss by {chart.x_title}" + (", without the first tenth" if left_out else "")
    foot = Text(title, muted, no_wrap=True)
    foot.truncate(width, overflow="ellipsis")
    return [*made, Text(" " * GUTTER + ticks, muted), foot], len(curves)


def _without_first(curves: list[Curve]) -> tuple[list[Curve], float]:
    """The curves without the first tenth of the axis, and where that ends: there the loss falls from ln V, and with it in sight
    the rungs lie on each other. All of them, and 0, if too little would be left."""
    left = max(x for _, points in curves for x, _ in points) / 10
    cut: list[Curve] = [(number, [point for point in points if point[0] >= left]) for number, points in curves]
    cut = [curve for curve in cut if curve[1]]
    if max(len(points) for _, points in cut) < FEWEST:
        return curves, 0.0
    return cut, left


def _view(xs: Sequence[float], left: float) -> View:
    left, right = min(left, *xs), max(xs)
    return View(left, right if right > left else left + 1)


def _end_marks(plot: Plot, view: View, curves: Sequence[Curve], cells: int, height: int) -> None:
    """Puts each rung's mark at the end of its curve; where one is already, beside it."""
    taken: set[tuple[int, int]] = set()
    for at, (number, points) in enumerate(curves):
        x, y = points[-1]
        row = round((1 - plot.height_of(y)) * (height - 1))
        column = max(0, min(cells - 1, round(view.share(x) * (cells - 1))))
        while (row, column) in taken and column:
            column -= 1
        if 0 <= row < height and (row, column) not in taken:
            taken.add((row, column))
            plot.rows[row][column] = (mark(number), at)
