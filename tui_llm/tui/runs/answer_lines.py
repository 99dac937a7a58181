"""What the Training pane shows of a run that learns preferences or a reward: its numbers, and one of its curves."""

from __future__ import annotations

from collections.abc import Iterable

from tui_llm.common.display import truncate, visible
from tui_llm.training.run import quantities
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRETRAINING, REWARD, TrainingSettings
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.runs.loss_chart import Curves, Other

SHOWN = {"loss": "loss", "margin": "margin", "agreement %": "agreement", "rewards": "", "reward": "reward", "KL": "KL", "spread": ""}  # fmt: skip


def objective(settings: TrainingSettings) -> str:
    """What a run that learns from answers learns, and from which model; empty for a run on text."""
    if settings.objective == PRETRAINING:
        return ""
    start = visible(settings.from_model.rstrip("/").rsplit("/", 1)[-1])
    if settings.objective == REWARD:
        return f"{start} learns the reward {truncate(visible(settings.reward), 40)}, KL weight {settings.kl_weight:g}"
    more = f", SFT weight {settings.sft_weight:g}" if settings.sft_weight else ""
    more += ", per token" if settings.length_normalized == "on" else ""
    return f"{start} learns preferences, β {settings.beta:g}{more}"


def measured(snapshot: RunSnapshot) -> list[tuple[str, str]]:
    """Names and values: of the newest batch, and in brackets of the newest evaluation."""
    parts = []
    for series in snapshot.series:
        name = SHOWN.get(series.quantity.name, "")
        values = [
            fmt.number(point[1], 3) if series.quantity.factor == 1 else f"{point[1]:.0f} %"
            for point in series.last
            if point
        ]
        if name and values:
            both = len(values) == 2 and series.quantity.names[1]
            parts.append((name, f"{values[0]} ({series.quantity.names[1]} {values[1]})" if both else values[0]))
    if snapshot.last is not None and snapshot.last.reward_std == 0:
        parts.insert(1, ("all rewards equal:", "no step"))
    return parts


def curves(snapshot: RunSnapshot, others: Iterable[RunSnapshot], number: int) -> Curves:
    """The curves of quantity `number`, counted around, of a run and of those that are compared with it."""
    series = snapshot.series[number % len(snapshot.series)]
    found = [
        (other.name, one)
        for other in others
        for one in other.series
        if other.objective == snapshot.objective and one.quantity.name == series.quantity.name
    ]
    beside = [Other(name, one.line, one.averages) for name, one in found]
    quantity = quantities.shared(series.quantity, [one.quantity for _, one in found])
    title = f"{quantity.name} ({number % len(snapshot.series) + 1} of {len(snapshot.series)}, k: next)"
    return Curves(
        series.line, series.marks, quantity.levels, series.averages, tuple(beside), quantity.names, title, quantity.meaning,
        quantity.log,
    )  # fmt: skip


def table(snapshot: RunSnapshot) -> Iterable[tuple[str, ...]]:
    """All curves as rows of cells for copying, the header first."""
    columns = {}
    for series in snapshot.series:
        quantity = series.quantity
        columns[quantity.line] = {step: value / quantity.factor for step, value in series.line}
        if quantity.names[1]:
            columns[quantity.marks] = {step: value / quantity.factor for step, value in series.marks}
    columns = {name: column for name, column in columns.items() if column}
    yield "step", *columns
    for step in sorted({step for column in columns.values() for step in column}):
        yield str(step), *(repr(column[step]) if step in column else "" for column in columns.values())


def has_one_curve(run: Run | None, snapshot: RunSnapshot | None) -> str:
    """Why there is no other curve to show; empty if there is one."""
    if run is None or snapshot is None:
        return "no curve to show: there is no run yet; n starts one"
    if snapshot.objective == PRETRAINING:
        return f"{snapshot.name} learns text: its loss is its one curve"
    return "" if snapshot.series else f"{snapshot.name} has no curve yet"
