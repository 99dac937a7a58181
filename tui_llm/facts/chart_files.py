"""A `ChartData` as text of a file: CSV and SVG."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from xml.sax.saxutils import escape

from tui_llm.common.display import visible
from tui_llm.common.ticks import log_ticks, nice_ticks
from tui_llm.facts.chart import ChartData, ChartLine

FORMATS = ("svg", "png", "csv")
WIDTH, HEIGHT = 960, 540  # of an SVG, in pixels
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 48, 56  # margins
LEGEND = 20  # height of a line of the legend
ACROSS = 4  # entries of the legend in a line
# Okabe and Ito's colours, which stay apart for the colour-blind, with black for their yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # beyond the last colour, lines differ by their dashes


def csv_text(chart: ChartData) -> str:
    """RFC 4180, with line feeds: a header, then a row for every x."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(chart.rows())
    return out.getvalue()


def svg_text(chart: ChartData) -> str:
    """A picture of 960 × 540 pixels on white, with axes, ticks and a legend."""
    legend = [(line.name, style) for line, style in zip(chart.lines, _styles(), strict=False) if line.name]
    rows = -(-len(legend) // ACROSS)
    top = TOP + LEGEND * rows
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}' "
        "font-family='sans-serif' font-size='13'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        _text(LEFT, 28, chart.title, "font-weight='bold'"),
    ]
    for at, (name, style) in enumerate(legend):
        x = LEFT + at % ACROSS * (WIDTH - LEFT - RIGHT) / ACROSS
        y = TOP + at // ACROSS * LEGEND
        parts += [f"<path d='M{x:g} {y - 4} h24' {style}/>", _text(x + 30, y, name[:28])]
    points = list(chart.shown())
    if not points:
        return "\n".join([*parts, _text(LEFT, top + 40, "no values"), "</svg>", ""])
    x_axis = _Axis([x for x, _ in points], LEFT, WIDTH - RIGHT, chart.log_x)
    levels = [value for _, value in chart.levels if math.isfinite(value) and (value > 0 or not chart.log_y)]
    y_axis = _Axis([*(y for _, y in points), *levels], HEIGHT - BOTTOM, top, chart.log_y)
    parts += _frame(chart, x_axis, y_axis, top)
    for line, style in zip(chart.lines, _styles(), strict=False):
        parts += _line(line, style, x_axis, y_axis)
    return "\n".join([*parts, "</svg>", ""])


class _Axis:
    """Maps values to pixels."""

    def __init__(self, values: list[float], start: float, end: float, log: bool) -> None:
        self.low, self.high, self.log = min(values), max(values), log
        if self.high == self.low:
            pad = abs(self.low) * 0.1 or 1.0
            self.low, self.high = (self.low / 1.1, self.high * 1.1) if log else (self.low - pad, self.high + pad)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.log else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.start + share * (self.end - self.start)

    def shows(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.log)

    def ticks(self, most: int) -> list[float]:
        return (log_ticks if self.log else nice_ticks)(self.low, self.high, most)


def _styles() -> Iterable[str]:
    for dash in (*DASHES, *DASHES):
        for colour in COLOURS:
            yield f"stroke='{colour}' fill='none' stroke-width='1.5'" + (f" stroke-dasharray='{dash}'" if dash else "")


def _frame(chart: ChartData, x_axis: _Axis, y_axis: _Axis, top: float) -> Iterable[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in y_axis.ticks(8):
        y = y_axis(value)
        yield f"<path d='M{LEFT} {y:.1f} H{right}' stroke='#ddd'/>"
        yield _text(LEFT - 8, y + 4, f"{value:.4g}".replace("-", "−"), "text-anchor='end'")
    for value in x_axis.ticks(9):
        x = x_axis(value)
        yield f"<path d='M{x:.1f} {top} V{bottom}' stroke='#eee'/>"
        yield _text(x, bottom + 18, f"{value:,.6g}".replace("-", "−"), "text-anchor='middle'")
    for name, value in chart.levels:
        if y_axis.shows(value):
            y = y_axis(value)
            yield f"<path d='M{LEFT} {y:.1f} H{right}' stroke='#888' stroke-dasharray='4 4'/>"
            yield _text(right - 4, y - 4, f"{name} = {value:.4g}", "text-anchor='end' fill='#555'")
    yield f"<path d='M{LEFT} {top} V{bottom} H{right}' stroke='black' fill='none'/>"
    log = " (logarithmic)" if chart.log_x else ""
    yield _text((LEFT + right) / 2, HEIGHT - 14, chart.x_title + log, "text-anchor='middle'")


def _line(line: ChartLine, style: str, x_axis: _Axis, y_axis: _Axis) -> Iterable[str]:
    """A path that breaks where a value can't be shown; single points, and marks, are dots."""
    stretches: list[list[str]] = [[]]
    for x, y in line.points:
        if x_axis.shows(x) and y_axis.shows(y):
            stretches[-1].append(f"{x_axis(x):.1f} {y_axis(y):.1f}")
        elif stretches[-1]:
            stretches.append([])
    colour = style.split("'")[1]
    for stretch in stretches:
        if line.marks or len(stretch) == 1:
            for point in stretch:
                across, down = point.split()
                yield f"<circle cx='{across}' cy='{down}' r='3' fill='{colour}'/>"
        elif stretch:
            yield f"<path d='M{' L'.join(stretch)}' {style}/>"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f"<text x='{x:g}' y='{y:g}' {more}>{escape(visible(text))}</text>"
