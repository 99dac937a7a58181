"""The app reads in numpy first; torch takes over while nothing is asked."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until

from tests import HANG
from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.tui.app import LabApp
from tui_llm.tui.state import engine_client


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "IDLE_SECONDS", 0.01)


async def test_the_first_reading_is_numpys_and_the_next_torchs() -> None:
    seen = threading.Event()

    class Held(PipelineEngine):
        """Its torch is not ready before the first reading has been seen, however late the app asks for that."""

        def prepare(self) -> None:
            seen.wait(HANG)
            super().prepare()

    engine = Held("cpu", numpy_first=True)
    app = LabApp(lambda: engine, prompt="The cat sat on the")
    async with app.run_test(size=(200, 40)) as pilot:
        lab = app.lab_screen
        try:
            await answered(pilot, lab)
            first = lab.reading
            assert first is not None and first.weights.reader == "numpy"
            await until(pilot, lambda: "cpu, numpy" in drawn(app)[0])
        finally:
            seen.set()
        await until(pilot, lambda: engine.weights().reader == "torch")
        assert lab.reading is first, "the reading on the screen stays, as do the user's changes"
        await pilot.press("end", "x")
        await answered(pilot, lab)
        assert lab.reading is not None and lab.reading.weights.reader == "torch"
        assert lab.reading.forward_tokens < len(lab.reading.prompt_ids), "torch's KV cache is filled before"
        assert "numpy" not in drawn(app)[0]
        await until(pilot, gc.isenabled)  # the warm-up's thread enables it last


@pytest.mark.parametrize("problem", [UserError("too little memory"), ImportError("no torch")])
async def test_numpy_goes_on_if_torch_cannot_take_over(problem: Exception, tmp_path: Path) -> None:
    class Alone(FakeEngine):
        def prepare(self) -> None:
            super().prepare()
            if not isinstance(problem, UserError):
                raise problem

        def use_torch(self) -> None:
            raise problem

    engine = Alone()
    app = make_app(engine)
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: engine.prepared)
        await pilot.press("end", "x")
        await answered(pilot, app.lab_screen)
        assert engine.prepared == 1 and not app.lab_screen.top_line.problem
        await until(pilot, gc.isenabled)
