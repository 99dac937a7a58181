"""What the rungs of a ladder have reached: loss, tokens and time, up to a given loss too. Does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.facts.chart import ChartData, ChartLine
from tui_llm.training.plan import ladder_rungs
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.run.curve_charts import AXES
from tui_llm.training.run.metrics import MetricsTail
from tui_llm.training.run.run import Run
from tui_llm.training.run.status import number

CHUNK = 1 << 20  # bytes of metrics that are read at a time


@dataclass(frozen=True, slots=True)
class RungEvaluation:
    """An evaluation of a rung. `seconds` are those of the steps up to it, without evaluations and checkpoints; `flops` is None
    where the run does not say what a token costs."""

    step: int
    tokens: int
    seconds: float
    flops: float | None
    loss: float

    def at(self, axis: str) -> float:
        """Its place on one of `AXES`."""
        place = {"step": self.step, "tokens": self.tokens, "time": self.seconds, "flops": self.flops}[axis]
        return math.nan if place is None else float(place)


@dataclass(frozen=True, slots=True)
class RungResult:
    """A rung, its run and its evaluations in the order of steps. `state` is empty where the run is not made yet."""

    rung: ladder_rungs.Rung
    run: str
    state: str
    message: str
    step: int
    steps: int | None
    parameters: int | None
    evaluations: tuple[RungEvaluation, ...]

    @property
    def last(self) -> RungEvaluation | None:
        return self.evaluations[-1] if self.evaluations else None

    def reached(self, loss: float) -> RungEvaluation | None:
        """The first evaluation with at most this loss."""
        return next((one for one in self.evaluations if one.loss <= loss), None)


@dataclass(frozen=True, slots=True)
class LadderResults:
    """The rungs of a ladder. `target` is the loss that they are compared at, in nats per token; None as long as the first rung has
    no evaluation."""

    ladder: Ladder
    rungs: tuple[RungResult, ...]
    target: float | None

    @property
    def targets_run(self) -> str:
        """Whose loss the target is by default, in words: of a rung that is not finished, it will fall further."""
        return "the first rung's last" + (" so far" if self.rungs[0].state != "finished" else "")

    def ratios(self, result: RungResult) -> tuple[float | None, float | None]:
        """The tokens and the time to the target, as shares of the first rung's; None where one of both has not reached it."""
        if self.target is None:
            return None, None
        base, mine = self.rungs[0].reached(self.target), result.reached(self.target)
        if base is None or mine is None:
            return None, None
        return mine.tokens / base.tokens, mine.seconds / base.seconds if base.seconds else None


def read(ladder: Ladder, target: float | None = None) -> LadderResults:
    """Reads the metrics of all rungs. `target`: by default, the first rung's last loss."""
    return LadderReader().read(ladder, target)


class LadderReader:
    """Reads ladders again and again: of each run only the metrics that are new."""

    def __init__(self) -> None:
        self._runs: dict[Path, _Evaluations] = {}

    def read(self, ladder: Ladder, target: float | None = None) -> LadderResults:
        rungs = tuple(self._rung(ladder, at) for at in range(len(ladder.rungs)))
        first = rungs[0].last
        return LadderResults(ladder, rungs, target if target is not None else first.loss if first else None)

    def _rung(self, ladder: Ladder, at: int) -> RungResult:
        run, rung = ladder.run(at), ladder_rungs.find(ladder.rungs[at])
        if not run.exists():
            self._runs.pop(run.path, None)
            return RungResult(rung, run.name, "", "", 0, None, None, ())
        status = run.status()
        evaluations = self._runs.setdefault(run.path, _Evaluations(run)).read()
        return RungResult(
            rung, run.name, status.state, status.message, status.step, status.steps, status.parameters, evaluations
        )


class _Evaluations:
    """The evaluations of a run, of which more come."""

    def __init__(self, run: Run) -> None:
        self.run, self._tail = run, MetricsTail(run.metrics_path)
        self._seconds, self._found = 0.0, list[tuple[int, float, float]]()  # step, tokens ÷ (tokens per second), loss

    def read(self) -> tuple[RungEvaluation, ...]:
        try:
            s = self.run.config().settings
        except UserError:
            return ()
        each = s.batch_size * s.grad_accumulation_steps * s.block_size
        while True:
            metrics = self._tail.new(CHUNK)
            if self._tail.restarted:
                self._seconds, self._found = 0.0, []
            for metric in metrics:
                if metric.tokens_per_second > 0:
                    self._seconds += each / metric.tokens_per_second
                if metric.val_loss is not None and math.isfinite(metric.val_loss):
                    self._found.append((metric.step, self._seconds, metric.val_loss))
            if not self._tail.more:
                break
        flops = number(self.run.facts().get("flops_per_token"))
        return tuple(
            RungEvaluation(step, step * each, seconds, None if flops is None else flops * step * each, loss)
            for step, seconds, loss in self._found
        )


def chart(results: LadderResults, axis: str = "tokens", *, log_x: bool = False, log_y: bool = False) -> ChartData:
    """The validation losses of all rungs over one of `AXES`, and the target."""
    lines = [
        ChartLine(one.rung.name, tuple((e.at(axis), e.loss) for e in one.evaluations))
        for one in results.rungs
        if one.evaluations
    ]
    levels = () if results.target is None else (("target", results.target),)
    title = f"validation loss of ladder {results.ladder.name}, nats per token ({results.ladder.budget} a rung)"
    x = "seconds of the steps" if axis == "time" else AXES[axis]
    return ChartData(title, x, tuple(lines), log_x, log_y, levels)


def table(results: LadderResults) -> list[tuple[str, ...]]:
    """Rows of text: a header, then a row a rung. Unknown values are "–"."""
    from tui_llm.common.numbers import duration

    target = "target" if results.target is None else f"{results.target:.4f}"
    rows: list[tuple[str, ...]] = [
        (
            "rung",
            "state",
            "steps",
            "loss",
            "tokens",
            "time",
            f"tokens to {target}",
            f"time to {target}",
            "× tokens",
            "× time",
        )
    ]
    for one in results.rungs:
        last = one.last
        there = None if results.target is None else one.reached(results.target)
        tokens, time = results.ratios(one)
        rows.append((
            one.rung.name,
            one.state or "–",
            "–" if one.steps is None else f"{one.step:,} / {one.steps:,}",
            f"{last.loss:.4f}" if last else "–",
            f"{last.tokens:,}" if last else "–",
            duration(last.seconds) if last else "–",
            f"{there.tokens:,}" if there else "–",
            duration(there.seconds) if there else "–",
            "–" if tokens is None else f"{tokens:.2f}",
            "–" if time is None else f"{time:.2f}",
        ))  # fmt: skip
    return rows


NARROW = (0, 1, 3, 4, 5, 8, 9)
"""The columns of `table` that fit into 80 cells: without the steps, and what each needs to the target in numbers."""


def as_json(results: LadderResults) -> list[dict[str, object]]:
    """A dict a rung."""
    found: list[dict[str, object]] = []
    for one in results.rungs:
        last = one.last
        there = None if results.target is None else one.reached(results.target)
        tokens, time = results.ratios(one)
        found.append({
            "rung": one.rung.name, "run": one.run, "state": one.state or None, "message": one.message or None,
            "does": one.rung.sentence, "source": one.rung.source, "step": one.step, "steps": one.steps,
            "parameters": one.parameters,
            "loss": last.loss if last else None, "tokens": last.tokens if last else None,
            "seconds": last.seconds if last else None, "flops": last.flops if last else None,
            "tokens_to_target": there.tokens if there else None, "seconds_to_target": there.seconds if there else None,
            "tokens_ratio": tokens, "seconds_ratio": time,
        })  # fmt: skip
    return found
