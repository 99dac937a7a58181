"""The lab if the engine, a reading or a model is unavailable: one clear line each, and the app continues."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until

from tui_llm.common.errors import UserError
from tui_llm.tui.app import LabApp


@pytest.mark.parametrize(
    "error", [UserError("[/] no \x1b torch"), ImportError("no module named [red]torch"), MemoryError()]
)
async def test_an_engine_that_fails_to_start_is_one_line(error: Exception) -> None:
    def open_engine() -> FakeEngine:
        raise error

    app = LabApp(open_engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.lab_screen.top_line.problem)
        await pilot.pause()
        top = drawn(app)[0]
        assert top.strip().startswith("!") and not unsafe([top])
        await pilot.press("escape", "g", "x")  # and the app continues


async def test_a_reading_that_fails_is_one_line_and_the_next_one_clears_it() -> None:
    engine = FakeEngine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        engine.fail = ZeroDivisionError("[/usr/bin]\nsecond line")
        await pilot.press("a")
        await until(pilot, lambda: lab.top_line.problem)
        await pilot.pause()
        assert "ZeroDivisionError" in drawn(app)[0] and "[/usr/bin] second line" in drawn(app)[0]
        engine.fail = None
        await pilot.press("b")
        await answered(pilot, lab)
        await pilot.pause()
        assert "ZeroDivisionError" not in drawn(app)[0]


async def test_models_are_listed_and_opened() -> None:
    engine = FakeEngine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "m")
        await until(pilot, lambda: any("is cut short" in line for line in drawn(app)))
        assert not unsafe(drawn(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: lab.weights is not None and lab.weights.name != "nano")
        await answered(pilot, lab)
        assert engine.opened[-1].startswith("run:[/]") and not unsafe(drawn(app))


async def test_a_model_that_cannot_be_opened_leaves_the_old_one() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.models.open("missing")
        await until(pilot, lambda: app._notifications)
        assert lab.weights is not None and lab.weights.name == "nano"
