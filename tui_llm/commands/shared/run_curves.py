"""`tui-llm runs curves`: the charts of runs as a list, as points, or in a file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from tui_llm.commands.shared.output import out_path, put, put_json
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.suggestions import no_such
from tui_llm.facts import report
from tui_llm.facts.chart import ChartData
from tui_llm.training.run import curve_charts
from tui_llm.training.run.foreign.foreign_curves import curves_reader
from tui_llm.training.run.foreign.foreign_run import find
from tui_llm.training.run.run import Run
from tui_llm.training.run.run_curves import CurveInfo, RunCurves


def show(options: argparse.Namespace) -> None:
    found = [find(name) for name in dict.fromkeys(options.run)]
    path = None if options.out is None else out_path(options.out, "--out")
    reads = [source for run in found for source in run.sources()]
    if path is not None:
        if options.chart is None:
            raise UserError("--out writes one chart; name it with --chart (tui-llm runs curves RUN lists them)")
        curve_charts.check_export(path, force=options.force, inputs=reads)
    runs = [_read(run) for run in found]
    if options.chart is None:
        _list(runs, as_json=options.json)
        return
    info = _info(options.chart, runs)
    for run in runs:
        if why := curve_charts.missing(run, options.by):
            raise UserError(f"run {run.name} can't be drawn by {options.by}: {why}; leave out --by or the run")
    data = curve_charts.chart(runs, info, options.by, log_x=options.log_x, log_y=options.log_y)
    if not any(line.points for line in data.lines):
        raise UserError(f"no {info.title} was recorded by {', '.join(run.name for run in runs)}; runs of earlier versions have no statistics of matrices")  # fmt: skip
    if path is None:
        _points(info, data, as_json=options.json)
        return
    maker = curve_charts.export(data, path, force=options.force, inputs=reads)
    if options.json:
        put_json({"chart": info.key, "path": str(path), "points": sum(len(line.points) for line in data.lines), "converter": maker or None})  # fmt: skip
        return
    put(f"{info.title} of {visible(', '.join(run.name for run in runs))} written to {visible(str(path))}{f' ({maker})' if maker else ''}")  # fmt: skip


def _read(run: Run) -> RunCurves:
    reader = curves_reader(run)
    found = reader.read()
    while found.reading:
        found = reader.read()
    return found


def _info(name: str, runs: Sequence[RunCurves]) -> CurveInfo:
    infos = {info.key: info for run in runs for info in run.infos}
    if name not in infos:
        raise UserError(no_such("chart", name[:60], infos))
    return infos[name]


def _newest(run: RunCurves, info: CurveInfo) -> list[tuple[int, float]]:
    return [line.points[-1] for line in run.lines.get(info.key, ()) if line.points]


def _list(runs: Sequence[RunCurves], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"run": run.name, "chart": info.key, "title": info.title, "meaning": info.meaning, "step": last[0][0] if last else None,
             "values": [value for _, value in last if math.isfinite(value)]}
            for run in runs for info in run.infos for last in [_newest(run, info)]
        ]  # fmt: skip
        put_json({"charts": rows})
        return
    cells = []
    for run in runs:
        for info in run.infos:
            last = _newest(run, info)
            values = " ".join(f"{value:.4g}" for _, value in last[:6]) + (" …" if len(last) > 6 else "")
            cells.append((visible(run.name), info.key, info.title, f"{last[0][0]:,}" if last else "–", values or "–"))
    put(report.table(("run", "chart", "title", "step", "newest (by layer)"), cells, left=(0, 1, 2, 4)))


def _points(info: CurveInfo, data: ChartData, *, as_json: bool) -> None:
    if as_json:
        lines = [
            {"name": line.name, "points": [[x, y] for x, y in line.points if math.isfinite(x) and math.isfinite(y)]}
            for line in data.lines
        ]
        put_json({"chart": info.key, "x": data.x_title, "lines": lines})
        return
    head, *rows = data.rows()
    put(report.table([visible(cell) for cell in head], rows))
