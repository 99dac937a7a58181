"""The key that closes a screen, and help, are in sight in every pane, however small the terminal."""

from __future__ import annotations

import pytest
from helpers import answered, drawn, make_app, until
from test_closing_keys import SIZES

from tui_llm.tui import keymap
from tui_llm.tui.kit.command import PANES, WAY_OUT
from tui_llm.tui.kit.widgets.bars import KeyBar
from tui_llm.tui.runs.new_run import NewRunScreen


@pytest.mark.parametrize("tour", [False, True], ids=["alone", "beside the tour"])
async def test_every_pane_shows_quit_and_help(tour: bool) -> None:
    app = make_app()
    async with app.run_test(size=SIZES[0]) as pilot:
        await answered(pilot, app.lab_screen)
        if tour:
            await pilot.press("f2")
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await pilot.press("i")
            await pilot.pause()
            assert any("Esc done typing" in line and "F1 help" in line for line in drawn(app)), size
            await pilot.press("escape")
            for number, _ in enumerate(PANES, 1):
                await pilot.press(str(number))
                await pilot.pause()
                assert any("q quit" in line and "? help" in line for line in drawn(app)), (size, number)


def test_footers_drop_the_way_out_last() -> None:
    out = [
        command
        for command in keymap.COMMANDS
        if ("escape" in command.keys.split(",") and command.id != "cancel") or command.action == "app.quit"
    ]
    assert len(out) > 20
    for command in out:
        assert command.importance == WAY_OUT, command
    assert max(command.importance for command in keymap.COMMANDS if command not in out) < WAY_OUT


async def test_under_a_dialog_no_footer_lists_keys_that_are_text_there() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "4")
        await until(pilot, lambda: "q quit" in drawn(app)[-1])
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen) and "Cancel (Esc)" in "\n".join(drawn(app)))
        assert app.lab_screen.query_one(KeyBar).has_class("-blank") and not drawn(app)[-1].strip()
        await pilot.press("escape")
        await until(
            pilot, lambda: not app.lab_screen.query_one(KeyBar).has_class("-blank") and "q quit" in drawn(app)[-1]
        )
