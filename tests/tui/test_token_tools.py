"""The token cursor on every pane, token colours and their legend, and the screens about tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.pilot import Pilot

from tui_llm.common.display import visible_token
from tui_llm.facts.prediction import GeneratedToken, TokenLoss, TokenScore
from tui_llm.facts.request import Target
from tui_llm.facts.tokens import Token
from tui_llm.instruments.merges.question import Merges, MergesQuestion, Word
from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.instruments.swap.question import PlaceQuestion, Swapped, SwapQuestion
from tui_llm.instruments.vocabularies.question import Vocabularies, VocabulariesQuestion, VocabularyTokens, WordCoverage
from tui_llm.llm.tokens import bpe
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.letters import LettersScreen
from tui_llm.tui.instruments.merges import MergesScreen
from tui_llm.tui.instruments.pairs import PairsScreen
from tui_llm.tui.instruments.swap import SwapScreen
from tui_llm.tui.instruments.vocabularies import VocabulariesScreen
from tui_llm.tui.kit import token_shades as shades
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.lab.panes.tokens import TokensPane, labelled

HOSTILE = "[/] [red]x \x1b]0;x\x07 \x9b31m \u202eabc 👩\u200d👩\u200d👧 e\u0301 漢字"
RANKS = {b"st": 0, b"er": 1, b"ry": 2, b"[/": 3, b"\x1b[": 4}


def instruments(engine: FakeEngine) -> None:
    """Gives the fake engine instruments with plain numbers."""
    texts = [*HOSTILE.split(" "), "strawberry"]

    def token(text: str, id: int = 7) -> Token:
        return Token(id, text.encode(), text)

    def merges(question: MergesQuestion) -> Merges:
        text = question.text if question.text is not None else texts[-1]
        number = question.first or 0
        word = Word(number, text, bpe.replay(text.encode(), RANKS.get), (token(text),))
        return Merges("[/]", 1000, len(RANKS), "", 3, (word,))

    def vocabularies(_question: VocabulariesQuestion) -> Vocabularies:
        assert engine.weights is not None
        own = engine.tokenization(_question.request, engine.encode(_question.request.prompt))
        return Vocabularies(
            9,
            12,
            (
                VocabularyTokens("[/]nano", True, 1000, 5, 1.8, 2.4, own),
                VocabularyTokens("gpt2", False, None, 0, 0, 0, None, "not here [/]\x1b"),
            ),
            WordCoverage("[red]\u202e.txt", True, 12, 5, 2, ("[/]", "\x1b")),
        )

    def pairs(question: PairsQuestion) -> Pairs:
        assert engine.weights is not None
        ids = engine.encode(question.request.prompt)
        tokens = engine.tokenization(question.request, ids).tokens
        scores = (None, *engine.scores(ids)[2:]) if len(ids) > 1 else ()
        return Pairs(engine.weights, len(ids), 0, len(ids), tokens, scores, 2.5)

    def swap(question: SwapQuestion) -> Swapped:
        words = question.request.prompt.split(" ")
        at = question.request.position or 0
        new = [engine.ids.get(question.text, 1)] if question.text else [question.id or 0]
        after = [engine.ids.get(" " + word, 1) for word in words[at + 1 :]] if question.keep else []
        steps = tuple(
            GeneratedToken(n, id, engine.texts[id].encode(), engine.texts[id], None, math.nan, math.nan, 0, ())
            for n, id in enumerate([*new, *after])
        )
        return Swapped(" ".join(words[:at]), steps, 0 if question.keep else len(words) - at - 1, at)

    engine.answers |= {
        MergesQuestion: merges,
        VocabulariesQuestion: vocabularies,
        PairsQuestion: pairs,
        SwapQuestion: swap,
        PlaceQuestion: lambda question: engine.read(question.request),
    }


async def ready(pilot: Pilot[None], app: LabApp, *keys: str) -> None:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", *keys)
    await answered(pilot, app.lab_screen)


async def test_the_cursor_moves_every_pane() -> None:
    app = make_app(prompt="The cat sat on the")
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await ready(pilot, app, "2", "comma", "comma")
        assert lab.reading is not None and lab.reading.position == 3
        screen = "\n".join(drawn(app))
        assert "after 3 of 5 tokens, ·sat" in screen
        assert "token 4 of 5: ·on" in screen and "surprisal" in screen
        assert "target ·on  the text's own next token" in screen
        assert lab.prompt._mark == (11, 14)
        await pilot.press("full_stop")
        await answered(pilot, lab)
        assert "after 4 of 5 tokens, ·on" in "\n".join(drawn(app))
        # A target chosen now takes precedence over the text's next token.
        lab.lab.target = Target(text=" moon")
        lab.readings.request()
        await answered(pilot, lab)
        assert "target ·moon" in "\n".join(drawn(app))
        await pilot.press("escape")
        await answered(pilot, lab)
        assert lab.reading.position == 5 and lab.reading.following is None and lab.prompt._mark is None


async def test_arrows_move_the_token_cursor_and_typing_ends_it() -> None:
    engine = FakeEngine()
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await ready(pilot, app, "1", "home")
        assert lab.reading is not None and lab.reading.position == 0
        assert "no prediction: no token is before it" in "\n".join(drawn(app))
        await pilot.press("left", "right", "right")
        await answered(pilot, lab)
        assert lab.reading.position == 2
        await pilot.press("end")
        await answered(pilot, lab)
        assert lab.reading.position == 5
        await pilot.press("left")
        await answered(pilot, lab)
        assert engine.requests[-1].target == Target(own=True)
        await pilot.press("i", "!")
        await answered(pilot, lab)
        assert engine.requests[-1].position is None and lab.reading.position == 6
        await pilot.press("escape", "1", "left", "5", "g")  # draws a token at the end
        await until(pilot, lambda: lab.lab.steps)
        await answered(pilot, lab)
        assert lab.lab.position is None and lab.reading.position == 7


async def test_k_goes_through_the_colours_with_their_legend() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await ready(pilot, app, "1")
        pane = lab.query_one(TokensPane)
        for kind in (*shades.KINDS[1:], shades.PLAIN):
            await pilot.press("k")
            await answered(pilot, lab)
            screen = "\n".join(drawn(app))
            assert lab.lab.colour == kind
            if kind == shades.PLAIN:
                break
            assert kind in screen and lab.reading is not None and lab.reading.scores
            for shade, name in shades.legend(kind):
                assert f"{shade.mark} {name}" in screen
            score = lab.reading.scores[1]
            assert score is not None
            shown = shades.shade(kind, score)
            assert shown.mark + shown.text in screen  # not by colour alone
            assert next(iter(pane.table()))[4:] == shades.KINDS[1:]
            assert [*pane.table()][2][4:] == tuple(repr(shades.value(kind, score)) for kind in shades.KINDS[1:])
        assert lab.reading is not None and not lab.reading.scores  # scores that are not shown are not computed


@given(st.sampled_from(shades.KINDS[1:]), st.floats(0, 1e6), st.floats(0, 1e6))
def test_colour_grades_increase_with_the_number_and_are_in_the_legend(kind: str, one: float, two: float) -> None:
    low, high = sorted((one, two), reverse=kind == "probability")
    assert shades.grade(kind, low).level <= shades.grade(kind, high).level
    legend = shades.legend(kind)
    assert [shade.level for shade, _ in legend] == list(range(6))
    assert shades.grade(kind, math.nan).level == 5
    assert shades.shade(kind, TokenScore(TokenLoss(7, 4, 0.0, 1.0, 0.3, 1.0, -0.7), 2.0)).mark in shades.MARKS


@given(st.text(max_size=12))
@example("🏻")  # a skin tone alone, which rich measures as no cell
def test_labels_have_their_stated_width(text: str) -> None:
    label, cells = labelled(text)
    assert cells == cell_len(label) >= 1 and label == (visible_token(text) or "∅")
    assert not unsafe([label])


async def test_merges_forwards_and_back() -> None:
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app, "1", "M")
        await until(pilot, lambda: isinstance(app.screen, MergesScreen) and app.screen.merges)
        screen = app.screen
        assert isinstance(screen, MergesScreen) and screen.step == 3
        assert "this is the token, id" in "\n".join(drawn(app))
        await pilot.press("home", "right")
        await pilot.pause()
        shown = "\n".join(drawn(app))
        assert "merge 1 of 3" in shown and "s + t → st   rank 0: the lowest rank of 3 pairs" in shown and "▲1" in shown
        await pilot.press("left")
        await pilot.pause()
        assert "before any merge" in "\n".join(drawn(app))
        await pilot.press("full_stop")
        await until(pilot, lambda: screen.word is not None and screen.word.number == 1)
        assert len([*screen.table()]) == 5
        await pilot.press("y", "escape")
        assert app.clipboard.startswith("merge\tleft")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_letters_of_a_vocabulary_that_is_not_here_are_not_counted() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot, app, "1")
        lab = app.lab_screen
        assert lab.reading is not None
        tokens = replace(lab.reading.tokens, tokens=(), count=0, problem="gpt2 is not on this machine")
        lab.context.reading = replace(lab.reading, tokens=tokens)
        await pilot.press("L")
        await pilot.pause()
        assert app.screen is lab  # not: the letter r occurs 0 times
        assert "no tokens to count letters in: gpt2 is not" in [note.message for note in app._notifications][-1]


async def test_letters_pairs_and_vocabularies() -> None:
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app, "1", "L")
        await until(pilot, lambda: isinstance(app.screen, LettersScreen))
        await until(pilot, lambda: "Letters  in 5 tokens of nano" in drawn(app)[0])
        await pilot.press("t", "t", "enter")
        await pilot.pause()
        assert "the letter t occurs 4 times, in 4 of 5 tokens" in "\n".join(drawn(app))
        await pilot.press("a", "escape", "E")
        await until(pilot, lambda: isinstance(app.screen, PairsScreen) and app.screen.pairs)
        shown = "\n".join(drawn(app))
        assert "5 tokens make 4 pairs" in shown and "The → ·cat" in shown
        score = engine.scores(engine.encode("The cat sat on the"))[4]
        assert score is not None and f"{score.surprisal:.2f}" in shown
        await pilot.press("escape", "C")
        await until(pilot, lambda: isinstance(app.screen, VocabulariesScreen) and app.screen.found)
        shown = "\n".join(drawn(app))
        assert "1.80" in shown and "not here" in shown and "2 of 5 words are not among them" in shown
        await pilot.press("y")
        assert app.clipboard.startswith("vocabulary\t")


@pytest.mark.parametrize("keep", [True, False])
async def test_a_swap_in_the_middle(keep: bool) -> None:
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await ready(pilot, app, "1", "left", "left", "S")
        await until(pilot, lambda: isinstance(app.screen, SwapScreen) and app.screen.reading)
        screen = app.screen
        assert isinstance(screen, SwapScreen) and "replace ·on" in "\n".join(drawn(app))
        await pilot.press(*(() if keep else ("r",)), "down", "enter")
        await until(pilot, lambda: app.screen is lab)
        question = next(q for q in engine.questions if isinstance(q, SwapQuestion))
        assert question.id == screen.candidates[1].id and question.keep is keep and question.request.position == 3
        if keep:
            await answered(pilot, lab)
            assert lab.prompt.prompt_text == "The cat sat"
            assert lab.lab.continuation == (question.id, engine.ids[" the"])
            assert lab.reading is not None and lab.reading.position == 3
        else:  # as many tokens as were dropped are drawn again
            await until(pilot, lambda: len(lab.lab.steps) == 2 and lab.generation.job is None)
            assert lab.lab.continuation[0] == question.id and lab.lab.position is None


async def test_a_typed_replacement_and_a_problem() -> None:
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, app, "1", "S")  # moves the cursor to the last token
        await until(pilot, lambda: isinstance(app.screen, SwapScreen) and app.screen.reading)
        await pilot.press("t", *"moon", "enter")
        await until(pilot, lambda: app.screen is app.lab_screen)
        assert app.lab_screen.lab.continuation == (engine.ids[" moon"],)


@pytest.mark.parametrize("size", [(1, 1), (80, 24)], ids=str)
async def test_hostile_text_and_any_size(size: tuple[int, int]) -> None:
    engine = FakeEngine(hostile=True)
    instruments(engine)
    app = make_app(engine, prompt=HOSTILE)
    async with app.run_test(size=size) as pilot:
        await ready(pilot, app, "1", "left", "left", "k", "home", "k")
        assert not unsafe(drawn(app))
        for key, more in (("M", "left"), ("C", "down"), ("L", "a"), ("E", "down"), ("S", "r")):
            await pilot.press("1", key)
            await until(pilot, lambda: app.screen is not app.lab_screen)
            await answered(pilot, app.lab_screen)
            await pilot.press(more)
            await pilot.pause()
            assert not unsafe(drawn(app))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.lab_screen)


async def test_home_and_end_replay_merges_where_the_list_scrolls_too() -> None:
    engine = FakeEngine()
    instruments(engine)
    app = make_app(engine)
    async with app.run_test(size=(80, 10)) as pilot:
        await ready(pilot, app, "1", "M")
        await until(pilot, lambda: isinstance(app.screen, MergesScreen) and app.screen.merges)
        screen = app.screen
        assert isinstance(screen, MergesScreen) and screen.query_one(Lines).allow_vertical_scroll
        await pilot.press("home")
        assert screen.step == 0
        await pilot.press("end")
        assert screen.step == 3


async def test_a_line_is_drawn_between_a_change_of_the_view_and_the_rebuild() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        pane = app.lab_screen.query_one(TokensPane)
        if pane.view == "text":
            pane.next_view()
            await pilot.pause()
        rows = pane.row_count(80)
        pane.view = "text"  # one line a row from the next rebuild on
        assert all(pane.row(index, 80, False) is not None for index in range(rows))
