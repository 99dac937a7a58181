"""A chart of the grid as rows of cells: title, plot with its axis, the values at the cursor. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tui_llm.common.ticks import log_ticks, nice_ticks
from tui_llm.tui.kit.raster import Cell, Raster

GUTTER = 9  # cells of the y axis
MARKS = "•+o*#"  # of the runs in charts of several runs; …
NUMBERS = "0123456789abcdefghijklmnopqrstuvwxyz"  # … of more runs than that, as of all rungs of a ladder: one cell each
SMALLEST = 1e-300

Curve = tuple[str, Sequence[tuple[float, float]], bool]
"""A name, points (x, y), and whether they are drawn as marks."""


def mark(number: int, count: int) -> str:
    """The sign of run `number` of `count`."""
    return MARKS[number] if count <= len(MARKS) else NUMBERS[number % len(NUMBERS)]


@dataclass(frozen=True, slots=True)
class View:
    """The part of the x axis that is shown, and whether the axes are logarithmic."""

    left: float
    right: float
    log_x: bool = False
    log_y: bool = False

    def share(self, x: float) -> float:
        """Where x lies between the ends: 0 is left, 1 right; NaN where a logarithmic axis can't show it."""
        if self.log_x:
            if x <= 0 or self.left <= 0:
                return math.nan
            return (math.log(x) - math.log(self.left)) / (math.log(self.right) - math.log(self.left))
        return (x - self.left) / (self.right - self.left)

    def at(self, share: float) -> float:
        """The inverse of `share`."""
        if self.log_x and self.left > 0:
            return math.exp(math.log(self.left) + share * (math.log(self.right) - math.log(self.left)))
        return self.left + share * (self.right - self.left)


@dataclass(frozen=True, slots=True)
class Plot:
    """The drawn cells: `rows` of the plot, `labels` of the y axis for each row, `ticks` of the x axis (share, value)."""

    rows: list[list[Cell]]
    labels: list[str]
    log_y: bool = False  # whether the axis is: not all charts can
    scale: tuple[float, float] = (0.0, 1.0)
    empty: bool = False
    ticks: list[tuple[float, float]] = field(default_factory=list)

    def height_of(self, value: float) -> float:
        """Where a value lies between the ends of the y axis: 0 is the bottom."""
        low, high = self.scale
        if self.log_y:
            return (math.log(value) - low) / (high - low) if value > 0 else math.nan
        return (value - low) / (high - low)


def drawn(curves: Sequence[Curve], view: View, width: int, height: int, label: Callable[[float], str]) -> Plot:
    """Draws the curves into `width` × `height` cells; curve n has colour n. A y axis that can't be logarithmic, as values
    are 0 or less, is linear."""
    inside = [[(view.share(x), y) for x, y in points if math.isfinite(y)] for _, points, _ in curves]
    values = [y for points in inside for share, y in points if -1e-9 <= share <= 1 + 1e-9]
    if not values or width < 1 or height < 1:
        return Plot([[(" ", -1)] * max(0, width) for _ in range(max(0, height))], [""] * max(0, height), empty=True)
    log = view.log_y and min(values) > 0
    place: Callable[[float], float] = (lambda y: math.log(max(y, SMALLEST))) if log else float
    low, high = place(min(values)), place(max(values))
    if high - low <= 1e-9 * max(1e-12, abs(high)):
        pad = 0.1 if log else abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raster = Raster(width, height)
    for number, ((_, _, marks), points) in enumerate(zip(curves, inside, strict=True)):
        scaled = [(share, (place(y) - low) / (high - low)) for share, y in points]
        if marks or len(scaled) == 1:
            for share, y in scaled:
                raster.sign(share, y, "×" if marks else "•", number)
        else:
            raster.line(scaled, number)
    return Plot(raster.rows(), _labels(low, high, log, height, label), log, (low, high))


def _labels(low: float, high: float, log: bool, height: int, label: Callable[[float], str]) -> list[str]:
    """The labels of the y axis, one a row, most of them empty."""
    rows = [""] * height
    bottom, top = (math.exp(low), math.exp(high)) if log else (low, high)
    ticks = (log_ticks if log else nice_ticks)(bottom, top, max(2, height // 2))
    for tick in ticks:
        share = ((math.log(tick) if log else tick) - low) / (high - low)
        row = round((1 - share) * (height - 1))
        if 0 <= row < height and not rows[row]:
            rows[row] = label(tick)
    if sum(map(bool, rows)) < 2:
        rows[0], rows[-1] = label(top), label(bottom)
    return rows


def x_ticks(view: View, width: int, label: Callable[[float], str]) -> str:
    """A line of `width` cells with labels of the x axis."""
    line = [" "] * width
    most = max(2, width // 14)
    free = 0
    for tick in (log_ticks if view.log_x and view.left > 0 else nice_ticks)(view.left, view.right, most):
        text = label(tick)
        at = min(max(0, round(view.share(tick) * (width - 1)) - len(text) // 2), width - len(text))
        if at >= free and at + len(text) <= width:
            line[at : at + len(text)] = text
            free = at + len(text) + 1
    return "".join(line)
