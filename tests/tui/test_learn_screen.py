"""Learn this on the screen: steps, undo, another optimizer, saving the copy; the answers are the fake engine's."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, text, unsafe, until
from textual.pilot import Pilot

from tests import HANG
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.facts.pin import Pin
from tui_llm.facts.recipe import LearnStep, Recipe
from tui_llm.facts.request import Target
from tui_llm.instruments.learn.question import (
    CandidateChange,
    KeepQuestion,
    Kept,
    Learned,
    LearnQuestion,
    PinChange,
    TargetState,
)
from tui_llm.training.run import pins
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.copy_saver import WRITING
from tui_llm.tui.instruments.learn.learn import LearnScreen
from tui_llm.tui.instruments.learn.lines import LearnedLines

HOSTILE = Pin("a\x1b[31m[red]\u202e漢e\u0301", "[/]\x9b1m")


class FakeLearner:
    """A fake in which each step halves the loss; it records the recipes as the instrument does."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.plan = engine, []
        engine.answers[LearnQuestion] = self.learn
        engine.answers[KeepQuestion] = self.keep
        self.kept: list[str] = []

    def learn(self, question: LearnQuestion) -> Learned:
        if question.recipe.learning_rate > 0.5 and question.at > len(self.plan):
            raise UserError("with a step size of 1 [/] the logits\nare no longer finite")
        self.plan = self.plan[: question.at] + [question.recipe] * (question.at - len(self.plan))
        losses = [4.0 * 0.5**n for n in range(question.at + 1)]
        states = [TargetState(loss, math.exp(-loss), 3) for loss in losses]
        token = self.engine.token
        assert self.engine.weights is not None
        return Learned(
            question,
            self.engine.weights,
            question.request.prompt,
            (token(question.request.target.id or 0),) if question.request.target else (),
            states[0],
            states[-1],
            tuple(CandidateChange(token(id), 0.1, 0.2 / (id + 1), 2, 1, id == 0) for id in range(12)),
            tuple(
                PinChange(w, 1.0, 1.5, 0.4, 0.3, token(1), token(2), 0.01)
                if w.target
                else PinChange(w, None, None, None, None, token(1), token(2), 0.01)
                for w in question.pins
            ),
            tuple(
                LearnStep(n, recipe, 3.0, loss, math.exp(-loss))
                for n, (recipe, loss) in enumerate(zip(self.plan, losses[1:], strict=True), 1)
            ),
            68_000_000,
            len(self.plan),
            17_000_000 * len(self.plan),
        )

    def keep(self, question: KeepQuestion) -> Kept:
        if question.name == "taken":
            raise UserError("there is a taken [/] already; choose another name")
        self.kept.append(question.name)
        return Kept(question.name, f"/models/{question.name}", len(self.plan))


@asynccontextmanager
async def learning(
    size: tuple[int, int] = (80, 24), hostile: bool = False
) -> AsyncIterator[tuple[LabApp, Pilot[None], LearnScreen, FakeLearner]]:
    engine = FakeEngine(hostile)
    fake = FakeLearner(engine)
    app = make_app(engine)
    async with app.run_test(size=size) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.target = Target(id=0)
        lab.readings.request()
        await answered(pilot, lab)
        await pilot.press("escape", "3", "L")
        await until(pilot, lambda: isinstance(app.screen, LearnScreen) and app.screen.learned)
        assert isinstance(app.screen, LearnScreen)
        yield app, pilot, app.screen, fake


async def at(pilot: Pilot[None], screen: LearnScreen, steps: int) -> None:
    await until(pilot, lambda: not screen.progress.doing and screen.learned and len(screen.learned.steps) == steps)


async def test_steps_and_undo_with_the_users_optimizer_and_step_size() -> None:
    async with learning() as (app, pilot, screen, fake):
        assert "nothing learned yet" in text(app) and "no prompt is pinned" in "\n".join(
            line.plain for line in screen.query_one(LearnedLines)._lines
        )
        await pilot.press("space")
        await at(pilot, screen, 1)
        assert "after 1 step " in text(app) and "loss 4.000 → 2.000 nats" in text(app) and "(−2.000)" in text(app)
        await pilot.press("o", "right_square_bracket", "space")
        await at(pilot, screen, 2)
        assert fake.plan == [Recipe("sgd", 1e-3), Recipe("adamw", 2e-4)]
        assert "AdamW 0.0002" in text(app) and "after 2 steps" in text(app)
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert screen.recipe == Recipe("adamw", 5e-5)
        await pilot.press("e", *["backspace"] * 8, *"0.25", "enter")
        await until(pilot, lambda: screen.recipe == Recipe("adamw", 0.25))
        await pilot.press("e", *["backspace"] * 8, *"[/]", "enter")
        await pilot.pause()
        assert screen.recipe == Recipe("adamw", 0.25)
        await pilot.press("n", "enter")
        await at(pilot, screen, 7)
        await pilot.press("u")
        await at(pilot, screen, 6)
        await pilot.press("r")
        await at(pilot, screen, 0)
        await pilot.press("u")
        await pilot.pause()
        assert screen.at == 0
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_a_failed_step_is_one_line_and_keeps_the_copy() -> None:
    async with learning() as (app, pilot, screen, _):
        await pilot.press("space")
        await at(pilot, screen, 1)
        screen.recipe = Recipe("sgd", 1.0)
        await pilot.press("space")
        await until(pilot, lambda: screen.progress.problem)
        await pilot.pause()
        assert "with a step size of 1 [/] the logits are" in text(app)
        assert screen.at == 1
        screen.recipe = Recipe()
        await pilot.press("space")
        await at(pilot, screen, 2)
        assert "the logits are" not in text(app)


async def test_saving_asks_for_a_name_and_refuses_an_existing_one() -> None:
    async with learning() as (_, pilot, screen, fake):
        await pilot.press("k")
        await pilot.pause()
        assert not fake.kept and screen.is_current
        await pilot.press("space")
        await at(pilot, screen, 1)
        await pilot.press("k", *"taken", "enter")
        await until(pilot, lambda: "taken [/] already" in screen.progress.problem)
        await pilot.press("k", *"mine", "enter")
        await until(pilot, lambda: fake.kept == ["mine"] and not screen.progress.doing)
        assert not screen.progress.problem


async def test_the_pinned_prompts_are_shown_and_all_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    pins.write(paths.pins_path(), [Pin("Once upon a", " time"), Pin("A dog"), HOSTILE])
    async with learning((120, 40), hostile=True) as (app, pilot, screen, _):
        copied: list[str] = []
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        await pilot.press("space")
        await at(pilot, screen, 1)
        await pilot.press("y")
        assert screen.learned is not None and len(screen.learned.pins) == 3
        assert not unsafe(drawn(app))
        for words in ("Once upon a", "·time", "KL", "sgd", "0.001", repr(math.exp(-2.0))):
            assert words in copied[0] or words in text(app)
        assert "Once upon a\t time\t1.0\t1.5" in copied[0]
        assert not unsafe(copied[0].replace("\t", "").splitlines())
        for width, height in ((1, 1), (64, 20), (200, 60)):
            await pilot.resize_terminal(width, height)
            for key in ("end", "home"):
                await pilot.press(key)
                await pilot.pause()
                assert not unsafe(drawn(app))


async def test_nothing_to_learn_without_a_prediction() -> None:
    engine = FakeEngine()
    FakeLearner(engine)
    app = make_app(engine, prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "3", "L")
        await pilot.pause()
        assert app.screen is app.lab_screen and not engine.questions


async def test_a_question_superseded_by_closing_the_screen_reports_nothing() -> None:
    async with learning() as (app, pilot, screen, _):
        await pilot.press("space")
        screen.dismiss(None)
        await until(pilot, lambda: app.screen is app.lab_screen)
        await pilot.press("L")
        await until(pilot, lambda: isinstance(app.screen, LearnScreen) and app.screen is not screen)
        await until(pilot, lambda: app.screen.learned)


async def test_at_60_columns_no_number_is_broken_and_no_note_is_cut() -> None:
    async with learning((60, 24)) as (app, pilot, *_):
        await pilot.press("space")
        await until(pilot, lambda: "after 1 step" in drawn(app)[0])
        assert "…" not in drawn(app)[0]
        assert any("rank 3 → 3" in line for line in drawn(app))


async def test_the_rank_of_a_target_of_several_tokens_is_called_that_of_its_first() -> None:
    async with learning() as (app, pilot, screen, fake):
        assert any("rank 3 → 3" in line for line in drawn(app))
        assert screen.learned is not None
        two = (fake.engine.token(1), fake.engine.token(2))
        screen.query_one(LearnedLines).show(dataclasses.replace(screen.learned, target=two))
        await until(pilot, lambda: any("rank of its first token 3 → 3" in line for line in drawn(app)))


async def test_esc_first_cancels_the_steps_that_are_taken_and_a_second_one_closes() -> None:
    async with learning() as (app, pilot, screen, fake):
        await pilot.press("space")
        await at(pilot, screen, 1)
        waiting, go_on, learn = threading.Event(), threading.Event(), fake.learn

        def slow(question: LearnQuestion) -> Learned:
            if question.at > 1:
                waiting.set()
                assert go_on.wait(HANG)
            return learn(question)

        fake.engine.answers[LearnQuestion] = slow
        await pilot.press("n", "space")
        await until(pilot, waiting.is_set)
        assert screen._can_cancel
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is screen and screen.at == 1
        go_on.set()
        await at(pilot, screen, 1)
        assert len(fake.plan) == 1 and "after 1 step " in text(app)  # what is shown is what the copy is
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_esc_closes_while_the_folder_is_written() -> None:
    async with learning() as (app, pilot, screen, fake):
        await pilot.press("space")
        await at(pilot, screen, 1)
        go_on, keep = threading.Event(), fake.keep

        def slow(question: KeepQuestion) -> Kept:
            assert go_on.wait(HANG)
            return keep(question)

        fake.engine.answers[KeepQuestion] = slow
        await pilot.press("k", *"mine", "enter")
        await until(pilot, lambda: screen.progress.doing == WRITING)
        assert not screen._can_cancel  # nothing says that Esc does
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)
        go_on.set()
        await until(pilot, lambda: fake.kept == ["mine"])
