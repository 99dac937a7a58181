"""Charts of one or several runs over steps, tokens, time or FLOPs, as plain data. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.new_files import check_file, write_new
from tui_llm.facts.chart import ChartData, ChartLine
from tui_llm.facts.chart_files import FORMATS, csv_text, svg_text
from tui_llm.training.run.curve import Point
from tui_llm.training.run.quantities import shared_meaning
from tui_llm.training.run.run_curves import CurveInfo, CurveLine, RunCurves

AXES = {"step": "step", "tokens": "tokens", "time": "seconds of training", "flops": "FLOPs"}
"""What the x axis can be, and its title. FLOPs are the model's, as in the estimate: tokens × FLOPs per token."""

NO_AXIS = {
    "tokens": "its number of tokens a step changes, or is not known",
    "flops": "its number of operations a token is not known",
    "time": "its metrics have no time",
}


def missing(run: RunCurves, axis: str) -> str:
    """Why a run can't be drawn over `axis`; empty if it can."""
    known = {
        "step": True,
        "tokens": run.step_tokens is not None,
        "flops": run.step_tokens is not None and math.isfinite(_per_token(run, "flops")),
        "time": bool(run.clock.steps) and run.clock.seconds[-1] > run.clock.seconds[0],
    }
    return "" if known[axis] else NO_AXIS[axis]


def x_of(run: RunCurves, axis: str, step: float) -> float:
    """Where `step` lies on the axis; NaN if that is not known."""
    if axis == "step":
        return step
    if axis == "time":
        return run.clock.at(step)
    return run.tokens_at(step) * _per_token(run, axis)


def step_of(run: RunCurves, axis: str, x: float) -> float:
    """The inverse of `x_of`."""
    if axis == "step":
        return x
    if axis == "time":
        return run.clock.step(x)
    if run.step_tokens is None:
        return math.nan
    first, tokens = run.begin
    return first + (x / _per_token(run, axis) - tokens) / run.step_tokens


def _per_token(run: RunCurves, axis: str) -> float:
    """Units of the axis a token; NaN where a file or a log does not give a number above 0."""
    if axis == "tokens":
        return 1.0
    found = run.flops_per_token
    return found if found is not None and 0 < found < math.inf else math.nan


def placed(run: RunCurves, axis: str, points: Sequence[Point]) -> list[tuple[float, float]]:
    """The points with their place on the axis instead of the step."""
    if axis == "step":
        return list(points)
    if axis == "time":
        return [(run.clock.at(step), value) for step, value in points]
    each = _per_token(run, axis)
    return [(run.tokens_at(step) * each, value) for step, value in points]


def joined(key: str, lines: Sequence[CurveLine]) -> Sequence[Point]:
    """One curve of all layers, for charts of several runs: the root of the sum of squares of gradient norms, the mean of
    the others."""
    if len(lines) <= 1:
        return lines[0].points if lines else ()
    values: dict[int, list[float]] = {}
    for line in lines:
        for step, value in line.points:
            values.setdefault(step, []).append(value)
    whole = {step: found for step, found in values.items() if len(found) == len(lines)}
    if key.startswith("gradient"):
        return [(step, math.sqrt(sum(value * value for value in found))) for step, found in sorted(whole.items())]
    return [(step, sum(found) / len(found)) for step, found in sorted(whole.items())]


def joined_words(key: str) -> str:
    return "all layers together" if key.startswith("gradient") else "mean of the layers"


def meaning(runs: Sequence[RunCurves], info: CurveInfo) -> str:
    """What a chart of the runs shows. A loss is not the same quantity in runs of different objectives or programs."""
    return shared_meaning(info.meaning, (one.meaning for run in runs for one in run.infos if one.key == info.key))


def chart(
    runs: Sequence[RunCurves], info: CurveInfo, axis: str, *, log_x: bool = False, log_y: bool = False
) -> ChartData:
    """The chart of one key: of one run a line a layer, of several runs a line a run."""
    lines: list[ChartLine] = []
    words = meaning(runs, info)
    for run in runs:
        found = run.lines.get(info.key, ())
        marks = info.key == "val_loss"
        if len(runs) > 1:
            words += "" if len(found) <= 1 or joined_words(info.key) in words else f"; {joined_words(info.key)}"
            lines.append(ChartLine(run.name, tuple(placed(run, axis, joined(info.key, found))), marks))
            continue
        for line in found:
            name = "" if line.layer is None else f"layer {line.layer}"
            lines.append(ChartLine(name, tuple(placed(run, axis, line.points)), marks))
    of = f" of {runs[0].name}" if len(runs) == 1 else ""
    title = f"{info.title}{of}" + (f" ({words})" if words else "")
    return ChartData(title, AXES[axis], tuple(lines), log_x, log_y, name=info.key)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_export(path: Path, *, force: bool = False, inputs: Sequence[Path] = ()) -> None:
    """Call it before the work. Raises `UserError` if `path` can't be written (see `check_file`), has another suffix than those
    of `FORMATS`, or a PNG has no converter."""
    check_file(path, force=force, inputs=inputs)
    if _format(path) == "png":
        from tui_llm.common import svg_to_png

        svg_to_png.converter()


def _format(path: Path) -> str:
    """The format that a path's suffix names; SVG without a suffix."""
    found = path.suffix.lower().removeprefix(".") or "svg"
    if found not in FORMATS:
        raise UserError(f"{path.name}: a chart is written as .svg, .png or .csv; give a name that ends so")
    return found


def export(data: ChartData, path: Path, *, force: bool = False, inputs: Sequence[Path] = ()) -> str:
    """Writes a chart in the format of the path's suffix. Returns what made a PNG; empty for the others. Raises `UserError`."""
    check_export(path, force=force, inputs=inputs)
    kind, maker = _format(path), ""
    if kind == "png":
        from tui_llm.common import svg_to_png

        maker = svg_to_png.converter()

        def write(part: Path) -> None:
            source = part.with_name("chart.svg")  # in the temporary folder, which is deleted
            storage.write_text(source, svg_text(data))
            storage.by_library(part, lambda to: svg_to_png.convert(source, to))
    else:
        text = csv_text(data) if kind == "csv" else svg_text(data)

        def write(part: Path) -> None:
            storage.write_text(part, text)

    write_new(path, write, force=force, inputs=inputs)
    return maker
