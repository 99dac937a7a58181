"""What the user switched or saved is not lost when its answer arrives late: after another screen, another model, or F2."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fake_engine import FakeEngine
from helpers import answered, make_app, until
from test_late_answers import Held, everything_answered, said
from textual.pilot import Pilot

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.interventions import HEAD, MLP, Intervention, ModelPart
from tui_llm.instruments.ablate.question import (
    AblateQuestion,
    Ablation,
    EffectsQuestion,
    Reference,
    ReferenceQuestion,
    TargetValues,
)
from tui_llm.instruments.heads.question import HeadsQuestion
from tui_llm.instruments.sft.question import InstructQuestion
from tui_llm.tour.step import Ask
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.ablate.ablate import AblateScreen
from tui_llm.tui.instruments.heads import HeadsScreen
from tui_llm.tui.instruments.sft.pairs import InstructionPairsScreen, PairsEditor
from tui_llm.tui.state.messages import ModelOpened

# ── Switch off ───────────────────────────────────────────────────────────────────────────────────────────────────

OFF, HEAD_OFF = Intervention(ModelPart(MLP, 1)), Intervention(ModelPart(HEAD, 0, 0))
VALUES = TargetValues(1.0, 2.0, 0.1, 3)


@asynccontextmanager
async def switching_on(problem: str = "") -> AsyncIterator[tuple[LabApp, Pilot[None], Held]]:
    """Switch off, in which a key has asked to switch on the one part that is off; the answer, or the problem, is held."""
    engine = FakeEngine()

    def state(question: AblateQuestion) -> Ablation:
        if problem and question.interventions != (OFF,):
            raise UserError(problem)
        assert engine.weights is not None
        return Ablation(engine.weights, (engine.token(1),), "next", question.interventions, VALUES, VALUES)

    def nothing(_question: Any) -> Any:
        raise UserError("nothing here")

    held = Held(state, lambda question: question.interventions == ())
    engine.answers = {
        ReferenceQuestion: lambda _: Reference((1, 2), 0, 2),
        EffectsQuestion: nothing,
        HeadsQuestion: nothing,
        AblateQuestion: held,
    }
    app = make_app(engine)
    try:
        async with app.run_test(size=(100, 30)) as pilot:
            lab = app.lab_screen
            await answered(pilot, lab)
            lab.lab.intervene((OFF,))
            await pilot.press("escape", "exclamation_mark")
            await until(pilot, lambda: isinstance(app.screen, AblateScreen) and app.screen.state and app.screen.problem)
            await pilot.press("0")
            await until(pilot, held.waits.is_set)
            yield app, pilot, held
            assert app._exception is None
    finally:
        held.go.set()


async def close(pilot: Pilot[None], app: LabApp) -> None:
    screen = app.screen
    await pilot.press("escape")
    await until(pilot, lambda: app.screen is app.lab_screen and not screen.query("*"))


@pytest.mark.parametrize("problem", ["", "no memory"], ids=["answer", "problem"])
async def test_a_part_that_was_switched_before_the_screen_closed_is_switched_or_said_why_not(problem: str) -> None:
    async with switching_on(problem) as (app, pilot, held):
        await close(pilot, app)
        held.go.set()
        await everything_answered(pilot, app)
        assert app.lab_screen.lab.interventions == ((OFF,) if problem else ())
        assert ("no memory" in said(app)) == bool(problem)


@pytest.mark.parametrize(("key", "kind"), [("exclamation_mark", AblateScreen), ("asterisk", HeadsScreen)])
async def test_a_switch_outlasts_a_screen_that_opens_before_it_is_answered(key: str, kind: Any) -> None:
    async with switching_on() as (app, pilot, held):
        await close(pilot, app)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, kind) and app.screen.query("*") and app.screen.is_mounted)
        again: Any = app.screen
        assert app.lab_screen.context.wanted_parts() == () and app.lab_screen.lab.interventions == (OFF,)
        if kind is AblateScreen:
            assert "switching" in again.subject()
        held.go.set()
        await everything_answered(pilot, app)
        assert app.lab_screen.lab.interventions == ()
        await everything_answered(pilot, app)  # what the screen asked for once the part was on
        shown = again.state if kind is AblateScreen else again.loss
        assert app.screen is again and shown.interventions == (), "the screen shows the model as it is now"
        assert app.lab_screen.context.wanted_parts() is None


async def test_two_switches_are_both_made() -> None:
    """Heads switches at once."""
    async with switching_on() as (app, pilot, held):
        await close(pilot, app)
        app.lab_screen.context.intervene((OFF, HEAD_OFF))
        held.go.set()
        await everything_answered(pilot, app)
        await everything_answered(pilot, app)  # the switch is asked for again, on top of the other one
        assert app.lab_screen.lab.interventions == (HEAD_OFF,)


async def test_a_switch_that_starts_from_one_that_is_not_made_yet_makes_both() -> None:
    async with switching_on() as (app, pilot, held):
        screen = app.screen
        assert isinstance(screen, AblateScreen) and screen.own is not None
        await pilot.press("enter")  # the part under the cursor
        held.go.set()
        await everything_answered(pilot, app)
        assert [one.part for one in app.lab_screen.lab.interventions] == [screen.part]


async def test_switching_all_on_elsewhere_drops_a_switch_that_is_not_made_yet() -> None:
    async with switching_on() as (app, pilot, held):
        await pilot.press("enter")
        assert app.lab_screen.context.wanted_parts()
        await close(pilot, app)
        await pilot.press("0")
        held.go.set()
        await everything_answered(pilot, app)
        assert app.lab_screen.lab.interventions == () and app.lab_screen.context.wanted_parts() is None


async def test_a_newer_checkpoint_does_not_drop_a_switch() -> None:
    async with switching_on() as (app, pilot, held):
        weights = app.lab_screen.context.weights
        assert weights is not None
        app.lab_screen.post_message(ModelOpened(weights, fresh=False))
        await pilot.pause()
        held.go.set()
        await everything_answered(pilot, app)
        assert app.lab_screen.lab.interventions == ()


async def test_another_model_drops_a_switch_and_says_so() -> None:
    async with switching_on() as (app, pilot, held):
        weights = app.lab_screen.context.weights
        assert weights is not None
        app.lab_screen.post_message(ModelOpened(weights))  # before the answer
        await pilot.pause()
        held.go.set()
        await everything_answered(pilot, app)
        assert app.lab_screen.lab.interventions == (OFF,) and "switch it again" in said(app)


# ── the tour's own tuning ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("written", [True, False], ids=["written", "stopped"])
@pytest.mark.parametrize("end", ["closed", "newer pairs"])
async def test_a_folder_that_the_tours_tuning_has_written_is_told(end: str, written: bool) -> None:
    """`end`: what drops the tuning; `written`: it comes too late for that."""
    engine, names = FakeEngine(), iter(["first", "second"])

    def tuned(_question: InstructQuestion) -> Any:
        name = next(names)
        if name == "first" and not written:
            raise Overtaken
        return SimpleNamespace(folder=f"/models/{name}", name=name, losses=(), question=_question, after=0.0, before=1.0,
                               answer_tokens=1, tokens=2)  # fmt: skip

    held = Held(tuned)
    engine.answers[InstructQuestion] = held
    app = make_app(engine)

    async def pairs() -> None:
        app.lab_screen.tour._ask_pairs(Ask("pairs", "Pairs", "", "a => b", "pairs"))
        await until(pilot, lambda: isinstance(app.screen, InstructionPairsScreen) and app.screen.query(PairsEditor))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.screen is app.lab_screen)

    try:
        async with app.run_test(size=(120, 40)) as pilot:
            lab, lines = app.lab_screen, []
            await answered(pilot, lab)
            lab.context.notify = lines.append  # type: ignore[method-assign]
            lab.tour.toggle()
            await pairs()
            await until(pilot, held.waits.is_set)
            if end == "closed":
                await pilot.press("f2")
                assert lab.tour.tour is None and "is stopped; F2 opens the tour again" in lines[-1]
            else:
                await pairs()
            held.go.set()
            await everything_answered(pilot, app)
            await everything_answered(pilot, app)
            assert any("/models/first" in line and "m opens it" in line for line in lines) == written
            assert engine.opened == ["nano", *(["second"] if end == "newer pairs" else [])]
            if end == "closed":
                await pilot.press("f2")
                lab.tour._ask_pairs(Ask("pairs", "Pairs", "", "another => one", "pairs"))
                await until(pilot, lambda: app.screen.query(PairsEditor))
                assert app.screen.query_one(PairsEditor).prompt_text == "a => b", "what was typed is there again"
            else:
                assert lab.tour._answers[InstructQuestion].name == "second"
    finally:
        held.go.set()
