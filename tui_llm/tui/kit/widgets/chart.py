"""The base class of the charts over a run's steps: the theme's colours, few repaints, an axis of steps."""

from __future__ import annotations

import math
import time
from typing import Any

from rich.text import Text
from textual.color import Color
from textual.timer import Timer
from textual_plotext import PlotextPlot

from tui_llm.common.ticks import nice_ticks, step_label
from tui_llm.tui.kit.themes import theme_rgb

REPAINT = 0.5  # seconds
SMALLEST = 1e-9  # the smallest value on a logarithmic axis

RGB = tuple[int, int, int]


def log10(value: float) -> float:
    return math.log10(max(value, SMALLEST))


class Chart(PlotextPlot):
    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.theme = "textual-clear"  # no background of its own; the colours are taken from the app's theme
        self._painted = -math.inf
        self._pending: Timer | None = None

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.refresh())

    def repaint_soon(self, apart: float = REPAINT) -> None:
        """Repaints now or, if the last repaint was less than `apart` seconds ago, `apart` seconds after it."""
        wait = self._painted + apart - time.monotonic()
        if wait <= 0:
            self._paint()
        elif self._pending is None:
            self._pending = self.set_timer(wait, self._paint)

    def _paint(self) -> None:
        if self._pending is not None:
            self._pending.stop()
        self._painted, self._pending = time.monotonic(), None
        self.refresh()

    def _colour(self, name: str, otherwise: str = "foreground") -> RGB:
        return theme_rgb(self.app.theme_variables, name, otherwise)

    def _faint(self, colour: RGB, how: float) -> RGB:
        return Color(*colour).blend(Color(*self._colour("surface")), how).rgb

    def blank(self, width: int, height: int, left: float, right: float) -> Any:
        """An empty plot of `width` × `height` cells, with the steps from `left` to `right` on its x axis."""
        plot = self.plt
        plot.clear_figure()
        plot.plotsize(width, height)
        plot._set_size(width, height)  # as PlotextPlot.render does: plotsize alone is limited to the terminal's size
        plot.theme("textual-clear")
        plot.xaxes(height >= 4, False)
        plot.yaxes(width >= 8, False)
        plot.xlim(left, right)
        steps = [float(t) for t in nice_ticks(left, right, max(2, width // 14)) if t == int(t)]
        plot.xticks(*(([], []) if height < 5 else (steps, [step_label(t) for t in steps])))
        return plot

    def built(self) -> Text:
        """The current plot as text."""
        text = Text.from_ansi(self.plt.build().rstrip("\n"))
        text.no_wrap = True
        return text
