"""Writes what a chart shows to a new SVG, PNG or CSV file whose name is asked for; and what the charts show as plain data."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import App

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.facts.chart import ChartData, ChartLine
from tui_llm.facts.head_scores import SCORES, best
from tui_llm.training.run.head_readings import HeadEvaluation
from tui_llm.training.run.run import Run
from tui_llm.tui.kit.actions import FileActions
from tui_llm.tui.kit.save import free_path
from tui_llm.tui.kit.widgets.probability_chart import Probabilities
from tui_llm.tui.runs.loss_chart import Curves

NOTHING = "there is no chart to export yet"


def ask_export(app: App[None], files: FileActions, data: ChartData, stem: str, run: Run | None) -> None:
    """Asks for a file's name, proposes `stem-N.svg`, and writes the chart there; never over an existing file, nor into the
    folder of `run`."""
    from tui_llm.tui.kit.ask import AskScreen

    if not any(True for _ in data.shown()):
        files.notify(NOTHING, "warning")
        return
    try:
        free = free_path(stem.replace(".", "-").replace("_", "-"), "svg", "charts")
    except UserError as error:
        files.notify(str(error), "error")
        return

    def write(answer: str | None) -> None:
        from tui_llm.training.run import curve_charts

        if answer is not None and answer.strip():
            try:
                path = paths.absolute(answer.strip())
            except UserError as error:
                files.notify(str(error), "error")
                return
            inputs = () if run is None else run.sources()
            files.act(lambda: curve_charts.export(data, path, inputs=inputs), f"chart written to {path}")

    app.push_screen(
        AskScreen("Export the chart", "ends in .svg, .png or .csv; nothing is overwritten", str(free)), write
    )


def loss_data(name: str, curves: Curves, *, log_y: bool) -> ChartData:
    """The Training pane's chart of run `name`."""
    parent = curves.parent
    lines = [
        *([ChartLine(f"{parent.name} to step {parent.step:,}", tuple(parent.train))] if parent else []),
        ChartLine(curves.names[0], tuple(curves.train)),
        ChartLine(curves.names[1], tuple(curves.validation), marks=True),
        *(ChartLine(f"mean of {one.window:,} steps", one.points) for one in curves.averages),
        *(ChartLine(other.name, tuple(other.train)) for other in curves.others),
    ]
    title = f"{curves.title or 'loss, nats per token'}, {name}"
    return ChartData(
        title, "step", tuple(line for line in lines if line.points), log_y=log_y, levels=tuple(curves.levels)
    )


def probability_data(title: str, shown: Probabilities, *, log_y: bool) -> ChartData:
    """How the pinned prompt `title` was learned."""
    lines = tuple(ChartLine(line.name, tuple(line.points)) for line in shown.lines)
    return ChartData(f"probability, {title}", "step", lines, log_y=log_y)


def head_data(name: str, saved: Sequence[HeadEvaluation]) -> ChartData:
    """The best head's score at each evaluation of run `name`."""
    lines = []
    for score in SCORES:
        points = []
        for one in saved:
            top = best(one.scores, score)
            if top is not None and (value := top.of(score)) is not None:
                points.append((one.step, value))
        lines.append(ChartLine(score, tuple(points)))
    return ChartData(f"largest head score, {name}", "step", tuple(lines))
