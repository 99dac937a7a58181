"""Spaces are drawn in every box where they count, and a doubled one is asked about; the text stays as typed."""

from __future__ import annotations

import pytest
from helpers import answered, drawn, make_app, until
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets.text_area import Selection

from tui_llm.facts.request import Target
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit import spaces
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.doubled_space import DoubledSpaceScreen
from tui_llm.tui.kit.widgets.prompt import PromptEditor


def shown(app: LabApp) -> str:
    return "\n".join(drawn(app))


async def open_target(pilot: Pilot[None], app: LabApp) -> PromptEditor:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", "t")
    await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.focused)
    return app.screen.query_one(PromptEditor)


@given(
    st.text(alphabet=" a·\u00a0\u3000\n\x1b", max_size=30),
    st.sampled_from((spaces.EVERY, spaces.QUOTED, spaces.UNSEEN)),
)
def test_a_drawn_line_has_the_same_characters_and_cells(line: str, where: object) -> None:
    drawn_line = spaces.drawn(line, where)  # type: ignore[arg-type]
    assert len(drawn_line) == len(line) and cell_len(drawn_line) == cell_len(line)
    assert all(a == b or (a in " \u00a0" and b in "·␣") for a, b in zip(line, drawn_line, strict=True))


def test_which_spaces_are_drawn() -> None:
    assert spaces.drawn("  the cat ", spaces.EVERY) == "··the·cat·" and spaces.drawn("a\u00a0b", spaces.EVERY) == "a␣b"
    assert spaces.drawn('cat=2 " mat"=1', spaces.QUOTED) == 'cat=2 "·mat"=1'
    assert spaces.drawn(" The cat  sat ", spaces.UNSEEN) == "·The cat··sat·"
    assert spaces.drawn("    return x", spaces.UNSEEN) == "    return x", "the indentation of code"
    assert (
        spaces.doubled("  purple")
        and spaces.doubled("a  b")
        and not spaces.doubled(" purple")
        and not spaces.doubled("   ")
    )
    assert spaces.single("  the   cat") == " the cat"
    assert spaces.SpacesHighlighter()(Text(" a b")).plain == "·a·b"


async def test_the_targets_box_draws_its_spaces_and_keeps_cursor_and_selection() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        editor = await open_target(pilot, app)
        await pilot.press("ctrl+u", *" dog on")
        await until(pilot, lambda: "·dog·on" in shown(app) and "· is a space" in shown(app))
        assert editor.prompt_text == " dog on" and editor.cursor_location == (0, 7)
        await pilot.press("shift+left", "shift+left")
        assert editor.selection == Selection((0, 7), (0, 5)) and editor.selected_text == "on"
        await pilot.press("left", "left", "backspace")
        assert editor.prompt_text == " do on"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.lab_screen)
        assert app.lab_screen.lab.target == Target(text=" do on")


@pytest.mark.parametrize(("key", "kept"), [("1", " purple"), ("enter", " purple"), ("2", "  purple"), ("escape", None)])
async def test_a_doubled_space_is_asked_about(key: str, kept: str | None) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        editor = await open_target(pilot, app)
        await pilot.press(*" purple", "enter")  # the box held a space
        await until(pilot, lambda: isinstance(app.screen, DoubledSpaceScreen) and app.screen.focused)
        await until(pilot, lambda: "‘··purple’ has several spaces in a row" in shown(app))
        assert app.lab_screen.lab.target is None
        await pilot.press(key)
        if kept is None:
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            assert editor.prompt_text == "  purple"
            return
        await until(pilot, lambda: app.screen is app.lab_screen)
        assert app.lab_screen.lab.target == Target(text=kept)
        if key == "2":  # kept on purpose: the unchanged text is not asked about again
            await pilot.press("t")
            await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.focused)
            await pilot.press("enter")
            await until(pilot, lambda: app.screen is app.lab_screen)


async def test_the_box_that_finds_a_token_draws_its_spaces() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "2", "F")
        await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.focused)
        await pilot.press("ctrl+u", *" mat")
        await until(pilot, lambda: "·mat" in shown(app))


async def test_the_prompt_draws_a_space_at_its_end() -> None:
    app = make_app(prompt="The cat")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("space")
        await until(pilot, lambda: "The cat·" in shown(app))
        assert app.lab_screen.lab.prompt == "The cat "
