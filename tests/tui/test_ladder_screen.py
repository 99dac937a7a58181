"""The Ladder screen: the table and the chart of its rungs; the form starts a ladder in the background."""

from __future__ import annotations

import json
from typing import Any

import fake_run
import pytest
from helpers import answered, drawn, make_app, text, unsafe, until
from textual.widgets import Input, Select

from tui_llm.training.plan import climb, ladder_rungs
from tui_llm.training.plan import ladder as ladders
from tui_llm.training.plan.ladder import Ladder
from tui_llm.training.plan.ladder_results import LadderReader
from tui_llm.tui.runs.ladder import LEAST_ROOM, LadderScreen, fitting, look
from tui_llm.tui.runs.new_ladder import NewLadderScreen, free_name


def make(name: str = "up", message: str = "") -> Ladder:
    ladder = Ladder(name, ("/texts/tales.txt",), "toy", "steps", 100.0, ladder_rungs.DEFAULT[:5])
    ladders.keep(ladder)
    for at, done in enumerate((100, 60)):
        run = fake_run.make(
            f"{name}-{at}-{ladder.rungs[at]}",
            done=done,
            state="finished" if done == 100 else "stopped",
            message=message,
        )
        config = run.config()
        run.write_config(type(config)(config.corpus, "toy", "cpu", ladders.settings_of(ladder, at, 100)))
    return ladder


async def test_the_screen_shows_table_and_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    started: list[str] = []
    monkeypatch.setattr(climb, "detach", lambda ladder: started.append(ladder.name))
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "number_sign")
        await until(pilot, lambda: isinstance(app.screen, LadderScreen) and "1 of 5 rungs" in text(app))
        shown = text(app)
        assert "100 steps a rung" in shown and "warm-momentum" in shown and "■ stopped" in shown
        assert "validation loss by tokens" in shown and "arXiv:2502.16982" in shown
        await pilot.press("w", "w", "w")  # of the third rung, which has not begun
        await until(pilot, lambda: "while the gradient turns quickly" in text(app).replace("\n", " "))
        await pilot.press("a")
        await until(pilot, lambda: "by seconds of the steps" in text(app))
        await pilot.press("e")
        await until(pilot, lambda: started == ["up"])
        await pilot.press("S")
        await pilot.press("y")
        await until(pilot, lambda: "gpt2\tfinished" in app.clipboard)
        for size in ((80, 24), (60, 16), (20, 5), (200, 60)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await pilot.resize_terminal(120, 40)
        await pilot.press("C")
        await until(pilot, lambda: type(app.screen).__name__ == "CurvesScreen")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, LadderScreen))


async def test_without_a_ladder_and_with_a_damaged_one(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "number_sign")
        await until(pilot, lambda: "no ladder yet" in text(app))
        await pilot.press("e", "S", "C", "x", "y", "left_square_bracket")
        make("one")
        screen: Any = app.screen
        await until(pilot, lambda: screen.reload() or "1 of 5 rungs" in text(app))
        ladders.path_of("one").write_text(json.dumps({"version": 1, "corpus": "\x1b[31m"}))
        await until(pilot, lambda: screen.reload() or "not a ladder (KeyError" in text(app).replace("\n", ""))
        assert not unsafe(drawn(app))


async def test_a_ladder_is_deleted_once_it_is_confirmed() -> None:
    first, second = make("one"), make("two", message="no space left on [device]")
    second.run(1).write_status("failed", "no space left on [device]")
    app = make_app()
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "number_sign")
        await until(pilot, lambda: "muon failed: no space left on [device]" in text(app))
        screen: Any = app.screen
        with fake_run.alive(second.run(1)):
            second.run(1).write_status("running")
            await until(pilot, lambda: screen.reload() or "● running" in text(app))
            await pilot.press("D")
            await until(pilot, lambda: "ladder two is being trained; S stops it first" in text(app))
        await until(pilot, lambda: screen.reload() or "✗ died" in text(app))
        await pilot.press("D")
        await until(
            pilot, lambda: "Delete ladder two and its 2 runs, with all checkpoints?" in text(app).replace("\n", " ")
        )
        await pilot.press("n")
        assert second.run(0).exists()
        await until(pilot, lambda: isinstance(app.screen, LadderScreen))
        await pilot.press("delete", "y")
        await until(pilot, lambda: not second.run(0).exists() and "one: 100 steps a rung" in text(app))
        assert ladders.names() == ["one"] and first.run(0).exists()
        ladders.path_of("one").write_text("{")
        await until(pilot, lambda: screen.reload() or "not valid JSON" in text(app))
        await pilot.press("D", "y")
        await until(pilot, lambda: "no ladder yet" in text(app))
        assert first.run(0).exists()


def test_an_error_of_a_ladder_in_the_background_is_shown_until_it_is_finished() -> None:
    ladder, reader = make(), LadderReader()
    climb.log_path("up").write_text("step 9\ntui-llm: no space left on device\n")
    assert look("up", reader).problem == "no space left on device"
    for at in range(5):
        if not ladder.run(at).exists():
            run = fake_run.make(ladder.run(at).name, done=100, state="finished")
            config = run.config()
            run.write_config(type(config)(config.corpus, "toy", "cpu", ladders.settings_of(ladder, at, 100)))
        ladder.run(at).write_status("finished")
    assert look("up", reader).problem == ""
    assert free_name() == "ladder"
    fake_run.make("ladder-0-gpt2")
    assert free_name() == "ladder-2"


async def test_the_form_starts_a_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Ladder] = []
    monkeypatch.setattr(climb, "detach", started.append)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "number_sign", "n")
        await until(pilot, lambda: isinstance(app.screen, NewLadderScreen))
        form = app.screen
        await pilot.press("ctrl+s")
        await until(pilot, lambda: form.query_one("#trouble").has_class("-some"))
        form.query_one("#corpus", Input).value = "stories"
        form.query_one("#amount", Input).value = "many"
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "the budget is 'many'" in text(app))
        form.query_one("#amount", Input).value = "2.5"
        form.query_one("#unit", Select).value = "minutes"
        form.query_one("#rungs", Input).value = "muon, gpt2"
        form.query_one("#set", Input).value = "width=64, seed=2"
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: bool(started))
        assert started == [
            Ladder(
                "ladder", ("stories",), "small", "minutes", 2.5, ("gpt2", "muon"), {"width": "64", "seed": "2"}, "auto"
            )
        ]
        await until(pilot, lambda: isinstance(app.screen, LadderScreen))


def test_the_columns_fit_any_terminal_and_lose_no_digit() -> None:
    for width in range(20, 240):
        columns = dict(fitting(width))
        assert LEAST_ROOM + 4 + sum(columns.values()) <= max(width, 21)
        assert "×tokens" in columns
    assert [name for name, _ in fitting(40)] == ["loss", "×tokens", "×time"]
    assert [name for name, _ in fitting(80)] == ["state", "loss", "tokens", "×tokens", "×time"]
    assert len(fitting(92)) == 7
