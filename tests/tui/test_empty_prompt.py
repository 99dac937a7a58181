"""Without a text, or with a single token, a screen that needs one says what to do."""

from __future__ import annotations

import dataclasses

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until

from tui_llm.facts.request import Request
from tui_llm.instruments.draws.question import DrawQuestion, HistogramQuestion
from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.instruments.tree.question import Known, KnownQuestion
from tui_llm.tui.instruments.draws.draw import DrawScreen
from tui_llm.tui.instruments.tree.lines import NO_TREE
from tui_llm.tui.instruments.tree.tree import TreeScreen
from tui_llm.tui.kit.text import NO_TEXT


def test_a_reading_without_tokens_is_empty() -> None:
    assert Request().empty
    for one in ({"prompt": " "}, {"continuation": (1,)}, {"start_token": True}, {"chat": True}):
        assert not dataclasses.replace(Request(), **one).empty


@pytest.mark.parametrize("keys", ["1 L", "1 E", "1 S", "1 C", "2 T", "2 F", "2 e", "5 D", "5 H"])
async def test_without_text_each_screen_says_what_to_do(keys: str) -> None:
    engine = FakeEngine()
    app = make_app(engine, prompt="")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys.split())
        await until(pilot, lambda: "there is no text yet" in drawn(app)[0])
        assert "i types some" in drawn(app)[0] and app.screen is app.lab_screen
        assert not any(isinstance(one, (DrawQuestion, HistogramQuestion, PairsQuestion)) for one in engine.questions)


async def test_a_start_token_alone_gives_a_prediction() -> None:
    engine = FakeEngine()
    app = make_app(engine, prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "5")
        await until(pilot, lambda: NO_TEXT in "".join(drawn(app)))
        await pilot.press("o")
        await answered(pilot, app.lab_screen)
        await until(pilot, lambda: "g draws one token" in "".join(drawn(app)))
        await pilot.press("D")  # this engine can't answer: the reason is shown in place of the draw
        await until(pilot, lambda: isinstance(app.screen, DrawScreen) and "internal error" in drawn(app)[1])


async def test_the_tree_without_text_says_what_to_do_and_opens_saved_trees() -> None:
    engine = FakeEngine()
    engine.answers[KnownQuestion] = lambda _asked: Known(engine.weights, (), ())  # type: ignore[arg-type]
    app = make_app(engine, prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "5", "T")
        await until(pilot, lambda: isinstance(app.screen, TreeScreen) and NO_TREE in drawn(app)[1])
        await until(pilot, lambda: "checking" not in drawn(app)[0])
        for key in ("e", "E", "g", "space", "x", "a", "right", "u"):
            await pilot.press(key)
        await pilot.pause()
        assert NO_TREE in drawn(app)[1] and "depth, token" not in "".join(drawn(app))
        assert [type(one) for one in engine.questions] == [KnownQuestion]
        await pilot.press("o")
        await until(pilot, lambda: bool(app.screen.query("#answer")))


async def test_one_token_makes_no_pair() -> None:
    engine = FakeEngine()
    app = make_app(engine, prompt="The")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        assert engine.weights is not None and app.lab_screen.reading is not None
        token = app.lab_screen.reading.tokens.tokens[0]
        one = Pairs(engine.weights, 1, 0, 1, (token,), (), None)
        engine.answers[PairsQuestion] = lambda _asked: one
        await pilot.press("escape", "1", "E")
        await until(pilot, lambda: "one token makes no pair" in drawn(app)[1])
        assert "i types more" in drawn(app)[1] and "1 tokens" not in "".join(drawn(app))
