"""The prompt editor: typed text is fed to the model unchanged, and nothing unsafe is drawn."""

from __future__ import annotations

import asyncio
import unicodedata

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from hypothesis import example, given
from hypothesis import strategies as st
from textual import events

from tui_llm.tui.kit.widgets.prompt import EDITABLE, from_document, sign, to_document

HOSTILE = "\x1b]0;owned\x07[/][red]x[link='x[/usr/bin]\u202eabc\u200b\x9b31m👩\u200d👩\u200d👧\u2028\x0b\x85\r\t\U000f0001é\ue000"


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example(HOSTILE)
def test_stand_in_characters_preserve_any_text(text: str) -> None:
    held = to_document(text)
    assert from_document(held) == text
    assert len(held) == len(text)
    # The document splits at newlines only, and contains no control or format characters.
    assert held.splitlines() == held.split("\n")[: len(held.splitlines())]
    assert not [char for char in held if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")]


def test_signs_are_visible_and_one_cell() -> None:
    from rich.cells import cell_len

    for code in (0, 0x07, 0x1B, 0x7F, 0x85, 0x9B, 0x200B, 0x202E, 0xE000, 0xF0001):
        assert cell_len(sign(code)) == 1
        assert unicodedata.category(sign(code))[0] != "C"


async def test_hostile_prompt_is_fed_exactly_and_drawn_safely() -> None:
    app = make_app(FakeEngine(hostile=True), prompt=HOSTILE)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        assert lab.reading is not None and lab.reading.request.prompt == HOSTILE
        assert not unsafe(drawn(app))


async def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    app = make_app(prompt="a\ud83db")
    async with app.run_test(size=(80, 24)):
        assert app.lab_screen.prompt.prompt_text == "a\ufffdb"


async def test_cursor_counts_hidden_characters_as_one_cell() -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        prompt = app.lab_screen.prompt
        prompt.post_message(events.Paste("a\x1b\u200b\u202eb"))
        await pilot.pause()
        assert prompt.cursor_location == (0, 5)
        assert prompt.wrapped_document.location_to_offset((0, 5)).x == 5
        await pilot.press("left", "backspace", "X")
        assert prompt.prompt_text == "a\x1b\u200bXb"


async def test_pasted_line_breaks() -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        prompt = app.lab_screen.prompt
        prompt.post_message(events.Paste("one\r\ntwo\rthree"))  # terminals send carriage returns
        await pilot.pause()
        await pilot.press("alt+enter", "x")
        assert prompt.prompt_text == "one\ntwo\nthree\nx"


async def test_copy_gives_the_real_characters() -> None:
    app = make_app(prompt="a\x1bb")
    async with app.run_test(size=(80, 24)) as pilot:
        app.lab_screen.prompt.select_all()
        await pilot.press("ctrl+c")
        assert app.clipboard == "a\x1bb"


@pytest.mark.parametrize(
    "text",
    ["hello wor\n" * 100_000, "x" * 1_000_000, "\x1b\u200b" * 500_000],
    ids=["lines", "one line", "controls"],
)
async def test_a_megabyte_pasted(text: str) -> None:
    """The editor contains only the end of the text, so that keys stay as fast as in a short one; nothing is lost."""
    engine = FakeEngine()
    app = make_app(engine, prompt="start ")
    async with app.run_test(size=(80, 24)) as pilot:
        lab, prompt = app.lab_screen, app.lab_screen.prompt
        await answered(pilot, lab)
        engine.gate.clear()  # the fake engine is slow for a megabyte
        prompt.post_message(events.Paste(text))
        await until(pilot, lambda: lab.lab.prompt == "start " + text)
        assert len(prompt.text) <= EDITABLE and prompt.prompt_text == lab.lab.prompt
        await pilot.press("!", "left", "?", "delete")
        await until(pilot, lambda: lab.lab.prompt == "start " + text + "?")
        assert prompt.prompt_text == lab.lab.prompt
        assert "earlier characters are not shown" in str(prompt.border_subtitle)
        client = lab.context.client
        client.close()  # abandons the reading that the gate holds back: it would take the fake engine seconds
        await until(pilot, lambda: not client._thread.is_alive())


async def test_deleting_reaches_the_folded_text_and_undo_restores_the_paste() -> None:
    app = make_app(prompt="")
    engine = app.lab_screen
    async with app.run_test(size=(80, 24)) as pilot:
        prompt = engine.prompt
        text = "".join(f"{number} " for number in range(EDITABLE))
        prompt.post_message(events.Paste(text))
        await pilot.pause()
        prompt.select_all()
        await pilot.press("backspace")
        folded = prompt.folded
        assert prompt.prompt_text == folded and prompt.text == ""
        await pilot.press("backspace")
        assert prompt.prompt_text == folded[:-1]
        assert prompt.text != ""
        await pilot.press("ctrl+l")
        assert prompt.prompt_text == from_document(prompt.text)


async def test_undo_crosses_a_folded_paste() -> None:
    app = make_app(prompt="before")
    async with app.run_test(size=(80, 24)) as pilot:
        prompt = app.lab_screen.prompt
        prompt.post_message(events.Paste("x" * (EDITABLE + 1)))
        await pilot.pause()
        assert prompt.folded
        await pilot.press("ctrl+z")
        assert prompt.prompt_text == "before"


async def test_typing_and_command_mode() -> None:
    app = make_app(prompt="a")
    async with app.run_test(size=(120, 40)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        await pilot.press("q", "b", "space")
        assert lab.prompt.prompt_text == "aqb "
        await pilot.press("enter")
        await pilot.pause()
        assert not lab.prompt.has_focus
        await pilot.press("z")
        assert lab.zoomed and lab.prompt.prompt_text == "aqb "
        await pilot.press("i")
        await pilot.pause()
        assert lab.prompt.has_focus
        await pilot.press("escape")
        await pilot.pause()
        assert not lab.prompt.has_focus
        await pilot.press("slash")
        await pilot.pause()
        assert lab.prompt.has_focus


async def test_the_cursor_does_not_blink() -> None:
    """A blinking cursor needs a timer that never stops."""
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.lab_screen.reading is not None)
        await asyncio.sleep(0)
        assert not app.lab_screen.prompt.cursor_blink
        assert not app.lab_screen.prompt.blink_timer._active.is_set()


@pytest.mark.parametrize(("size", "most"), [((120, 40), 6), ((80, 24), 5), ((80, 15), 3)])
async def test_a_long_prompt_leaves_room_for_the_panes(size: tuple[int, int], most: int) -> None:
    app = make_app(prompt="a word " * 200)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        assert app.lab_screen.prompt.outer_size.height == most
