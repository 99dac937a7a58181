"""The loss over the steps: training, validation, moving averages, other runs, and the baselines for a loss.

The lines differ by marker, not only by colour. Each has at most two points per column (`decimate`), and the chart is
repainted at most twice a second.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from tui_llm.common.display import truncate, visible
from tui_llm.common.ticks import log_ticks, nice_ticks
from tui_llm.training.run.curve import Average, ParentCurve, Point, at_or_before, decimate, spikes, within
from tui_llm.tui.kit.format import compact
from tui_llm.tui.kit.widgets.chart import RGB, SMALLEST, Chart, log10

TRAIN, VALIDATION, AVERAGE = "braille", "×", "hd"
END = "┃"  # the band of the end's loss, at the right edge
LINES = "╌┈─═┉"  # ln V, the corpus's unigram and bigram entropies, the known floor, a shipped model
OTHERS = "+o*#"  # other runs in the same chart
OTHERS_COLOURS = ("success", "error", "secondary", "accent")
LEGEND_FROM = 5  # rows
CURSOR = "│"
NAMED_FROM = 30  # columns from which a horizontal line is labelled
ZOOMS = ((1.0, ""), (0.5, "last half"), (0.1, "last tenth"))

Level = tuple[str, float]
"""A horizontal line: its name, and the loss that it stands at."""


@dataclass(frozen=True, slots=True)
class Other:
    """Another run's training loss. Its `averages` cover the same fractions of its steps as this run's."""

    name: str
    train: Sequence[Point] = ()
    averages: Sequence[Average] = ()


@dataclass(frozen=True, slots=True)
class Curves:
    """`title` and `meaning` say what is shown, where that is not the loss of a text; `log` whether a logarithmic axis can
    show it."""

    train: Sequence[Point] = ()
    validation: Sequence[Point] = ()
    levels: Sequence[Level] = field(default=())  # at most one per marker in `LINES`
    averages: Sequence[Average] = ()  # of `train`
    others: Sequence[Other] = ()  # at most one per marker in `OTHERS`
    names: tuple[str, str] = ("training", "validation")
    title: str = ""
    meaning: str = ""
    log: bool = True
    end: tuple[float, float] | None = None  # between these losses the run will end
    parent: ParentCurve | None = None

    def own_lines(self) -> Sequence[Sequence[Point]]:
        """The run's lines of points: training, validation, its parent's."""
        return (self.train, self.validation, *((self.parent.train,) if self.parent else ()))

    def lines(self) -> Sequence[Sequence[Point]]:
        """All lines of points: the run's, and those of other runs."""
        return (*self.own_lines(), *(other.train for other in self.others))

    def training(self) -> list[Point]:
        """The training loss, after that of the parent if the run is a branch."""
        return [*(self.parent.train if self.parent else ()), *self.train]


class LossChart(Chart):
    """Shows `Curves`; keys change the view. `log_axis` makes the loss axis logarithmic, `smoothing` selects one of the
    averages (0: none), `zoomed` and `panned` select the steps. `cursor` is the step that is read; None: the newest."""

    DEFAULT_CSS = """
    LossChart { width: 1fr; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.curves = Curves()
        self.log_axis = False
        self.smoothing = 0
        self.zoomed = 0  # index into ZOOMS
        self.panned = 0  # how many half ranges back from the newest step
        self.cursor: int | None = None

    def show(self, curves: Curves) -> None:
        """Shows `curves` now or, if the last repaint was less than half a second ago, half a second after it."""
        if curves == self.curves:
            return
        self.curves = curves
        self.repaint_soon()

    # ── the view ─────────────────────────────────────────────────────────────────────────────────────────────────

    def toggle_log(self) -> None:
        self.log_axis = not self.log_axis
        self.refresh()

    def smooth(self) -> None:
        """Selects the next wider average; after the widest, none."""
        self.smoothing = (self.smoothing + 1) % (len(self.curves.averages) + 1)
        self.refresh()

    def show_all_steps(self) -> None:
        """Forgets zoom and cursor: another run is shown."""
        self.zoomed = self.panned = 0
        self.cursor = None
        self.refresh()

    def zoom(self, direction: int) -> None:
        """Shows fewer steps (+1) or more (−1), up to the newest one."""
        self.zoomed = min(len(ZOOMS) - 1, max(0, self.zoomed + direction))
        self.panned = 0
        self.refresh()

    def pan(self, direction: int) -> None:
        """Moves the range by half its width, forward (+1) or back (−1), as far as there are steps."""
        furthest = math.ceil(2 / ZOOMS[self.zoomed][0]) - 2
        self.panned = min(furthest, max(0, self.panned - direction))
        self.refresh()

    # ── the reading cursor ───────────────────────────────────────────────────────────────────────────────────────

    def move_cursor(self, amount: int) -> None:
        """Moves the cursor by so many points of the training loss; past the newest one it is gone."""
        points = self.curves.training()
        if not points:
            return
        steps = [step for step, _ in points]
        at = len(steps) if self.cursor is None else bisect_left(steps, self.cursor)
        at = max(0, at + amount)
        self._read(steps[at] if at < len(steps) else None)

    def next_spike(self, amount: int) -> bool:
        """Moves the cursor to the largest spike in sight, then to the next ones (+1), or back (−1). Returns False if there is
        none."""
        points = self.curves.training()
        found = [step for step, _ in spikes(within(points, *self.range()) if points else ())]
        if not found:
            return False
        at = found.index(self.cursor) + amount if self.cursor in found else 0
        self._read(found[max(0, min(at, len(found) - 1))])
        return True

    def _read(self, step: int | None) -> None:
        self.cursor = step
        if step is not None:  # bring it into sight
            furthest = math.ceil(2 / ZOOMS[self.zoomed][0]) - 2
            while step < self.range()[0] and self.panned < furthest:
                self.panned += 1
            while step > self.range()[1] and self.panned > 0:
                self.panned -= 1
        self.refresh()

    def _value(self, points: Sequence[Point]) -> str:
        """The curve's newest value, or that under the cursor, with its step where that is an earlier one."""
        if self.cursor is None:
            return compact(points[-1][1])
        found = at_or_before(points, self.cursor)
        if found is None:
            return "–"
        late = "" if found[0] == self.cursor else f" at {found[0]:,}"
        return f"{found[1]:.4f}{late}"

    def _average(self, averages: Sequence[Average]) -> Average | None:
        return averages[self.smoothing - 1] if 0 < self.smoothing <= len(averages) else None

    def range(self) -> tuple[float, float]:
        """The first and the last step in sight. A zoomed chart ends with the run's newest step, also beside a longer run."""
        own = self.curves.own_lines()
        shown = own if self.zoomed and any(own) else self.curves.lines()
        steps = [line[end][0] for line in shown if line for end in (0, -1)]
        first, last = min(steps), max(steps)
        span = (last - first) * ZOOMS[self.zoomed][0]
        left = max(float(first), last - span - self.panned * span / 2)
        return left, left + span if span > 0 else left + 1

    @property
    def logarithmic(self) -> bool:
        """Whether the axis is: it was asked for, and the curves allow it."""
        return self.log_axis and self.curves.log

    def _scale(self) -> Callable[[float], float]:
        return log10 if self.logarithmic else float

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def render(self) -> Text:
        width, height = self.size
        if width < 1 or height < 1:
            return Text()
        curves = self.curves
        if not any(math.isfinite(value) for line in curves.lines() for _, value in line):
            return Text(truncate("no steps yet", width), style="dim", no_wrap=True)
        left, right = self.range()
        axis = self._axis(left, right)
        legend = self._legend(width, height, left, right, axis) if height >= LEGEND_FROM else []
        if axis is None:
            return Text("\n").join(
                [
                    *legend,
                    Text(truncate(f"no {curves.title or 'loss'} was recorded in these steps", width), style="dim"),
                ]
            )
        return Text("\n").join([*legend, self._plotted(width, height - len(legend), left, right, axis)])

    def _axis(self, left: float, right: float) -> tuple[float, float] | None:
        """The lowest and the highest loss in sight, with a margin; None if there is none."""
        values = [value for line in self.curves.lines() for _, value in within(line, left, right)]
        if not values:
            return None
        if not self.zoomed:  # when zoomed in, a distant level would flatten the curves
            values += [value for _, value in self._levels() if math.isfinite(value)]
            values += self.curves.end or ()
        if self.logarithmic:
            values = [max(v, SMALLEST) for v in values]
        low, high = min(values), max(values)
        if high - low < 1e-9 * max(1.0, abs(high)):  # all equal: add a margin
            return low / 1.1 - (not self.logarithmic) * 0.1, high * 1.1 + (not self.logarithmic) * 0.1
        room = 0.0 if self.logarithmic else 0.04 * (high - low)
        return low - room, high + room

    def _levels(self) -> Sequence[Level]:
        return self.curves.levels[: len(LINES)]

    def _beside(self, width: int, height: int, axis: tuple[float, float]) -> list[Level]:
        """The levels that are labelled on their lines; if two would share a row, the first."""
        scale, (low, high) = self._scale(), axis
        found: list[Level] = []
        for name, value in self._levels():
            apart = [abs(scale(value) - scale(v)) / (scale(high) - scale(low)) * height for _, v in found]
            if width >= NAMED_FROM and low <= value <= high and all(rows > 2 for rows in apart):
                found.append((name, value))
        return found

    def _legend(
        self, width: int, height: int, left: float, right: float, axis: tuple[float, float] | None
    ) -> list[Text]:
        """The legend, on one line or, if there is room, two or three; with short names if the full ones would be
        cut."""
        full = self._legend_of(self.curves.names, width, height, left, right, axis)
        if self.curves.title or not any(row.plain.endswith("…") for row in full):
            return full
        return self._legend_of(("train", "val"), width, height, left, right, axis)

    def _legend_of(
        self,
        names: tuple[str, str],
        width: int,
        height: int,
        left: float,
        right: float,
        axis: tuple[float, float] | None,
    ) -> list[Text]:
        curves = self.curves
        parts: list[tuple[str, str, Sequence[Point], RGB]] = []
        own = (
            not curves.parent or self.cursor is None or self.cursor > curves.parent.step
        )  # the run's or its parent's step
        if curves.parent and curves.parent.train and (not own or self.cursor is None):
            name = f"{truncate(visible(curves.parent.name), 24)} to step {curves.parent.step:,}"
            parts.append(("⣀⡠", name, curves.parent.train, self._faint(self._train_colour(), 0.55)))
        if curves.train and own:
            parts.append(("⣀⡠", names[0], curves.train, self._train_colour()))
        if curves.validation:
            parts.append((VALIDATION, names[1], curves.validation, self._colour("text-warning", "warning")))
        average = self._average(curves.averages)
        if average is not None and average.points:
            name = f"mean of {average.window:,} steps ({100 * average.share:g} %)"
            parts.append(("▀▄", name, average.points, self._train_colour()))
        for mark, colour, other in self._others():
            line = self._other_line(other)
            parts += [(mark, truncate(visible(other.name), 24), line, colour)] if line else []
        words = [
            (f"{mark} {name} {self._value(line)}", f"rgb({red},{green},{blue})")
            for mark, name, line, (red, green, blue) in parts
        ]
        if curves.end is not None:
            words.append((f"{END} end {compact(curves.end[0])} to {compact(curves.end[1])}", "bold"))
        if self.cursor is not None:
            words.insert(0, (f"{CURSOR} step {self.cursor:,}", "bold"))
        if self.zoomed:
            named = ZOOMS[self.zoomed][1] if not self.panned else f"steps {left:,.0f} to {right:,.0f}"
            words.insert(0, (named, "bold"))
        words = ([(curves.title, "bold")] if curves.title else []) + words
        words += [("log axis" if curves.log else "no log axis: not all above 0", "dim")] if self.log_axis else []
        red, green, blue = self._faint(self._colour("foreground"), 0.35)
        beside = {name for name, _ in self._beside(width, height, axis)} if axis is not None else set()
        for mark, (name, value) in zip(LINES, self._levels(), strict=False):
            away = "" if axis is None or axis[0] <= value <= axis[1] else " ↑" if value > axis[1] else " ↓"
            if name not in beside:
                words.append((f"{mark} {name} {compact(value)}{away}", f"rgb({red},{green},{blue})"))
        words += [(curves.meaning, "dim")] if curves.meaning else []
        lines, most = [Text(no_wrap=True)], (1 if height < 8 else 2 if height < 20 else 3) + (self.cursor is not None)
        for word, style in words:
            if lines[-1].plain and lines[-1].cell_len + len(word) > width and len(lines) < most:
                lines.append(Text(no_wrap=True))
            lines[-1].append(f"{word}  ", style=style)
        for row in lines:
            row.rstrip()
            row.truncate(width, overflow="ellipsis")
        return lines

    def _train_colour(self) -> RGB:
        return self._colour("text-primary", "primary")

    def _others(self) -> list[tuple[str, RGB, Other]]:
        """Marker, colour and curve of each other run."""
        colours = [self._colour(f"text-{name}", name) for name in OTHERS_COLOURS]
        return list(zip(OTHERS, colours, self.curves.others, strict=False))

    def _other_line(self, other: Other) -> Sequence[Point]:
        average = self._average(other.averages)
        return average.points if average is not None else other.train

    def _plotted(self, width: int, height: int, left: float, right: float, axis: tuple[float, float]) -> Text:
        scale, curves, (low, high) = self._scale(), self.curves, axis
        plot = self.blank(width, height, left, right)
        plot.ylim(scale(low), scale(high))
        ticks = (log_ticks if self.logarithmic else nice_ticks)(low, high, min(8, max(2, height // 2)))
        plot.yticks([scale(t) for t in ticks], [compact(t) for t in ticks] if width >= 16 else [""] * len(ticks))
        grey = self._faint(self._colour("foreground"), 0.35)
        levels = [(m, *level) for m, level in zip(LINES, self._levels(), strict=False) if low <= level[1] <= high]
        for mark, _, value in levels:
            plot.plot([left, right], [scale(value)] * 2, marker=mark, color=grey)

        def draw(how: Callable[..., None], points: Sequence[Point], columns: int, marker: str, colour: RGB) -> None:
            points = decimate(within(points, left, right), max(1, columns))
            if points:
                how([p[0] for p in points], [scale(p[1]) for p in points], marker=marker, color=colour)

        average, blue = self._average(curves.averages), self._train_colour()
        if curves.parent:
            draw(plot.plot, curves.parent.train, 2 * width, TRAIN, self._faint(blue, 0.55))
            if left <= curves.parent.step <= right:
                plot.plot([curves.parent.step] * 2, [scale(low), scale(high)], marker="┊", color=grey)
        draw(plot.plot, curves.train, 2 * width, TRAIN, self._faint(blue, 0.55) if average else blue)
        if average is not None:
            draw(plot.plot, average.points, 2 * width, AVERAGE, blue)
        for mark, colour, other in self._others():
            draw(plot.scatter, self._other_line(other), width // 3, mark, colour)
        draw(plot.scatter, curves.validation, width // 2, VALIDATION, self._colour("text-warning", "warning"))
        if curves.end is not None and curves.end[0] <= high and curves.end[1] >= low:
            within_axis = [scale(min(high, max(low, loss))) for loss in curves.end]
            plot.plot([right, right], within_axis, marker=END, color=blue)
        if self.cursor is not None and left <= self.cursor <= right:
            plot.plot([self.cursor] * 2, [scale(low), scale(high)], marker=CURSOR, color=self._colour("foreground"))
            point = at_or_before(curves.training(), self.cursor)
            if point is not None and low <= point[1] <= high:
                plot.scatter([point[0]], [scale(point[1])], marker="◆", color=self._colour("foreground"))
        for name, value in self._beside(width, height, axis):
            plot.text(f" {name} = {value:.2f} ", right, scale(value), alignment="right", color=grey)
        return self.built()
