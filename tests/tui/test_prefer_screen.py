"""Prefer on the screen: choose, undo, settings, typed answers, saving; the tiny real engine, and a fake with hostile tokens."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from copy_helpers import opened, tiny_model
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, text, unsafe, until
from test_late_answers import Held
from textual.pilot import Pilot

from tests import HANG
from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.facts.preference import DPOSettings, PairChange, PairState, RankedPair
from tui_llm.instruments.prefer.question import (
    AnswersQuestion,
    PreferQuestion,
    Preferred,
    PreferredAnswer,
    SavedPreferred,
    SavePreferredQuestion,
    TwoAnswers,
)
from tui_llm.llm.data import preference_pairs
from tui_llm.llm.tokens import tokenizer
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.prefer.prefer import PreferScreen


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@asynccontextmanager
async def preferring(
    model: str, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[LabApp, Pilot[None], PreferScreen]]:
    async with opened(PreferScreen, "j", model, size) as (app, pilot, screen):
        await until(pilot, lambda: screen.two is not None)
        yield app, pilot, screen


async def chosen(pilot: Pilot[None], screen: PreferScreen, count: int) -> None:
    await until(pilot, lambda: len(screen.ranked) == count and not screen.progress.doing)
    await pilot.pause()


async def test_a_choice_is_learned_shown_and_undone(tiny: str) -> None:
    async with preferring(tiny) as (app, pilot, screen):
        assert "nothing learned yet" in text(app) and "← A" in text(app) and "→ B" in text(app)
        two = screen.two
        assert two is not None
        await pilot.press("left")
        await chosen(pilot, screen, 1)
        assert screen.ranked[0] == RankedPair(two.prompt, two.left.ids, two.right.ids, screen.recipe)
        shown = text(app)
        assert "after 1 choice" in shown and "A, chosen" in shown and "B, rejected" in shown
        assert "margin" in shown and "reward(chosen)" in shown and "0.693" in shown and "KL(π ‖ ref)" in shown
        await pilot.press("left")  # a choice is made once
        await pilot.press("enter")
        await until(pilot, lambda: screen.two is not None and screen.chosen is None)
        assert screen.two is not None and screen.two.question.seeds == (3, 4)
        await pilot.press("right")
        await chosen(pilot, screen, 2)
        assert screen.ranked[1].chosen == screen.two.right.ids
        assert "of 2 pairs you ranked, the model agreed on" in text(app) and "of 1 before it learned them" in text(app)
        assert "loss before" in text(app) and "margin after" in text(app)
        rows = preference_pairs.read(Path(screen.file))
        assert len(rows) == 2 and Path(screen.file).parent == paths.data_dir() / "pairs"
        await pilot.press("u")
        await chosen(pilot, screen, 1)
        await until(pilot, lambda: screen.two is not None)
        assert screen.two.question.ranked == screen.ranked  # type: ignore[union-attr]
        assert len(preference_pairs.read(Path(screen.file))) == 1
        await pilot.press("u")
        await chosen(pilot, screen, 0)
        await until(pilot, lambda: screen.two is not None)
        await pilot.press("u")
        assert "nothing learned yet" in text(app)


async def test_the_copy_and_its_pairs_stay_when_the_screen_closes(tiny: str) -> None:
    async with preferring(tiny) as (app, pilot, screen):
        await pilot.press("right")
        await chosen(pilot, screen, 1)
        file = screen.file
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)
        await pilot.press("j")
        await until(pilot, lambda: isinstance(app.screen, PreferScreen) and app.screen.two is not None)
        again = app.screen
        assert isinstance(again, PreferScreen)
        assert again.ranked == screen.ranked and again.file == file and again.seeds == (3, 4)
        await pilot.press("left")
        await chosen(pilot, again, 2)
        assert len(preference_pairs.read(Path(file))) == 2


async def test_a_choice_that_is_being_learned_outlasts_a_screen_that_opens_again(tiny: str) -> None:
    async with preferring(tiny) as (app, pilot, screen):
        engine: Any = app.lab_screen.context.client._engine
        held = Held(engine.answer, lambda question, *_: isinstance(question, PreferQuestion) and question.ranked)
        engine.answer = held
        try:
            await pilot.press("right")
            await until(pilot, held.waits.is_set)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.lab_screen)
            await pilot.press("j")
            await until(pilot, lambda: isinstance(app.screen, PreferScreen) and app.screen.progress.doing)
            held.go.set()
            again = app.screen
            assert isinstance(again, PreferScreen)
            await until(pilot, lambda: again.two is not None)
            assert len(again.ranked) == 1 and len(preference_pairs.read(Path(screen.file))) == 1
        finally:
            held.go.set()


async def test_typed_answers_redraws_neither_and_settings(tiny: str) -> None:
    async with preferring(tiny) as (app, pilot, screen):
        await pilot.press("a", *" sat", "enter")
        await until(pilot, lambda: screen.two is not None and screen.texts[0] == " sat" and not screen.progress.doing)
        assert screen.two is not None and screen.two.left.seed is None
        assert list(screen.two.left.ids) == tokenizer.byte_level().encode(" sat")
        await pilot.press("b", *" sat", "enter")
        await until(pilot, lambda: screen.two is not None and screen.texts[1] == " sat" and not screen.progress.doing)
        await pilot.press("left")
        await pilot.pause()
        assert "are the same" in text(app) and "A is better" not in text(app) and not screen.ranked
        await pilot.press("r")
        await until(pilot, lambda: screen.two is not None and not screen.progress.doing)
        assert screen.texts == (" sat", None) and screen.seeds == (1, 3) and not screen.progress.problem
        await pilot.press("B", *["backspace"] * 5, *"0.5", "enter", "e", *["backspace"] * 8, *"0.01", "enter")
        await pilot.press("N", "backspace", "3", "enter", "f", "backspace", "1", "enter", "l")
        wanted = DPOSettings(0.5, True, 1.0)
        await until(pilot, lambda: screen.recipe.dpo == wanted)
        assert screen.recipe.steps == 3 and screen.recipe.learning_rate == 0.01
        await pilot.press("B", *["backspace"] * 5, *"-1", "enter", "N", "backspace", *"1.5", "enter")
        await pilot.pause()
        assert screen.recipe.dpo == wanted and screen.recipe.steps == 3
        await pilot.press("left")
        await chosen(pilot, screen, 1)
        assert screen.preferred is not None and len(screen.preferred.changes[0].losses) == 3
        await pilot.press("enter")
        await until(pilot, lambda: screen.two is not None and not screen.progress.doing)
        before = screen.seeds
        await pilot.press("equals_sign")
        await until(pilot, lambda: screen.two is not None and screen.seeds != before and not screen.progress.doing)
        assert len(screen.ranked) == 1
        await pilot.press("t", *["backspace"] * 5, "0", "enter")
        await until(pilot, lambda: screen.request.sampler.greedy and screen.two is not None)
        assert screen.two is not None and screen.two.left.ids == screen.two.right.ids
        await pilot.press("p", *"!", "enter")
        await until(pilot, lambda: screen.two is not None and screen.two.text == "!" and not screen.progress.doing)
        assert "after 1 choice" in text(app)


async def test_keep_writes_the_copy_which_opens_in_all_panes(tiny: str) -> None:
    async with preferring(tiny) as (app, pilot, screen):
        await pilot.press("k", "o")
        await pilot.pause()
        assert screen.is_current and not screen.saver.folder
        await pilot.press("left")
        await chosen(pilot, screen, 1)
        await pilot.press("k", *"mine", "enter")
        await until(pilot, lambda: screen.saver.folder)
        await pilot.press("k", *"mine", "enter")
        await until(pilot, lambda: "already exists" in screen.progress.problem)
        await pilot.press("o")
        weights = app.lab_screen.context
        await until(pilot, lambda: weights.weights is not None and weights.weights.name.endswith("mine"))
        assert app.screen is app.lab_screen
        await answered(pilot, app.lab_screen)


async def test_a_folder_that_refuses_pairs_is_said_and_learning_goes_on(tiny: str) -> None:
    (paths.data_dir()).mkdir(parents=True, exist_ok=True)
    (paths.data_dir() / "pairs").write_text("a file where the folder should be")
    async with preferring(tiny) as (app, pilot, screen):
        await pilot.press("left")
        await chosen(pilot, screen, 1)
        assert "the pairs are not saved: can't write" in text(app) and "margin" in text(app)


# ── a fake: hostile tokens, both answers falling, failures ───────────────────────────────────────────────────────


class FakePreferences:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.fail = engine, ""
        engine.answers[AnswersQuestion] = self.draw
        engine.answers[PreferQuestion] = self.prefer
        engine.answers[SavePreferredQuestion] = lambda question: SavedPreferred(question.name, f"/m/{question.name}", 1)

    def draw(self, question: AnswersQuestion) -> TwoAnswers:
        if self.fail:
            raise UserError(self.fail)
        assert self.engine.weights is not None
        tokens = tuple(self.engine.token(id) for id in range(14))
        left = PreferredAnswer(tokens, tuple(-0.1 * 2**at for at in range(14)), 1, True)
        return TwoAnswers(question, self.engine.weights, (1, 2), "[/]\x1b[red]", left, dataclasses.replace(left, tokens=tokens[::-1]))  # fmt: skip

    def prefer(self, question: PreferQuestion) -> Preferred:
        if self.fail and question.ranked:
            raise UserError(self.fail)
        assert self.engine.weights is not None
        ranked = question.ranked or ()
        before, after = (
            PairState(-30.0, -31.0, 0.0, 0.0, 0.0, math.log(2)),
            PairState(-30.5, -34.0, -0.05, -0.3, 0.25, 0.576),
        )
        tokens = tuple(self.engine.token(id) for id in range(14)) if ranked else ()
        logs = tuple((-1.0, -1.0 + 0.2 * (at - 6)) for at in range(14))
        changes = tuple(PairChange(before, after, (math.log(2),), logs, logs, None if not at else at % 3 > 0, 0.01, 1, 3 * at) for at in range(len(ranked)))  # fmt: skip
        return Preferred(question, self.engine.weights, ranked, changes, tokens, tokens, 1, 1 << 20, question.file, "")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (30, 10), (1, 1)])
async def test_hostile_tokens_at_every_size(size: tuple[int, int]) -> None:
    engine = FakeEngine(hostile=True)
    FakePreferences(engine)
    app = make_app(engine)
    async with app.run_test(size=size) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "j")
        await until(pilot, lambda: isinstance(app.screen, PreferScreen) and app.screen.two is not None)
        screen = app.screen
        assert isinstance(screen, PreferScreen)
        for count in range(1, 4):
            assert not unsafe(drawn(app))
            await pilot.press("n", "left")
            await chosen(pilot, screen, count)
            assert not unsafe(drawn(app))
            await pilot.press("enter")
            await until(pilot, lambda: screen.two is not None and screen.chosen is None)
        await pilot.press("y")
        assert "\x1b" not in app.clipboard and "margin after" in app.clipboard and "A\t0\t" in app.clipboard


async def test_both_fell_is_said_with_its_reason_and_a_failure_keeps_the_answers() -> None:
    engine = FakeEngine()
    fake = FakePreferences(engine)
    app = make_app(engine)
    async with app.run_test(size=(120, 60)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "j")
        await until(pilot, lambda: isinstance(app.screen, PreferScreen) and app.screen.two is not None)
        screen = app.screen
        assert isinstance(screen, PreferScreen)
        fake.fail = "with a learning rate of 1 [/] the numbers\nare no longer finite"
        await pilot.press("left")
        await until(pilot, lambda: screen.progress.problem)
        await pilot.pause()
        assert "with a learning rate of 1 [/] the numbers are" in text(app) and "→ B" in text(app)
        fake.fail = ""
        await pilot.press("left")
        await chosen(pilot, screen, 1)
        assert DPOSettings().both_fell[:60] in text(app) and "the numbers" not in text(app)
        await pilot.press("enter", "left")
        await chosen(pilot, screen, 2)
        assert "the prompt's first 3 tokens did not fit" in text(app)
        with_sft = DPOSettings(sft_weight=1.0)
        screen.recipe = dataclasses.replace(screen.recipe, dpo=with_sft)
        await pilot.press("enter", "left")
        await chosen(pilot, screen, 3)
        assert with_sft.both_fell[:60] in text(app) and "only the difference" not in text(app)


# ── a process that is killed ─────────────────────────────────────────────────────────────────────────────────────

SCRIPT = """
import asyncio, sys
from textual.pilot import Pilot
from tui_llm.engine import PipelineEngine
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.prefer.prefer import PreferScreen

Pilot._wait_for_screen.__defaults__ = (float(sys.argv[2]),)

async def main():
    app = LabApp(lambda: PipelineEngine("cpu"), model=sys.argv[1], prompt="The cat")
    async with app.run_test(size=(80, 24)) as pilot:
        async def until(condition):
            while not condition():
                await pilot.pause()
                await asyncio.sleep(0.002)
        lab = app.lab_screen
        await until(lambda: lab.reading is not None)
        await pilot.press("escape", "j")
        await until(lambda: isinstance(app.screen, PreferScreen))
        screen = app.screen
        for count in (1, 2):
            await until(lambda: screen.two is not None and screen.chosen is None)
            await pilot.press("left")
            await until(lambda: len(screen.ranked) == count)
            await pilot.press("enter")
        print(screen.file, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killing_the_app_between_choices_loses_no_pair(tiny: str) -> None:
    command = [sys.executable, "-c", SCRIPT, tiny, str(HANG)]
    app = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert app.stdout is not None
        file = Path(app.stdout.readline().strip())
        app.send_signal(signal.SIGKILL)
        assert app.wait() == -signal.SIGKILL
    finally:
        app.kill()
    assert [one.prompt for one in preference_pairs.read(file)] == ["The cat"] * 2
