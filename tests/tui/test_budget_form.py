"""The form for a new run with a time budget, and what text it says to expect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fake_run
import pytest
from helpers import until
from test_runs_screen import UNSET, ScreenApp, says, set_field
from textual.widgets import Select

from tui_llm.common.errors import UserError
from tui_llm.training.plan import budget, cost, launch
from tui_llm.training.run import time_plan
from tui_llm.training.run.promises import PROMISES
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import TrainingSettings
from tui_llm.tui.runs.new_run import NewRunScreen


class FakeMeasurement:
    """A machine of 50 GFLOP/s."""

    started, seconds = 1.0, 0.0

    def __init__(self, shapes: Any, corpus: Any, settings: TrainingSettings, tokenizers: Any, device: str) -> None:
        self.shapes, self.tokenizers = shapes, tokenizers

    def __enter__(self) -> FakeMeasurement:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cancel(self) -> None:
        pass

    def results(self) -> Iterator[dict[str, Any]]:
        if self.tokenizers:
            yield {"text": {"bytes": 1_000_000, "bytes_per_token": {"nano": 3.2, "byte": 1.0}}}
        for at, (settings, shape) in enumerate(self.shapes):
            rate = 50e9 / cost.flops_per_token(shape, settings.block_size)
            yield {"shape": at, "tokens_per_second": rate, "device": "cpu"}


def shown(app: ScreenApp, name: str) -> str:
    return str(app.shown.query_one(f"#{name}").render())  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_budget_is_picked_shown_and_started(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, TrainingSettings]] = []

    def create(name: str, corpora: list[str], settings: TrainingSettings, *, preset: str, **_: Any) -> Run:
        made.append((preset, settings))
        return fake_run.make(name)

    monkeypatch.setattr(budget, "BudgetMeasurement", FakeMeasurement)
    monkeypatch.setattr(launch, "create", create)
    monkeypatch.setattr(launch, "start", lambda run: None)
    app = ScreenApp(NewRunScreen("stories"))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "grammar" in says(app, "corpus"))
        preset = app.shown.query_one("#preset", Select)
        assert PROMISES[str(preset.value)].text in shown(app, "promise")
        preset.value = "budget"
        await until(pilot, lambda: "minutes and machine pick" in says(app, "preset"))
        set_field(app, "minutes", "2")
        set_field(app, "steps", "7")
        await until(pilot, lambda: "both say when the run ends" in says(app, "steps"))
        set_field(app, "steps", "1000")
        await until(pilot, lambda: not says(app, "steps").startswith("✗") and "ctrl+e picks it" in shown(app, "cost"))
        await pilot.press("ctrl+e")
        await until(pilot, lambda: "picked" in shown(app, "estimate") and "bits per byte" in shown(app, "estimate"))
        await until(
            pilot, lambda: "parameters" in shown(app, "cost")
        )  # of the model that was picked; before, there is none
        _, plan = app.shown.estimate.planned  # type: ignore[attr-defined]
        app.shown.estimate.show_cost((plan.settings, plan.picked.shape), picked_later=True)  # type: ignore[attr-defined]
        assert "parameters" in shown(app, "cost")  # a check of the fields that ends after the plan changes nothing
        bottom = app.shown.query_one("#form").content_region.bottom
        assert app.shown.query_one("#start").region.bottom <= bottom  # the buttons are in sight
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.answer is not UNSET)
    ((name, settings),) = made
    assert name == "budget" and settings.minutes == 2 and settings.optimizer == "muon"
    assert isinstance(app.answer, Run) and time_plan.read(app.answer)[0].steps == settings.steps


async def test_shakespeare_brings_its_text_and_its_model() -> None:
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(100, 30)) as pilot:
        preset = app.shown.query_one("#preset", Select)
        preset.value = "shakespeare"
        corpus, width = app.shown.query_one("#corpus"), app.shown.query_one("#width")
        await until(pilot, lambda: corpus.value == "tinyshakespeare" and width.disabled)  # type: ignore[attr-defined]
        assert "Shakespeare's English" in shown(app, "promise")
        preset.value = "toy"
        await until(pilot, lambda: "most words invented" in shown(app, "promise") and not width.disabled)
        set_field(app, "corpus", "stories")
        preset.value = "induction"
        await pilot.pause()
        assert corpus.value == "stories"  # type: ignore[attr-defined]


@pytest.mark.parametrize("when", ["measuring", "creating"])
async def test_a_failed_start_leaves_no_measurement_and_says_nothing_of_one(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Run:
        raise UserError("no room on the disk")

    def failing(self: FakeMeasurement) -> Iterator[dict[str, Any]]:
        raise UserError("no room on the disk")
        yield {}

    monkeypatch.setattr(budget, "BudgetMeasurement", FakeMeasurement)
    monkeypatch.setattr(launch, "create", fail)
    if when == "measuring":
        monkeypatch.setattr(FakeMeasurement, "results", failing)
    app = ScreenApp(NewRunScreen("stories"))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "grammar" in says(app, "corpus"))
        app.shown.query_one("#preset", Select).value = "budget"
        await until(pilot, lambda: "ctrl+e picks it" in shown(app, "cost"))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "no room on the disk" in shown(app, "trouble"))
        assert "measuring" not in shown(app, "estimate") and "ctrl+e begins" in shown(app, "estimate")
        form = app.shown
        assert isinstance(form, NewRunScreen) and form.estimate.measurement is None
        monkeypatch.setattr(form.estimate, "_measure", lambda *_: None)
        await pilot.press("ctrl+e")  # once, not twice
        await until(pilot, lambda: "to measure it" in shown(app, "estimate"))
