"""Other people's runs on the screen: opened by path from the table of runs, their checkpoints, and their curves beside ours."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import fake_run
import pytest
from helpers import drawn, make_app, unsafe, until

from tui_llm.common import storage
from tui_llm.facts.head_scores import HeadScore
from tui_llm.facts.pin import Pin
from tui_llm.training.plan.foreign import ForeignProcess, ForeignProgress
from tui_llm.training.run import head_readings, jsonl, pin_readings, pins
from tui_llm.training.run.foreign import lens_readings
from tui_llm.training.run.foreign.foreign_run import ForeignRun, opened, remember
from tui_llm.training.run.foreign.lens_readings import LensEvaluation, LensReading, LensStepRow
from tui_llm.training.run.foreign.readings import ReadingsIndex, StepRecord, mark_of
from tui_llm.training.run.pin_readings import PinCandidate, PinEvaluation, PinReading, PinTargetToken
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.confirm import ConfirmScreen
from tui_llm.tui.runs import foreign
from tui_llm.tui.runs.curves.screen import CurvesScreen
from tui_llm.tui.runs.foreign import ForeignScreen
from tui_llm.tui.runs.pin_history import LearnedScreen
from tui_llm.tui.runs.runs import RunsScreen

PIN = Pin("[red]the cat", " sat")
LOG = "".join(f"iter {step}: loss {4 - step / 50:.4f}, time 1.00ms, mfu 1.00%\n" for step in range(0, 100, 10))


def folder(top: Path, read: bool = True) -> ForeignRun:
    """A folder of checkpoints without weights, and what a worker would have read of them."""
    for step in (10, 20, 30):
        (place := top / f"checkpoint-{step}").mkdir(parents=True)
        (place / "config.json").write_text("{}")
    (top / "train.log").write_text(LOG)
    run = ForeignRun(top)
    if not read:
        return run
    storage.make_folders(run.path)
    pins.write(run.pins_path, [PIN, Pin("other")])
    index = ReadingsIndex(run.path)
    for one in run.steps():
        p = one.step / 100
        tokens = (PinTargetToken(1, b" sat", 2.0 - p, p, 3),)
        reading = PinReading(PIN, 1.0, (PinCandidate(2, b"\x1b[31m", 0.5),), tokens)
        other = PinReading(Pin("other"), 1.0, (PinCandidate(3, b"why", 0.25),))
        jsonl.append_to(run.pin_readings_path, pin_readings.line(PinEvaluation(one.step, (reading, other))))
        rows = (LensStepRow(None, b"x", 0.5, 0.125, 9), LensStepRow(0, b"\x1b]0;", 0.5, p, 3))
        jsonl.append_to(run.lens_path, lens_readings.line(LensEvaluation(one.step, (LensReading(PIN, b" sat", rows),))))
        jsonl.append_to(run.heads_path, head_readings.line(one.step, [HeadScore(0, 0, p, 0.0, 0.0)]))
        jsonl.append_to(run.samples_path, {"step": one.step, "prompt": "a", "text": "b"})
        index.steps[one.step] = StepRecord(mark_of(one.path))
    index.same = [(20, 30)]
    index.write()
    return run


def shown(app: LabApp) -> str:
    return "\n".join(drawn(app))


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_a_folder_is_opened_by_path(tmp_path: Path, size: tuple[int, int]) -> None:
    run = folder(tmp_path / "out")
    fake_run.make("first", done=20)
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("escape", "4")
        await until(pilot, lambda: app.lab_screen.focused is not None and app.lab_screen.focused.id == "training")
        app.lab_screen.panes["training"].choose_run()  # type: ignore[attr-defined]
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.rows)
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        first = app.screen
        await pilot.press(*"/nowhere", "enter")
        await until(
            pilot, lambda: isinstance(app.screen, AskScreen) and app.screen is not first and app.screen.query("#answer")
        )
        await until(
            pilot, lambda: "there is no" in shown(app)
        )  # the text is kept, and why it can't be opened stands below
        assert app.screen.query_one("#answer").prompt_text == "/nowhere"  # type: ignore[attr-defined]
        editor = app.screen.query_one("#answer")
        editor.set_text(str(run.source))  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ForeignScreen) and app.screen._table)
        await until(pilot, lambda: "layer 0" in shown(app))
        text = shown(app)
        assert "checkpoint-20" in text and "= 30" in text and "steps 20 and 30 have the same weights" in text
        assert "p 30.0 %" in text or ("30.0" in text and "rank" in text)
        assert not unsafe(drawn(app))
        assert [one.source for one in opened()] == [run.source]
        await pilot.press("up", "right_square_bracket")
        await until(pilot, lambda: "pin 2 of 2" in shown(app))
        assert "why" in shown(app)
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, LearnedScreen) and app.screen.saved)
        assert len(app.screen.saved) == 3  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ForeignScreen))
        await pilot.press("C")
        await until(pilot, lambda: isinstance(app.screen, CurvesScreen) and app.screen._grid.values)
        assert "loss" in shown(app)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and len(app.screen.rows) == 2)
        assert "other program" in shown(app)


async def test_a_pin_is_added_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder(tmp_path / "out")
    new, wanted, go_on = Pin("The end"), [], threading.Event()

    class Reading:
        """Reads the new pin from each checkpoint, without their weights."""

        def __init__(self, _run: ForeignRun, pins_: tuple[Pin, ...]) -> None:
            wanted.append(pins_)

        def records(self) -> Iterator[ForeignProgress]:
            go_on.wait()
            pins.write(run.pins_path, [PIN, Pin("other"), new])
            reading = PinReading(new, 1.0, (PinCandidate(4, b" fin", 0.75),))
            for one in run.steps():
                jsonl.append_to(run.pin_readings_path, pin_readings.line(PinEvaluation(one.step, (reading,))))
            yield ForeignProgress("read", 3, 3, read=True)

        def cancel(self) -> None:
            pass

    monkeypatch.setattr(foreign, "ForeignProcess", Reading)
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        screen = ForeignScreen(run)
        app.push_screen(screen)
        await until(pilot, lambda: "pin 1 of 2" in shown(app))
        try:
            await pilot.press("p", *"The end", "enter")
            assert screen.reading
            await pilot.press("right_square_bracket")  # the others can be chosen meanwhile
            await until(pilot, lambda: "pin 2 of 2: other" in shown(app))
        finally:
            go_on.set()  # the thread would keep the process from ending
        await until(pilot, lambda: "pin 3 of 3: The end" in shown(app) and "fin" in shown(app))
        await until(pilot, lambda: not screen.reading)
        assert wanted == [(new,)]


async def test_a_log_beside_our_run(tmp_path: Path) -> None:
    ours = fake_run.make("first", done=20)
    (tmp_path / "out.log").write_text(LOG)
    theirs = ForeignRun(tmp_path / "out.log")
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.push_screen(CurvesScreen([ours, theirs]))
        await until(pilot, lambda: isinstance(app.screen, CurvesScreen) and app.screen._grid.values)
        screen = app.screen
        assert isinstance(screen, CurvesScreen)
        points = screen._grid.shown.runs[1].lines["loss"][0].points
        assert [step for step, _ in points] == list(range(0, 100, 10)) and points[-1][1] == 4 - 90 / 50
        assert "out.log" in shown(app)
        await pilot.press("escape")
        watcher = app.lab_screen.panes["training"].watcher  # type: ignore[attr-defined]
        watcher.compare([theirs])  # as marking it in the table of runs does
        await until(pilot, lambda: watcher._others and watcher._others[0].train)
        assert watcher._others[0].train[-1] == (90, 4 - 90 / 50)


async def test_runs_of_others_are_only_read(tmp_path: Path) -> None:
    run = folder(tmp_path / "out", read=False)
    remember(run)
    app = make_app()
    async with app.run_test(size=(120, 30)) as pilot:
        screen = RunsScreen()
        results: list[object] = []
        app.push_screen(screen, results.append)
        await until(pilot, lambda: screen.rows)
        assert screen.rows[0].preset == "nanoGPT" and screen.rows[0].loss == pytest.approx(4 - 90 / 50)
        await pilot.press("e", "S", "plus", "r", "x")
        assert app.screen is screen and screen.selected is not None
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "its own files stay" in shown(app).lower().replace("\n", " ") or "Take off" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press("o")
        await until(pilot, lambda: results)
        assert results == [run.source / "checkpoint-30"]


async def test_reading_shows_progress_and_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real process, which finds no weights in these folders."""
    run, go_on = folder(tmp_path / "out", read=False), threading.Event()

    class Held(ForeignProcess):
        """Says nothing before `go_on`, so that the reading is not over when the screen is looked at."""

        def records(self) -> Iterator[ForeignProgress]:
            go_on.wait()
            yield from super().records()

    monkeypatch.setattr(foreign, "ForeignProcess", Held)
    app = make_app()
    async with app.run_test(size=(120, 30)) as pilot:
        screen = ForeignScreen(run)
        app.push_screen(screen)
        await until(pilot, lambda: screen._table)
        assert "r reads the pins" in shown(app)
        try:
            await pilot.press("r")
            assert screen.reading and "starting …" in shown(app)
        finally:
            go_on.set()  # the thread would keep the process from ending
        await until(pilot, lambda: not screen.reading)
        await until(pilot, lambda: "can't be opened" in shown(app))
        assert json.loads((run.path / "steps.json").read_text())["steps"].keys() == {"10", "20", "30"}
        await pilot.press("r", "s")
        await until(pilot, lambda: "stopped" in shown(app) or not screen.reading)
        await pilot.press("r", "escape")  # closing stops it too
        await until(pilot, lambda: app.screen is not screen)
        assert screen._process is None
