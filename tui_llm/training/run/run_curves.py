"""The curves of a run, for the screen of curves and for export: metrics.jsonl and matrices.jsonl, in bounded memory.

Does not import torch; numpy only where matrices are read.
"""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tui_llm.common.errors import UserError
from tui_llm.training.run.curve import Envelope, Point
from tui_llm.training.run.matrix_statistics import KINDS, MatrixStatistics, MatrixStatisticsTail
from tui_llm.training.run.metric_at import metric_at
from tui_llm.training.run.metrics import Metric, MetricsTail
from tui_llm.training.run.quantities import loss_meaning, quantities
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRETRAINING, TrainingSettings
from tui_llm.training.run.snapshot import CHUNK, sampled_metrics, unreadable
from tui_llm.training.run.status import Status, number

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MOST_ROWS = 4096  # lines of matrices.jsonl that are kept; of more, every second one is dropped
MOST_COLUMNS = 1 << 15  # numbers in a line
DRAWN = 256  # groups of neighbouring lines, of each of which the lowest and highest value are drawn
MOST_TIMES = 4096  # steps whose time is kept
PAUSE = 60.0  # seconds between two consecutive steps from which they count as a pause, if they are also …
PAUSE_TIMES = 50  # … so many times the mean before


@dataclass(frozen=True, slots=True)
class CurveInfo:
    """One chart: its key, its title, and the unit or formula of its values in a few words."""

    key: str
    title: str
    meaning: str
    sparse: bool = False  # not of every step: where there is no value, the last one before counts


def _losses(settings: TrainingSettings) -> tuple[CurveInfo, CurveInfo]:
    what = loss_meaning(settings)
    return (
        CurveInfo("loss", "loss", f"of the batch, before the update; {what}"),
        CurveInfo("val_loss", "validation loss", f"of the held-out rows, after the update; {what}", sparse=True),
    )


RUN_CURVES = (
    *_losses(TrainingSettings()),
    CurveInfo("row_loss", "largest row loss", "of the batch's rows, the largest mean loss; nats per token"),
    CurveInfo("lr", "learning rate", "of the step"),
    CurveInfo("grad_norm", "gradient norm", "L2 norm of the whole gradient, before clipping"),
    CurveInfo("tokens_per_second", "tokens/s", "of the step, without evaluations"),
    CurveInfo(
        "memory_bytes",
        "memory",
        "of the worker's process, with Python and torch; on CUDA the peak of its tensors; bytes",
        sparse=True,
    ),
)
LAYERS = (
    CurveInfo("gradient", "gradient norm by layer", "of all weights of a block; a line a layer", sparse=True),
    CurveInfo("activation", "activation scale", "RMS of the block's output; a line a layer", sparse=True),
)
MATRICES = tuple(
    CurveInfo(f"{name}.{kind}", f"{words}, {title}", meaning, sparse=True)
    for name, words, meaning in (
        ("update", "update ÷ weight", "‖ΔW‖ ÷ ‖W‖ of the step"),
        ("gradient", "gradient norm", "L2 norm, before clipping"),
    )
    for kind, title in KINDS.items()
)


def infos(settings: TrainingSettings) -> tuple[CurveInfo, ...]:
    """The charts of a run with those settings, in their order."""
    names: dict[str, CurveInfo] = {}
    for quantity in quantities(settings):
        for name, sparse in ((quantity.line, False), (quantity.marks, quantity.marks.startswith("val_"))):
            names.setdefault(name, CurveInfo(name, name.replace("_", " "), "", sparse))
    own = {info.key: info for info in RUN_CURVES} | {info.key: info for info in _losses(settings)}
    run_curves = [info for info in own.values() if settings.objective == PRETRAINING or info.key != "row_loss"]
    return (*run_curves, *(info for key, info in names.items() if key not in own), *LAYERS, *MATRICES)


@dataclass(frozen=True, slots=True)
class CurveLine:
    """`layer` is None where a chart has one line. Points (step, value) in the order of steps."""

    layer: int | None
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds of training up to some steps, without pauses, in the order of steps."""

    steps: Sequence[float] = ()
    seconds: Sequence[float] = ()

    def at(self, step: float) -> float:
        """Seconds of training up to `step`, interpolated; NaN without any time."""
        return _interpolated(step, self.steps, self.seconds)

    def step(self, seconds: float) -> float:
        """The inverse of `at`."""
        return _interpolated(seconds, self.seconds, self.steps)


def _interpolated(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    if not xs:
        return math.nan
    at = bisect_right(xs, x)
    if at == 0 or at == len(xs):
        return float(ys[min(at, len(xs) - 1)])
    left, right = xs[at - 1], xs[at]
    return float(ys[at - 1] + (ys[at] - ys[at - 1]) * (x - left) / (right - left))


class ClockReader:
    """Adds up the times of metrics, in bounded memory."""

    def __init__(self) -> None:
        self._steps, self._seconds = array("d"), array("d")
        self._apart = 1  # steps between two that are kept
        self._last: Metric | None = None
        self._total, self._counted = 0.0, 0

    def add(self, metric: Metric) -> None:
        last, self._last = self._last, metric
        if not (math.isfinite(metric.time) and metric.time > 0):
            return
        if last is not None and metric.step > last.step and metric.time > last.time > 0:
            gap, steps = metric.time - last.time, metric.step - last.step
            usual = self._total / self._counted if self._counted else gap / steps
            if gap / steps <= max(PAUSE, PAUSE_TIMES * usual):
                self._total, self._counted = self._total + gap, self._counted + steps
            else:
                self._total, self._counted = self._total + usual * steps, self._counted + steps
        if not self._steps or metric.step >= self._steps[-1] + self._apart:
            self._steps.append(metric.step)
            self._seconds.append(self._total)
        if len(self._steps) > MOST_TIMES:
            self._apart *= 2
            self._steps, self._seconds = self._steps[::2], self._seconds[::2]

    def clock(self) -> Clock:
        steps, seconds = self._steps[:], self._seconds[:]
        if self._last is not None and steps and self._last.step > steps[-1]:
            steps.append(self._last.step)
            seconds.append(self._total)
        return Clock(steps, seconds)


class MatrixTable:
    """The lines of matrices.jsonl as rows of 32-bit floats, a column for each (statistic, layer)."""

    def __init__(self) -> None:
        self.columns: dict[tuple[str, int], int] = {}
        self.steps = array("q")
        self._rows: list[array[float]] = []
        self._apart = 1
        self._seen = 0

    def add(self, one: MatrixStatistics) -> None:
        self._seen += 1
        if (self.steps and one.step <= self.steps[-1]) or (self._seen - 1) % self._apart:
            return
        row = array("f", [math.nan]) * len(self.columns)
        for key, values in _statistics(one):
            for layer, value in enumerate(values):
                at = self.columns.get((key, layer))
                if at is None:
                    if len(self.columns) >= MOST_COLUMNS:
                        continue
                    at = self.columns[key, layer] = len(self.columns)
                    row.append(math.nan)
                row[at] = value if abs(value) < 3e38 else math.nan
        self.steps.append(one.step)
        self._rows.append(row)
        if len(self.steps) > MOST_ROWS:
            self._apart *= 2
            self.steps, self._rows = self.steps[::2], self._rows[::2]

    def lines(self) -> dict[str, list[CurveLine]]:
        """The lines of each chart. Of many rows, the lowest and the highest value of neighbouring ones."""
        if not self._rows:
            return {}
        import numpy as np

        width = len(self.columns)
        table = np.full((len(self._rows), width), np.nan, dtype=np.float32)
        for at, row in enumerate(self._rows):
            table[at, : len(row)] = row
        steps = np.array(self.steps)
        found: dict[str, list[CurveLine]] = {}
        layered = {key for key, layer in self.columns if layer} | {"gradient", "activation"}
        for (key, layer), at in sorted(self.columns.items()):
            points = _drawn(steps, table[:, at])
            found.setdefault(key, []).append(CurveLine(layer if key in layered or _by_layer(key) else None, points))
        return found

    def at(self, key: str, step: float) -> tuple[int, list[float]] | None:
        """The last row at or before `step`: its step and the values of a chart."""
        row = bisect_right(self.steps, step) - 1
        if row < 0:
            return None
        found = self._rows[row]
        columns = [at for (name, _), at in sorted(self.columns.items()) if name == key]
        return self.steps[row], [found[at] if at < len(found) else math.nan for at in columns]


def _by_layer(key: str) -> bool:
    return not key.endswith((".embedding", ".positions", ".head", ".final_norm"))


def _statistics(one: MatrixStatistics) -> Iterable[tuple[str, Sequence[float]]]:
    """The charts' keys and their values by layer."""
    for kind, values in one.update.items():
        yield f"update.{kind}", values
    blocks: dict[int, float] = {}
    for kind, values in one.gradient.items():
        yield f"gradient.{kind}", values
        if _by_layer(f"gradient.{kind}"):
            for layer, value in enumerate(values):
                blocks[layer] = blocks.get(layer, 0.0) + value * value
    yield "gradient", [math.sqrt(blocks[layer]) for layer in sorted(blocks)]
    yield "activation", one.activation


def _drawn(steps: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> list[Point]:
    import numpy as np

    known = ~np.isnan(values)
    steps, values = steps[known], values[known]
    if len(steps) > 2 * DRAWN:
        kept: list[int] = []
        for group in np.array_split(np.arange(len(steps)), DRAWN):
            kept += sorted({int(group[values[group].argmin()]), int(group[values[group].argmax()])})
        steps, values = steps[kept], values[kept]
    return list(zip(steps.tolist(), values.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class RunCurves:
    """A run's curves at one time. `step_tokens` is None where the steps differ (a run that learns from answers). `begin`: the step
    after which those have so many tokens, and the tokens trained on up to there (of a branch, its parents')."""

    name: str
    status: Status
    infos: tuple[CurveInfo, ...] = ()
    lines: dict[str, Sequence[CurveLine]] = field(default_factory=dict)
    clock: Clock = Clock()
    step_tokens: int | None = None
    flops_per_token: float | None = None
    last: Metric | None = None
    reading: bool = False
    begin: tuple[int, int] = (0, 0)

    def tokens_at(self, step: float) -> float:
        """The tokens trained on up to `step`; NaN where that is not known."""
        first, tokens = self.begin
        return math.nan if self.step_tokens is None else tokens + (step - first) * self.step_tokens

    @property
    def steps(self) -> tuple[int, int]:
        """The first and the last step with a loss."""
        points = self.lines["loss"][0].points if self.lines.get("loss") else ()
        return (points[0][0], points[-1][0]) if points else (0, 0)


@dataclass(frozen=True, slots=True)
class CurveValues:
    """The values of a chart at a step, a number a line; `time` is that of the step's metrics, 0 where it is not known. `row` is
    the row of a largest row loss, from 0."""

    step: int
    values: tuple[float, ...]
    time: float = 0.0
    row: int | None = None


def _before(points: Sequence[Point], step: int) -> Point | None:
    at = bisect_right(points, (step, math.inf)) - 1
    return points[at] if at >= 0 else None


class RunCurvesReader:
    """Reads one run directory; each `read` reads only what is new. Never raises because of its content."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.metrics = MetricsTail(run.metrics_path)
        self.matrices = MatrixStatisticsTail(run.matrices_path)
        self._lock = threading.Lock()  # `read` and `at` run on different threads
        self._restart()

    def _restart(self) -> None:
        self._curves: dict[str, Envelope] = {}
        self._clock, self._table = ClockReader(), MatrixTable()
        self._lines: dict[str, list[CurveLine]] = {}
        self._last: Metric | None = None
        self._names: tuple[str, ...] = ()
        self._sampled: tuple[dict[str, Envelope], Clock] | None = None
        self._begun = False

    def read(self) -> RunCurves:
        """Reads up to `CHUNK` more bytes of metrics, and all new lines of matrices.jsonl."""
        with self._lock:
            try:
                return self._read()
            except Exception as error:  # of any kind: it is shown for this run, the other runs still work
                return RunCurves(self.run.name, unreadable(self.run, error), RUN_CURVES)

    def at(self, step: int) -> dict[str, CurveValues]:
        """The values of all charts at `step`, those of one that is sparse at the last step before that has some."""
        exact = metric_at(self.run.metrics_path, step)
        found: dict[str, CurveValues] = {}
        with self._lock:
            for name in self._names:
                if exact is not None and (value := getattr(exact, name)) is not None:
                    of_row = exact.row if name == "row_loss" else None
                    found[name] = CurveValues(exact.step, (value,), exact.time, of_row)
                elif name in self._curves and (point := _before(self._curves[name].points(), step)) is not None:
                    found[name] = CurveValues(point[0], (point[1],))
            for key in self._lines:
                if (row := self._table.at(key, step)) is not None and not all(map(math.isnan, row[1])):
                    found[key] = CurveValues(row[0], tuple(row[1]))
        return found

    def _read(self) -> RunCurves:
        try:
            config = self.run.config()
        except UserError:
            config = None
        shown = infos(config.settings if config else TrainingSettings())
        new, rows = self.metrics.new(CHUNK), self.matrices.new()
        if self.metrics.restarted or self.matrices.restarted:
            self.metrics.offset = self.matrices.offset = 0
            self._restart()
            new, rows = self.metrics.new(CHUNK), self.matrices.new()
        self._names = tuple(info.key for info in shown if info.key in Metric.__dataclass_fields__)
        if not self._begun and (few := sampled_metrics(self.run.metrics_path)) is not None:
            some, times = dict[str, Envelope](), ClockReader()
            self._add(few, some, times)
            self._sampled = some, times.clock()
        self._begun = True
        self._add(new, self._curves, self._clock)
        self._last = new[-1] if new else self._last
        for one in rows:
            self._table.add(one)
        if rows:
            self._lines = self._table.lines()
        reading = self.metrics.more
        if not reading:
            self._sampled = None
        curves, clock = self._sampled if self._sampled is not None else (self._curves, self._clock.clock())
        lines: dict[str, Sequence[CurveLine]] = {key: [CurveLine(None, one.points())] for key, one in curves.items()}
        return RunCurves(
            self.run.name,
            self.run.status(),
            shown,
            lines | dict(self._lines),
            clock,
            config.step_tokens if config else None,
            number(self.run.facts().get("flops_per_token")),
            self._last,
            reading,
            config.begin if config else (0, 0),
        )

    def _add(self, metrics: Iterable[Metric], curves: dict[str, Envelope], clock: ClockReader) -> None:
        for metric in metrics:
            clock.add(metric)
            for name in self._names:
                if (value := getattr(metric, name)) is not None:
                    if name not in curves:
                        curves[name] = Envelope()
                    curves[name].add(metric.step, value)
