"""What was asked, drawn or typed for one text, model or question is never shown as that of another one."""

from __future__ import annotations

import dataclasses
import threading
from types import SimpleNamespace
from typing import Any

import fake_run
import pytest
from draw_helpers import draw_tokens, make_engine
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until, workers_done
from test_closing_keys import Unwilling, quiet
from test_guess_screen import dealt
from test_guess_screen import opened as guessing
from test_runs_screen import ScreenApp
from textual.pilot import Pilot

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Target
from tui_llm.instruments.guess.question import BetsQuestion
from tui_llm.instruments.steer.question import SteerQuestion
from tui_llm.instruments.vocabulary.question import FindQuestion
from tui_llm.tui.instruments.ablate.ablate import AblateScreen
from tui_llm.tui.instruments.backward import BackwardScreen
from tui_llm.tui.instruments.block import BlockScreen
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.instruments.lens_grid import LensGridScreen
from tui_llm.tui.instruments.patch.patch import PatchScreen
from tui_llm.tui.instruments.steer import SteerScreen
from tui_llm.tui.instruments.why.why import WhyScreen
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.lab.lab import LabScreen
from tui_llm.tui.models.pull import ModelPull
from tui_llm.tui.runs import new_run
from tui_llm.tui.runs.curves.screen import CurvesScreen
from tui_llm.tui.runs.new_run import NewRunScreen
from tui_llm.tui.state.messages import ReadingReady


async def reopen(pilot: Pilot[None], lab: LabScreen, engine: FakeEngine, model: str) -> None:
    count = len(engine.opened)
    lab.models.open(model)
    await until(pilot, lambda: len(engine.opened) > count and lab.weights is not None and lab.weights.name == model)
    await answered(pilot, lab)


# ── drawn tokens and the model ───────────────────────────────────────────────────────────────────────────────────


async def test_drawn_tokens_stay_where_the_same_model_is_opened_and_go_with_another() -> None:
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5")
        await draw_tokens(pilot, lab, 2)
        steps = lab.lab.steps
        await reopen(pilot, lab, engine, "nano")
        assert lab.lab.steps == steps and not lab.lab.note
        await pilot.press("u", "U")
        assert lab.lab.steps == steps
        await reopen(pilot, lab, engine, "other")
        assert not lab.lab.steps and "the model changed" in lab.lab.note
        await pilot.press("u")
        assert not lab.lab.steps
        await answered(pilot, lab)
        assert lab.reading is not None and not lab.reading.request.continuation


async def test_a_token_asked_for_while_another_model_opens_does_not_follow_those_of_the_old_one() -> None:
    engine, opens = make_engine(), threading.Event()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5")
        await draw_tokens(pilot, lab, 2)
        open_at_once = engine.open

        def held(model: str) -> Weights:
            opens.wait()
            return open_at_once(model)

        engine.open = held  # type: ignore[method-assign]
        lab.models.open("other")
        lab.generation.draw()  # as `g` does
        opens.set()
        await until(pilot, lambda: lab.weights is not None and lab.weights.name == "other")
        await answered(pilot, lab)
        assert not lab.lab.steps and lab.generation.job is None
        assert lab.reading is not None and not lab.reading.request.continuation
        await draw_tokens(pilot, lab, 1)


async def test_a_reading_with_tokens_that_the_lab_did_not_take_is_not_shown() -> None:
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        reading = lab.reading
        assert reading is not None
        stopped = dataclasses.replace(reading, request=dataclasses.replace(reading.request, continuation=(1, 2)))
        asked = len(engine.requests)
        lab._reading_ready(ReadingReady(stopped))
        assert lab.reading is reading
        await answered(pilot, lab)
        assert len(engine.requests) == asked + 1 and lab.reading is not None and not lab.reading.request.continuation


HELD = (AblateScreen, BackwardScreen, BlockScreen, InsideScreen, LensGridScreen, PatchScreen, SteerScreen, WhyScreen)


@pytest.mark.parametrize("kind", HELD, ids=lambda kind: kind.__name__)
async def test_a_screen_over_the_lab_asks_another_model_for_the_labs_text(kind: type[Any]) -> None:
    """The drawn tokens are of the old model's vocabulary, as is a target that was chosen as a row."""
    engine = make_engine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5")
        await draw_tokens(pilot, lab, 2)
        lab.lab.choose_target(Target(id=5))
        engine.answer = Unwilling().answer  # type: ignore[method-assign]
        context, request = lab.context, lab.lab.current_request()
        screen = InsideScreen(context, request, lab.lab.target) if kind is InsideScreen else quiet(kind(context))
        app.push_screen(screen)
        await until(pilot, lambda: app.screen is screen and screen.is_mounted)
        asks = getattr(screen, "page", screen)
        assert len(asks.request.continuation) == 2
        await reopen(pilot, lab, engine, "other")
        assert asks.request.continuation == ()
        target = getattr(screen, "target", asks.request.target)
        assert target is None or target.id is None
        await pilot.pause()
        assert app.screen is screen


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_row_of_the_old_models_table_is_no_target_of_the_new_one() -> None:
    engine = FakeEngine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "2", "down")
        engine.gate.clear()
        lab.models.open("other")
        await until(pilot, lambda: lab.weights is not None and lab.weights.name == "other")
        assert lab.reading is not None and lab.reading.weights != lab.weights
        await pilot.press("enter")
        assert lab.lab.target is None
        await pilot.press("e")
        assert app.screen is lab
        engine.gate.set()
        await answered(pilot, lab)
        await pilot.press("enter")
        assert lab.lab.target is not None
        await pilot.press("e")
        assert isinstance(app.screen, AskScreen)


async def test_a_search_that_is_overtaken_is_made_in_the_new_table() -> None:
    engine = FakeEngine()
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "2")
        table = lab.candidate_table
        first = lab.reading
        table._seek("w9", -1)
        lab.readings.request()  # before the answer
        await answered(pilot, lab)
        assert lab.reading is not first
        asked = [one for one in engine.questions if isinstance(one, FindQuestion)]
        await until(
            pilot,
            lambda: any(
                isinstance(one, FindQuestion) and lab.reading and one.request is lab.reading.request
                for one in engine.questions
            ),
        )
        await pilot.pause()
        assert len(asked) <= 2 and lab.panes["logits"].search_words


# ── instruments ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_bets_that_are_being_read_count_for_the_token_they_were_typed_for() -> None:
    engine, go = FakeEngine(), threading.Event()
    dealt(engine)
    read = engine.answers[BetsQuestion]

    def held(question: BetsQuestion) -> Any:
        go.wait()
        return read(question)

    engine.answers[BetsQuestion] = held
    app = make_app(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await guessing(pilot, app)
        await pilot.press("t", *"mat 50", "enter", "enter", "enter")
        assert screen.shown is None and screen.betting
        go.set()
        await until(pilot, lambda: 60 in screen.bets.values())
        await pilot.press("enter")
        assert screen.shown is not None and [bet.percent for bet in screen.shown.bets] == [60]


def steering(number: int) -> Any:
    """Enough of an answer for what is looked at here."""
    return SimpleNamespace(direction=SimpleNamespace(layer=2), coefficient=number, intervention=None)


async def test_a_new_coefficient_is_not_printed_over_the_old_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.direction = dataclasses.replace(lab.lab.direction, toward="calm", against="angry", layer=2)
        asked: list[Any] = []
        monkeypatch.setattr(lab.context.questions, "ask", lambda *given: asked.append(given[1]))
        monkeypatch.setattr(SteerScreen, "_tables", lambda *_: [])
        monkeypatch.setattr(SteerScreen, "_texts", lambda *_: [])
        screen = SteerScreen(lab.context)
        app.push_screen(screen)
        await until(pilot, lambda: app.screen is screen and screen.is_mounted)
        screen._take(steering(1))
        assert screen.shown is not None and "computing" not in "\n".join(drawn(app))
        await pilot.press("plus")
        steers = [one for one in asked if isinstance(one, SteerQuestion)]  # not the automatic ones for ghost text
        assert screen.shown is None and len(steers) == 2 and "computing" in "\n".join(drawn(app))
        assert len(list(screen.table())) == 1
        await pilot.press("enter")  # uses nothing that is not shown
        assert app.screen is screen
        screen._take(steering(2))
        assert screen.shown is not None


# ── runs and models ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_keys_before_the_curves_are_read() -> None:
    run = fake_run.make("curves", done=20)
    screen, go = CurvesScreen([run]), threading.Event()
    read = screen.readers[0].read

    def held() -> Any:
        go.wait()
        return read()

    screen.readers[0].read = held  # type: ignore[method-assign]
    app = ScreenApp(screen)
    async with app.run_test(size=(100, 30)) as pilot:
        for key in ("left", "right", "home", "end", "a", "l", "plus", "minus"):
            await pilot.press(key)
        assert app._exception is None
        go.set()
        await until(pilot, lambda: screen._loaded)
        await pilot.press("left")
        await workers_done(pilot)
        assert app._exception is None


async def test_a_field_without_an_effect_keeps_no_run_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(NewRunScreen, "_first_wrong", lambda *_, **__: False)
    monkeypatch.setattr(NewRunScreen, "_start", lambda *given: started.append(given))
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(100, 30)) as pilot:
        form = app.screen
        form.query_one("#minutes").value = "10m"  # type: ignore[attr-defined]
        form.query_one("#objective").value = "preference"  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: started)  # another objective has the text checked again, and a start waits for that
        assert len(started) == 1 and app._exception is None


async def test_a_letter_of_the_name_cancels_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_run, "SETTLE", 1e6)
    app = ScreenApp(NewRunScreen())
    async with app.run_test(size=(100, 30)) as pilot:
        form = app.screen
        assert isinstance(form, NewRunScreen)
        form.query_one("#name").value = "mine"  # type: ignore[attr-defined]
        form.query_one("#preset").value = "small"  # type: ignore[attr-defined]
        await pilot.pause()
        forgotten: list[None] = []
        monkeypatch.setattr(form.estimate, "forget", lambda: forgotten.append(None))
        form.query_one("#name").focus()
        await pilot.press("x")
        assert form.text("name").endswith("x") and not forgotten
        form.query_one("#steps").focus()
        await pilot.press("7")
        assert forgotten


def test_one_model_is_pulled_at_a_time() -> None:
    answers: list[Any] = []
    said: list[str] = []
    app = SimpleNamespace(push_screen=lambda _screen, answered: answers.append(answered))
    works: list[Any] = []
    owner: Any = SimpleNamespace(app=app, run_worker=lambda work, **_: works.append(work))
    files: Any = SimpleNamespace(notify=lambda line, *_: said.append(line))
    pull = ModelPull(owner, files, SimpleNamespace())  # type: ignore[arg-type]
    pull.cancel()
    assert said == ["nothing is being pulled"]
    pull.ask()
    pull.ask()  # two quick presses: neither is answered yet
    for answered_ in answers:
        answered_("gpt2")
    assert len(works) == 1 and "pulled already" in said[-1]
    pull.ask()
    assert len(answers) == 2 and "pulled already" in said[-1]
    pull.cancel()  # before its process has begun
    assert pull._cancelled and said[-1] != "nothing is being pulled"
