"""The loss over the steps: training, validation, and the lines that a loss must beat.

The lines differ by their marks, not only by colour. A chart is at most two points a column (`decimate`), and is
painted at most twice a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.text import Text
from textual.color import Color, ColorParseError
from textual.timer import Timer
from textual_plotext import PlotextPlot

from tui_llm.display import truncate
from tui_llm.tui.format import compact
from tui_llm.tui.run_watch import Point, decimate

REPAINT = 0.5  # seconds
TRAIN, VALIDATION = "braille", "×"
LINES = "╌┈"  # ln V, the corpus's unigram entropy
NAMED_FROM = 30  # columns from which a horizontal line carries its name
SMALLEST = 1e-9  # where a logarithmic axis begins

Level = tuple[str, float]
"""A horizontal line: its name, and the loss that it stands at."""


@dataclass(frozen=True, slots=True)
class Curves:
    train: Sequence[Point] = ()
    validation: Sequence[Point] = ()
    levels: Sequence[Level] = field(default=())  # at most one for each of `LINES`


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` (2 or more) round numbers in low…high: multiples of 1, 2 or 5 times a power of ten. The two ends
    where no two round ones lie between."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20, 50):
        unit = factor * power
        first, last = math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9)
        if last - first + 1 <= most:
            break
    ticks = [round(i * unit, 12) for i in range(first, last + 1)]
    return ticks if len(ticks) >= 2 else [low, high]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers in low…high that suit a logarithmic axis (both above 0)."""
    for factors in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        ticks = [
            factor * 10.0**power
            for power in range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
            for factor in factors
            if low <= factor * 10.0**power <= high
        ]
        if len(ticks) <= most:
            break
    if len(ticks) > most:
        ticks = ticks[:: -(-len(ticks) // most)]
    return ticks if len(ticks) >= 2 else nice_ticks(low, high, most)


def _log10(value: float) -> float:
    return math.log10(max(value, SMALLEST))


def step_label(step: float) -> str:
    if step >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}k" if step >= 10_000 and step % 100 == 0 else f"{step:,.0f}"


class LossChart(PlotextPlot):
    """Shows `Curves`. `log_axis` makes the loss axis logarithmic."""

    DEFAULT_CSS = """
    LossChart { width: 1fr; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.theme = "textual-clear"  # no background of its own; the colours are taken from the app's theme
        self.curves = Curves()
        self.log_axis = False
        self._painted = -math.inf
        self._pending: Timer | None = None

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.refresh())

    def show(self, curves: Curves) -> None:
        """Shows `curves`, now or, where the last repaint was just now, half a second after it."""
        if curves == self.curves:
            return
        self.curves = curves
        wait = self._painted + REPAINT - time.monotonic()
        if wait <= 0:
            self._paint()
        elif self._pending is None:
            self._pending = self.set_timer(wait, self._paint)

    def _paint(self) -> None:
        self._painted, self._pending = time.monotonic(), None
        self.refresh()

    def toggle_log(self) -> bool:
        self.log_axis = not self.log_axis
        self.refresh()
        return self.log_axis

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _colour(self, name: str, otherwise: str = "foreground") -> tuple[int, int, int]:
        variables = self.app.theme_variables
        for key in (name, otherwise):
            try:
                return Color.parse(variables[key]).rgb
            except (KeyError, ColorParseError):
                continue
        return (128, 128, 128)

    def render(self) -> Text:
        width, height = self.size
        if width < 1 or height < 1:
            return Text()
        curves = self.curves
        if not any(math.isfinite(value) for _, value in [*curves.train, *curves.validation]):
            return Text(truncate("no step has been made yet", width), style="dim", no_wrap=True)
        legend = self._legend(width) if height >= 7 else None
        plot = self._plotted(width, height - (legend is not None))
        return Text("\n").join([legend, plot]) if legend is not None else plot

    def _legend(self, width: int) -> Text:
        curves, parts = self.curves, []
        if curves.train:
            parts.append(("⣀⡠", "training", curves.train[-1][1], self._colour("text-primary", "primary")))
        if curves.validation:
            value = curves.validation[-1][1]
            parts.append((VALIDATION, "validation", value, self._colour("text-warning", "warning")))
        if width < NAMED_FROM:
            grey = self._level_colour()
            parts += [(mark, name, v, grey) for mark, (name, v) in zip(LINES, curves.levels, strict=False)]
        text = Text(no_wrap=True)
        for mark, name, value, (red, green, blue) in parts:
            text.append(f"{mark} {name} {compact(value)}  ", style=f"rgb({red},{green},{blue})")
        text.append("log axis" if self.log_axis else "", style="dim")
        text.truncate(width, overflow="ellipsis")
        return text

    def _level_colour(self) -> tuple[int, int, int]:
        return Color(*self._colour("foreground")).blend(Color(*self._colour("surface")), 0.35).rgb

    def _plotted(self, width: int, height: int) -> Text:
        scale = _log10 if self.log_axis else float
        curves, plot = self.curves, self.plt
        points = [p for p in (*curves.train, *curves.validation) if math.isfinite(p[1])]
        levels = [level for level in curves.levels[: len(LINES)] if math.isfinite(level[1])]
        left, right = min(p[0] for p in points), max(p[0] for p in points)
        right = right if right > left else left + 1
        values = [v for _, v in points] + [v for _, v in levels]
        if self.log_axis:
            values = [max(v, SMALLEST) for v in values]
        low, high = min(values), max(values)
        if high - low < 1e-9 * max(1.0, abs(high)):  # all equal: some room around it
            low, high = low / 1.1 - (not self.log_axis) * 0.1, high * 1.1 + (not self.log_axis) * 0.1
        elif not self.log_axis:
            low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)

        plot.clear_figure()
        plot.plotsize(width, height)
        plot._set_size(width, height)  # what PlotextPlot.render does too: plotsize alone keeps to the terminal's size
        plot.theme("textual-clear")
        plot.xaxes(height >= 4, False)
        plot.yaxes(width >= 8, False)
        plot.xlim(left, right)
        plot.ylim(scale(low), scale(high))
        ticks = (log_ticks if self.log_axis else nice_ticks)(low, high, min(8, max(2, height // 2)))
        plot.yticks([scale(t) for t in ticks], [compact(t) for t in ticks] if width >= 16 else [""] * len(ticks))
        steps = [float(t) for t in nice_ticks(left, right, max(2, width // 14)) if t == int(t)]
        plot.xticks(*(([], []) if height < 5 else (steps, [step_label(t) for t in steps])))
        grey = self._level_colour()
        for mark, (_, value) in zip(LINES, levels, strict=False):
            plot.plot([left, right], [scale(value)] * 2, marker=mark, color=grey)
        self._draw(plot.plot, curves.train, scale, 2 * width, TRAIN, self._colour("text-primary", "primary"))
        self._draw(plot.scatter, curves.validation, scale, width // 2, VALIDATION,
                   self._colour("text-warning", "warning"))  # fmt: skip
        if width >= NAMED_FROM:
            for at, (name, value) in enumerate(levels):
                apart = abs(scale(value) - scale(levels[0][1])) / (scale(high) - scale(low)) * height
                if at == 0 or apart > 2:  # where two names would share a row, ln V's stays
                    plot.text(f" {name} = {value:.2f} ", right, scale(value), alignment="right", color=grey)
        text = Text.from_ansi(plot.build().rstrip("\n"))
        text.no_wrap = True
        return text

    @staticmethod
    def _draw(
        how: Callable[..., None],
        points: Sequence[Point],
        scale: Callable[[float], float],
        columns: int,
        marker: str,
        colour: tuple[int, int, int],
    ) -> None:
        points = decimate([p for p in points if math.isfinite(p[1])], max(1, columns))
        if points:
            how([p[0] for p in points], [scale(p[1]) for p in points], marker=marker, color=colour)
