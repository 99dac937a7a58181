"""Compare the settings and results of several runs. Does not import torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.training.run import jsonl
from tui_llm.training.run.config import RunConfig
from tui_llm.training.run.curve import Point
from tui_llm.training.run.foreign.foreign_curves import curves_reader
from tui_llm.training.run.foreign.foreign_run import ForeignRun
from tui_llm.training.run.metrics import Metric, parse_metric
from tui_llm.training.run.run import Run
from tui_llm.training.run.snapshot import RECENT, last_metrics, mean_rate, speed


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The results of one run.

    Validation losses are in nats per token. `tokens` counts the tokens trained on, repetitions included.
    `tokens_per_second` is an average over the last steps. A value is None if the run's files do not give it.
    """

    name: str
    state: str
    step: int
    steps: int
    parameters: int | None
    tokens: int | None
    best_val_loss: float | None
    best_val_step: int | None
    last_val_loss: float | None
    tokens_per_second: float | None
    problem: str = ""  # what is wrong with its files: one line, not sanitized for a terminal


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcomes of several runs, and the settings that differ.

    `outcomes` are in the order of the arguments. An entry of `differing` is (name, the value in each run); the value is
    None for a run without settings: those of another program, or whose config cannot be read.
    """

    outcomes: tuple[RunOutcome, ...]
    differing: tuple[tuple[str, tuple[Any, ...]], ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """Reads all metrics of `runs` once. Never raises because of their content."""
    configs = [_config(run) for run in runs]
    values = [_values(config) if config else {} for config in configs]
    names = list(dict.fromkeys(name for one in values for name in one))
    rows = [(name, tuple(one.get(name) for one in values)) for name in names]
    return Comparison(
        tuple(
            _foreign(run) if isinstance(run, ForeignRun) else _outcome(run, config)
            for run, config in zip(runs, configs, strict=True)
        ),
        tuple((name, row) for name, row in rows if _differs(row, runs)),
    )


def _differs(row: tuple[Any, ...], runs: Sequence[Run]) -> bool:
    """Whether a setting differs; the logs of other programs, which have none, are left out."""
    known = [value for value, run in zip(row, runs, strict=True) if not isinstance(run, ForeignRun)]
    return any(value != known[0] for value in known)


def _config(run: Run) -> RunConfig | None:
    try:
        return run.config()
    except UserError:
        return None


def _values(config: RunConfig) -> dict[str, Any]:
    found = dataclasses.asdict(config)
    settings = found.pop("settings")
    found["corpus"] = ", ".join(found["corpus"])
    return {**found, **settings}


def _outcome(run: Run, config: RunConfig | None) -> RunOutcome:
    status = run.status()
    best: tuple[float, int] | None = None
    last: float | None = None
    for metric in _evaluations(run):
        last = metric.val_loss
        if last is not None and math.isfinite(last) and (best is None or last < best[0]):
            best = (last, metric.step)
    return RunOutcome(
        name=run.name,
        state=status.state,
        step=status.step,
        steps=status.steps,
        parameters=status.parameters,
        tokens=config.tokens_at(status.step) if config else None,
        best_val_loss=best[0] if best else None,
        best_val_step=best[1] if best else None,
        last_val_loss=last,
        tokens_per_second=speed(last_metrics(run)),
        problem=status.problem,
    )


def _foreign(run: ForeignRun) -> RunOutcome:
    """What the log of another program gives."""
    reader = curves_reader(run)
    found = reader.read()
    while found.reading:
        found = reader.read()

    def points(key: str) -> Sequence[Point]:
        return found.lines[key][0].points if key in found.lines else ()

    validation = points("val_loss")
    best = min(validation, key=lambda point: point[1], default=None)
    status = found.status
    return RunOutcome(
        name=run.name,
        state="other program",
        step=status.step,
        steps=status.steps,
        parameters=None,
        tokens=status.step * found.step_tokens if found.step_tokens is not None else None,
        best_val_loss=best[1] if best else None,
        best_val_step=best[0] if best else None,
        last_val_loss=validation[-1][1] if validation else None,
        tokens_per_second=mean_rate(rate for _, rate in points("tokens_per_second")[-RECENT:]),
        problem=status.problem,
    )


def _evaluations(run: Run) -> Iterator[Metric]:
    """Yields the lines with a validation loss. The other lines, up to millions, are not parsed."""
    try:
        for line in jsonl.lines(run.metrics_path):
            if b'"val_loss"' in line and b'"val_loss": null' not in line:
                metric = parse_metric(line)
                if metric is not None and metric.val_loss is not None:
                    yield metric
    except OSError:
        return


def table(comparison: Comparison) -> list[tuple[str, ...]]:
    """Returns rows of text: a header, the results, the settings that differ. Unknown values are empty cells."""
    outcomes = comparison.outcomes

    def row(label: str, values: Sequence[Any]) -> tuple[str, ...]:
        return (label, *("" if value is None else str(value) for value in values))

    def loss(value: float | None) -> str | None:
        return None if value is None else f"{value:.4f}"

    return [
        row("run", [o.name for o in outcomes]),
        row("state", [o.state for o in outcomes]),
        row("steps", [f"{o.step:,} / {o.steps:,}" for o in outcomes]),
        row("tokens seen", [None if o.tokens is None else f"{o.tokens:,}" for o in outcomes]),
        row("best val loss", [loss(o.best_val_loss) for o in outcomes]),
        row("at step", [None if o.best_val_step is None else f"{o.best_val_step:,}" for o in outcomes]),
        row("last val loss", [loss(o.last_val_loss) for o in outcomes]),
        row("tokens/s", [None if o.tokens_per_second is None else f"{o.tokens_per_second:,.0f}" for o in outcomes]),
        row("parameters", [None if o.parameters is None else f"{o.parameters:,}" for o in outcomes]),
        *([row("problem", [o.problem for o in outcomes])] if any(o.problem for o in outcomes) else []),
        *(row(name.replace("_", " "), values) for name, values in comparison.differing),
    ]
