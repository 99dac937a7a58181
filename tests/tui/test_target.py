"""The loss's target: it follows the likeliest token until one is chosen; one left over from another text, and a pin, say so."""

from __future__ import annotations

import re

from helpers import answered, drawn, make_app, until
from textual.pilot import Pilot

from tui_llm.facts.pin import Pin
from tui_llm.facts.request import Request, Target
from tui_llm.training.run import pins
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.lab.panes.loss import LossPane
from tui_llm.tui.runs.words import pinned_words
from tui_llm.tui.state.lab import Lab


def target_line(app: LabApp) -> str:
    return " ".join(" ".join(line.plain for line in app.lab_screen.query_one(LossPane)._lines).split())


async def type_target(pilot: Pilot[None], app: LabApp, text: str) -> None:
    await pilot.press("t")
    await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.focused)
    await pilot.press("ctrl+u", *text, "enter")
    await until(pilot, lambda: app.screen is app.lab_screen)
    await answered(pilot, app.lab_screen)


def likeliest(app: LabApp) -> str:
    reading = app.lab_screen.reading
    assert reading is not None and reading.distribution is not None
    return reading.distribution.candidates[0].text


def lost(app: LabApp) -> str:
    reading = app.lab_screen.reading
    assert reading is not None and reading.loss is not None
    return "".join(token.token.text for token in reading.loss.tokens)


async def test_a_target_that_nobody_chose_follows_the_likeliest_token_until_one_is_chosen() -> None:
    app = make_app(prompt="The")
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        seen = set()
        for word in (" cat", " sat", " on"):
            for char in word:
                await pilot.press("space" if char == " " else char)
            await answered(pilot, lab)
            assert lost(app) == likeliest(app) and "the likeliest token, until you choose one (t)" in target_line(app)
            seen.add(lost(app))
        assert len(seen) > 1, "the fake engine's likeliest token differs"
        await pilot.press("escape", "3", "n", "n")  # the text's own next token, and back
        await answered(pilot, lab)
        assert lab.lab.target is None and lost(app) == likeliest(app)
        await type_target(pilot, app, " moon")
        assert lost(app) == " moon" and "left over" not in target_line(app)
        await pilot.press("i", "end", *" the")
        await answered(pilot, lab)
        assert lost(app) == " moon" and "chosen for an earlier text" in target_line(app)
        await pilot.press("escape")
        await type_target(pilot, app, "")
        assert lab.lab.target is None and lost(app) == likeliest(app) and "left over" not in target_line(app)


async def test_s_chooses_the_likeliest_token_without_its_space() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        text = likeliest(app)
        assert text.startswith(" ")
        await pilot.press("escape", "3", "s")
        await answered(pilot, lab)
        assert lab.lab.target == Target(text=text[1:])


def test_a_target_is_left_over_once_text_or_position_differ() -> None:
    lab = Lab("The cat")
    assert lab.request().target == Target(likeliest=True) and not lab.target_left_over
    lab.choose_target(Target(text=" sat"))
    assert not lab.target_left_over
    lab.prompt = "The cat sat"
    assert lab.target_left_over and lab.request().target == Target(text=" sat")
    lab.choose_target(Target(own=True))
    lab.prompt = "The"
    assert not lab.target_left_over, "the own next token is of any text"
    lab.choose_target(Target(id=3))
    lab.place(1)
    assert lab.request().target == Target(own=True) and not lab.target_left_over
    lab.choose_target(Target(id=4))
    assert not lab.target_left_over
    lab.place(0)
    assert isinstance(lab.request(), Request)


async def test_a_pin_says_what_it_measures() -> None:
    app = make_app(prompt="The mat")
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("escape", "P")
        await until(pilot, lambda: app._notifications)
        assert pins.of_user() == [Pin("The mat")], "nobody chose a target"
        (note,) = [note.message for note in app._notifications]
        assert "measures the likeliest next tokens, without a target" in note
        await pilot.press("P")
        await until(pilot, lambda: not pins.of_user())
        await type_target(pilot, app, " floor")
        await pilot.press("P")
        await until(pilot, lambda: pins.of_user())
        assert pins.of_user() == [Pin("The mat", " floor")]
        assert re.search(
            "measures raw p, loss and rank of ·floor after it", " ".join(n.message for n in app._notifications)
        )


def test_the_words_of_a_pin_are_safe_and_name_the_run() -> None:
    words = pinned_words(Pin("a\x1b[31m", " b\x1b"), True, "mine")
    assert "\x1b" not in words and "mine measures" in words and "·b␛" in words
    assert pinned_words(Pin("a"), False, "").startswith("unpinned: a")


async def test_the_screen_shows_the_target_that_nobody_chose() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "3")
        await until(pilot, lambda: "the likeliest token, until you choose one (t)" in "\n".join(drawn(app)))
