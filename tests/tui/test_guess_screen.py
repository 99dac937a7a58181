"""The Guess screen: bets by keys and typed, what is shown of a guess, the score at the end."""

from __future__ import annotations

import math

import pytest
from fake_engine import HOSTILE, FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from textual.pilot import Pilot

from tui_llm.common.display import visible_token
from tui_llm.common.errors import UserError
from tui_llm.facts.tokens import Token
from tui_llm.instruments.guess.game import MOST
from tui_llm.instruments.guess.question import (
    Bet,
    Bets,
    BetsQuestion,
    GuessRound,
    GuessTurn,
    Opponent,
    RoundQuestion,
)
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.guess import GuessScreen
from tui_llm.tui.kit.ask import AskScreen


def token(id: int, text: str) -> Token:
    return Token(id, text.encode(), text)


CHOICES = (token(1, " cat"), token(2, " dog"), token(3, " [red]\x1b"))


def dealt(engine: FakeEngine, truth: tuple[str, ...] = (" cat", "\u202e[/]"), *, choices: tuple[Token, ...] = CHOICES) -> None:  # fmt: skip
    """Gives the fake engine a round in which unigram gives each token 1/1,024 and the model 1/4."""

    def deal(question: RoundQuestion) -> GuessRound:
        assert engine.weights is not None
        if question.text == "":
            raise UserError("the text has fewer than two tokens \x1b")
        before, turns = "The " + "\x9b31m [link='x " * 3, []
        for at, text in enumerate(truth):
            id = next((one.id for one in choices if one.text == text), 99)
            bits = (10.0, 2.0)
            turns.append(GuessTurn(at, before, token(id, text), (2**-10, 0.25), bits, choices, ((choices[1], 0.5),)))
            before += text
        source = "" if question.text is not None else "A. Author, \u202eBook (1900)"
        return GuessRound(engine.weights, question.seed, source, 12.0,
                          (Opponent("unigram", "each count + 1 [/]"), Opponent("[red]\x1bnano")), tuple(turns))  # fmt: skip

    def bets(question: BetsQuestion) -> Bets:
        if "problem" in question.line:
            raise UserError("the bets add up to 150 % \x1b")
        return Bets((Bet(token(7, " typed"), 60),), ("'x' is 2 tokens [/]\x1b",))

    engine.answers |= {RoundQuestion: deal, BetsQuestion: bets}


async def opened(pilot: Pilot[None], app: LabApp) -> GuessScreen:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", "Q")
    await until(pilot, lambda: isinstance(app.screen, GuessScreen) and app.screen.game is not None)
    assert isinstance(app.screen, GuessScreen)
    await pilot.pause()
    return app.screen


def text_of(app: LabApp) -> str:
    return "\n".join(drawn(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12), (20, 6)])
async def test_a_game(size: tuple[int, int]) -> None:
    engine = FakeEngine()
    dealt(engine)
    app = make_app(engine)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, app)
        assert screen.game is not None and not unsafe(drawn(app))
        wide = size[0] >= 80
        if wide:
            shown = text_of(app)
            assert "▸ ·cat" in shown and "the other 100 %: as unigram" in shown and "−log2" in shown
            assert "A. Author" in shown and "held out" in shown
        await pilot.press("4", "right", "down", "3", "left")
        assert screen.bets == {1: 50, 2: 20}
        if wide:
            assert "the other 30 %: as unigram" in text_of(app)
        await pilot.press("enter")
        assert [(bet.token.id, bet.percent) for bet in screen.game.guesses[0].bets] == [(1, 50), (2, 20)]
        bits = -math.log2(0.5 + 0.3 / 1024)
        assert screen.game.guesses[0].bits == pytest.approx(bits) and not unsafe(drawn(app))
        if wide:
            shown = text_of(app)
            assert "the token is ·cat; you bet 50 % on ·cat, 20 % on ·dog" in shown
            assert f"{bits:.2f}" in shown and "10.00" in shown and "likeliest for" in shown and "50.0 %" in shown
        await pilot.press("enter")
        assert screen.bets == {} and screen.betting
        await pilot.press("enter", "enter")  # no bet on the last token; the score
        assert screen.game.guesses[1].bits == pytest.approx(10) and not screen.betting
        assert not unsafe(drawn(app))
        if wide:
            shown = text_of(app)
            assert f"{(bits + 10) / 2:.2f}" in shown and "you beat" in shown and "at 1 of 2 tokens" in shown
            assert "12.00" in shown and "·cat" in shown and "2.00" in shown
        await pilot.press("y")
        rows = [line.split("\t") for line in app.clipboard.splitlines()]
        assert len(rows) == 3 and rows[1][:4] == ["0", "1", " cat", "·cat:50 ·dog:20"]
        assert [float(cell) for cell in rows[1][4:]] == pytest.approx([bits, 10, 2])
        await pilot.press("enter")
        await until(pilot, lambda: screen.betting)
        assert screen.game is not None and not screen.game.guesses
        await pilot.press("escape")
        assert app.screen is app.lab_screen


async def test_bets_never_exceed_the_most() -> None:
    engine = FakeEngine()
    dealt(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("9", "right", "right", "down", "9")
        assert sum(screen.bets.values()) == MOST
        await pilot.press("up", "left", "left", "0", "left", "down", "9")
        assert screen.bets == {1: 0, 2: 90}


async def test_typed_bets_add_rows_and_problems_are_shown() -> None:
    engine = FakeEngine()
    dealt(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("5", "t")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"typed", "enter")
        await until(pilot, lambda: 7 in screen.bets)
        await until(pilot, lambda: "·typed" in text_of(app))
        assert screen.bets == {1: 50, 7: 49} and "2 tokens [/]" in text_of(app) and not unsafe(drawn(app))
        assert "only 49 % was left for ·typed" in " ".join(text_of(app).split())
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press(*"problem", "enter")
        await until(pilot, lambda: "150 %" in text_of(app))
        assert screen.bets == {1: 50, 7: 49} and not unsafe(drawn(app))


async def test_the_labs_text_and_a_text_that_is_too_short() -> None:
    engine = FakeEngine()
    dealt(engine)
    app = make_app(engine, prompt="The cat sat on")
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("m")
        await until(pilot, lambda: "the lab's text" in text_of(app))
        assert [one.text for one in engine.questions if isinstance(one, RoundQuestion)] == [None, "The cat sat on"]
        await pilot.press("escape")
        app.lab_screen.context.set_prompt("")
        await answered(pilot, app.lab_screen)
        await pilot.press("Q")
        await until(pilot, lambda: isinstance(app.screen, GuessScreen) and app.screen.game is not None)
        await pilot.press("m")
        await until(pilot, lambda: "fewer than two tokens" in text_of(app))
        assert not unsafe(drawn(app)) and "m: another text" in text_of(app)
        await pilot.press("enter", "5", "right", "t", "m")
        again = app.screen
        assert isinstance(again, GuessScreen) and again is not screen
        await until(pilot, lambda: again.game is not None)


async def test_hostile_tokens_are_shown_by_the_display_gate() -> None:
    engine = FakeEngine(hostile=True)
    choices = tuple(token(id, text) for id, text in enumerate(HOSTILE))
    dealt(engine, HOSTILE, choices=choices)
    app = make_app(engine)
    async with app.run_test(size=(80, 40)) as pilot:
        screen = await opened(pilot, app)
        assert screen.game is not None
        for _ in HOSTILE:
            await pilot.press("5", "enter")
            assert not unsafe(drawn(app))
            await pilot.press("enter")
            assert not unsafe(drawn(app))
        assert visible_token(HOSTILE[0]) in text_of(app)
