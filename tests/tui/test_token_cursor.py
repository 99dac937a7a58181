"""Actions at the token cursor and under a what-if use the values that the panes show there."""

from __future__ import annotations

import math
import threading

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, until
from textual.message import Message

from tui_llm.facts.pin import Pin
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.request import Request, Target
from tui_llm.instruments.attention.question import AttentionQuestion
from tui_llm.instruments.draws.question import DrawQuestion, HistogramQuestion
from tui_llm.instruments.swap.question import Swapped
from tui_llm.training.run import pins
from tui_llm.tui.instruments.draws.draw import DrawScreen
from tui_llm.tui.instruments.inside.inside import InsideScreen
from tui_llm.tui.lab.panes.logits import LogitsPane
from tui_llm.tui.state.engine_client import EngineClient
from tui_llm.tui.state.messages import GenerationEnded, ReadingReady

PROMPT = "The cat sat on the"


def messages(app: object) -> str:
    return "\n".join(one.message for one in app._notifications)  # type: ignore[attr-defined]


async def test_inside_opens_at_the_token_under_the_cursor() -> None:
    engine = FakeEngine()
    app = make_app(engine, PROMPT)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "comma", "comma")
        await answered(pilot, lab)
        await pilot.press("A")
        await until(pilot, lambda: isinstance(app.screen, InsideScreen))
        await until(pilot, lambda: any(isinstance(q, AttentionQuestion) for q in engine.questions))
        assert lab.lab.position == 3
        asked = next(q for q in engine.questions if isinstance(q, AttentionQuestion))
        assert asked.number == 3
        await pilot.press("escape", "full_stop", "full_stop")
        engine.questions.clear()
        await answered(pilot, lab)
        await pilot.press("A")
        await until(pilot, lambda: any(isinstance(q, AttentionQuestion) for q in engine.questions))
        assert next(q for q in engine.questions if isinstance(q, AttentionQuestion)).number is None


async def test_a_pin_is_what_the_panes_show() -> None:
    app = make_app(FakeEngine(), PROMPT)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "comma", "comma")
        await answered(pilot, lab)
        await pilot.press("P")
        assert pins.of_user() == [Pin("The cat sat", " on")]
        await pilot.press("P")  # P again unpins it
        assert pins.of_user() == []
        # a target chosen at the cursor takes precedence over the text's next token
        lab.lab.target = Target(text=" moon")
        lab.ask()
        await answered(pilot, lab)
        await pilot.press("P")
        assert pins.of_user() == [Pin("The cat sat", " moon")]
        await pilot.press("1", "home")
        await answered(pilot, lab)
        await pilot.press("P")
        assert "there is no text before the first token" in messages(app)
        await pilot.press("end")
        await answered(pilot, lab)
        await pilot.press("P")
        assert Pin(PROMPT, " moon") in pins.of_user()


@pytest.mark.parametrize(("place", "expected"), [(6, "The cat sat on the "), (7, None), (8, "The cat sat on the é")])
async def test_a_pin_ends_with_a_whole_character(place: int, expected: str | None) -> None:
    app = make_app(FakeEngine(), PROMPT)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        lab.lab.steps = tuple(
            GeneratedToken(at, 1, data, "", 0.5, 0.1, 0.1, 1, ())
            for at, data in enumerate((b" ", b"\xc3", b"\xa9", b"!"))
        )
        lab.ask()
        await answered(pilot, lab)
        lab.lab.place(place)
        lab.ask()
        await answered(pilot, lab)
        lab.action_pin()
        await pilot.pause()
        there = [pin.prompt for pin in pins.of_user()]
        assert there == ([] if expected is None else [expected])
        assert ("inside a character" in messages(app)) == (expected is None)


async def test_the_generate_pane_names_the_position_of_the_other_panes() -> None:
    app = make_app(FakeEngine(), PROMPT)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "5", "comma")
        await answered(pilot, lab)
        await pilot.pause()
        assert any("other panes: at token 5 of 5" in line for line in drawn(app))
        await pilot.press("g")
        await until(pilot, lambda: len(lab.lab.steps) == 1 and lab._job is None)
        await pilot.pause()
        assert not any("other panes:" in line for line in drawn(app))


async def test_a_swap_names_the_removed_tokens_and_can_be_undone() -> None:
    app = make_app(FakeEngine(), PROMPT)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "1")
        step = GeneratedToken(0, 4, b" mat", " mat", None, math.nan, math.nan, 0, ())
        lab.take_swapped(Swapped("The cat", (step,), 2, 2))
        await until(pilot, lambda: len(lab.lab.steps) == 3 and lab._job is None)
        assert "the 2 tokens that followed are drawn again" in messages(app)
        await answered(pilot, lab)
        await pilot.pause()
        assert not any(pane.stale for pane in lab.reading_panes)
        await pilot.press("u", "u")
        assert (lab.lab.prompt, lab.lab.steps) == (PROMPT, ())


def test_a_stream_started_after_a_request_answers_both() -> None:
    """The stream's reading has the newest request number; otherwise the panes would wait for it forever."""
    engine, there, seen = FakeEngine(), threading.Event(), []

    def post(message: Message) -> None:
        seen.append(message)
        if isinstance(message, GenerationEnded):
            there.set()

    client = EngineClient(lambda: engine, post)
    client._engine = engine
    engine.open("nano")
    client.read(Request(prompt=PROMPT, number=4))
    client.generate(Request(prompt=PROMPT, number=5), 1, 1)
    client._read()
    while client._generation is not None:
        client._draw()
    assert there.is_set()
    numbers = [one.reading.request.number for one in seen if isinstance(one, ReadingReady)]
    assert numbers == [5] and engine.requests[-1].number == 5


async def test_draws_use_the_changed_logits() -> None:
    engine = FakeEngine()
    app = make_app(engine, PROMPT)
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape")
        assert lab.reading is not None
        lab.lab.change_logit(7, 9.0, lab.reading.request)
        lab.ask()
        await answered(pilot, lab)
        for key, kind in (("D", DrawQuestion), ("H", HistogramQuestion)):
            await pilot.press("5", key)
            await until(pilot, lambda: any(isinstance(q, kind) for q in engine.questions))  # noqa: B023
            asked = next(q for q in engine.questions if isinstance(q, kind))
            assert asked.request.overrides == ((7, 9.0),)  # type: ignore[attr-defined]
            await pilot.pause()
            assert "what if: 1 logit changed" in drawn(app)[0]
            await pilot.press("escape")


async def test_a_token_chosen_by_hand_is_marked_as_not_drawn() -> None:
    engine = FakeEngine()
    app = make_app(engine, PROMPT)
    async with app.run_test(size=(120, 30)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "2", "down", "a")
        await answered(pilot, lab)
        step = lab.lab.steps[0]
        assert step.by_hand and step.sampler == lab.lab.sampler
        await pilot.press("5", "D")
        await until(pilot, lambda: isinstance(app.screen, DrawScreen))
        await pilot.pause()
        assert "not drawn" in drawn(app)[0]


async def test_only_lines_that_changed_are_drawn_and_a_scroll_draws_all() -> None:
    app = make_app(FakeEngine(), PROMPT)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "2")
        await pilot.pause()
        pane, asked = lab.query_one(LogitsPane), []
        drawn(app)
        real = pane.render_line
        pane.render_line = lambda y: asked.append(y) or real(y)  # type: ignore[method-assign, func-returns-value]
        pane.rebuild()
        await pilot.pause()
        drawn(app)
        assert asked == []  # nothing has changed
        before = drawn(app)
        pane.rebuild()
        pane.scroll_to(y=20, animate=False, immediate=True)  # after the lines of the other position were rendered
        await pilot.pause()
        shown = [line for line in drawn(app) if "21 " in line]
        assert shown and drawn(app) != before and asked
