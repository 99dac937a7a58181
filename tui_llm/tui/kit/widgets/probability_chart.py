"""Probabilities over the steps, from 0 to the largest, with vertical lines at the selected steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from tui_llm.common.display import truncate
from tui_llm.common.numbers import percent, plain
from tui_llm.common.ticks import log_ticks, nice_ticks
from tui_llm.training.run.curve import Point, decimate, within
from tui_llm.tui.kit.widgets.chart import RGB, SMALLEST, Chart, log10

MARKS = ("braille", "+", "o", "*")  # the lines differ by marker, not only by colour
SIGNS = ("⣀⡠", "+", "o", "*")  # the same markers, in the legend
COLOURS = ("primary", "success", "warning", "secondary")
HERE, MARKED = "│", "┊"
SCRUBBING = 0.1  # seconds between two repaints while the scrubber moves


@dataclass(frozen=True, slots=True)
class Named:
    """One line: its name (safe to show), its points, and its value at the selected step."""

    name: str
    points: Sequence[Point]
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Probabilities:
    lines: Sequence[Named] = ()  # at most one per marker
    first: int = 0  # the steps at both ends of the axis
    last: int = 1
    here: int | None = None
    marked: int | None = None
    nothing: str = ""  # shown if there are no lines


class ProbabilityChart(Chart):
    DEFAULT_CSS = """
    ProbabilityChart { width: 1fr; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.shown = Probabilities()
        self.log_axis = False

    def show(self, shown: Probabilities, *, now: bool = False) -> None:
        """Shows `shown` at the next repaint, which comes sooner (`SCRUBBING`) if a key asked for it (`now`)."""
        if shown != self.shown:
            self.shown = shown
            self.repaint_soon(*([SCRUBBING] if now else []))

    def toggle_log(self) -> None:
        self.log_axis = not self.log_axis
        self.refresh()

    def render(self) -> Text:
        width, height = self.size
        if width < 1 or height < 1:
            return Text()
        values = [value for line in self.shown.lines for _, value in line.points]
        if not values:
            return Text(truncate(self.shown.nothing, width), style="dim", no_wrap=True)
        legend = [self._legend(width)] if height >= 5 else []
        return Text("\n").join([*legend, self._plotted(width, height - len(legend), values)])

    def _lines(self) -> list[tuple[str, str, RGB, Named]]:
        colours = [self._colour(f"text-{name}", name) for name in COLOURS]
        return list(zip(MARKS, SIGNS, colours, self.shown.lines, strict=False))

    def _legend(self, width: int) -> Text:
        text = Text(no_wrap=True)
        for _, sign, (red, green, blue), line in self._lines():
            value = "" if line.value is None else f" {percent(line.value)}"
            text.append(f"{sign} {line.name}{value}  ", style=f"rgb({red},{green},{blue})")
        if self.log_axis:
            text.append("log axis", style="dim")
        text.rstrip()
        text.truncate(width, overflow="ellipsis")
        return text

    def _plotted(self, width: int, height: int, values: Sequence[float]) -> Text:
        shown = self.shown
        left, right = float(shown.first), float(max(shown.last, shown.first + 1))
        scale = log10 if self.log_axis else float
        smallest = min((value for value in values if value > SMALLEST), default=SMALLEST)
        low, high = (smallest / 1.1, max(values) * 1.1) if self.log_axis else (0.0, max(values) * 1.05)
        high = max(high, low * 1.2, SMALLEST)
        plot = self.blank(width, height, left, right)
        plot.ylim(scale(low), scale(high))
        ticks = (log_ticks if self.log_axis else nice_ticks)(low, high, min(6, max(2, height // 2)))
        plot.yticks([scale(t) for t in ticks], [tick(t) for t in ticks] if width >= 16 else [""] * len(ticks))
        grey, strong = self._faint(self._colour("foreground"), 0.35), self._colour("text-accent", "accent")
        for mark, step, colour in ((MARKED, shown.marked, grey), (HERE, shown.here, strong)):
            if step is not None:
                plot.plot([float(step)] * 2, [scale(low), scale(high)], marker=mark, color=colour)
        for mark, _, colour, line in reversed(self._lines()):  # the likeliest last, drawn over the others
            points = decimate(within(line.points, left, right), max(1, width))
            if points:
                draw = plot.plot if len(points) > 1 else plot.scatter
                single = mark if len(points) > 1 or mark != "braille" else "•"
                draw([p[0] for p in points], [scale(p[1]) for p in points], marker=single, color=colour)
        return self.built()


def tick(value: float) -> str:
    """The label of a tick, a round number: `20 %`, where `common.numbers.percent` gives 20.0 %; and `0.00002 %`, so
    that each label is different."""
    return f"{plain(100 * value, 3)} %"
