"""A resize under a dialog reaches the screens below it: they look as if they had been opened at the new size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_run
import pytest
from helpers import answered, drawn, make_app, until

from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.confirm import ConfirmScreen
from tui_llm.tui.runs.runs import RunsScreen

SMALL, LARGE = (80, 24), (120, 40)


def dialog(app: LabApp, kind: str) -> Any:
    return ConfirmScreen("Delete it?", "Delete") if kind == "confirm" else AskScreen("Well?", "a word")


async def shown(keys: str, kind: str, before: tuple[int, int], after: tuple[int, int]) -> list[list[str]]:
    """Opens a dialog over what `keys` open, resizes the terminal, and closes everything; returns each screen that came up."""
    app, seen = make_app(), []
    async with app.run_test(size=before) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", *keys.split())
        await pilot.pause()
        app.push_screen(dialog(app, kind))
        await until(pilot, lambda: len(app.screen_stack) > 1 and app.screen.is_mounted)
        if before != after:
            await pilot.resize_terminal(*after)
        while len(app.screen_stack) > 1:
            for _ in range(4):
                await pilot.pause()
            count = len(app.screen_stack)
            app.screen.dismiss(None)
            await until(pilot, lambda count=count: len(app.screen_stack) < count)
            for _ in range(4):
                await pilot.pause()
            seen.append(drawn(app))
    return seen


@pytest.mark.parametrize(
    ("keys", "kind"),
    [*((keys, "confirm") for keys in ("2", "4", "1 A", "m", "5 T", "2 z")), ("2", "ask"), ("1 A", "ask")],
)
@pytest.mark.parametrize(("before", "after"), [(SMALL, LARGE), (LARGE, SMALL)], ids=["larger", "smaller"])
async def test_screens_under_a_dialog_are_laid_out_for_the_new_size(
    keys: str, kind: str, before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert await shown(keys, kind, before, after) == await shown(keys, kind, after, after)


async def test_the_runs_table_gets_and_loses_its_last_column_with_the_width(tmp_path: Path) -> None:
    fake_run.make("one", done=20)
    app = make_app()
    async with app.run_test(size=SMALL) as pilot:
        await answered(pilot, app.lab_screen)
        screen = RunsScreen()
        app.push_screen(screen)
        await until(pilot, lambda: screen.rows and any("one" in line for line in drawn(app)))
        assert not any("preset" in line for line in drawn(app))
        app.push_screen(ConfirmScreen("Delete it?", "Delete"))
        await pilot.pause()
        await pilot.resize_terminal(*LARGE)
        await pilot.press("n")
        await until(
            pilot, lambda: any("preset" in line for line in drawn(app)) and any("one" in line for line in drawn(app))
        )
        await pilot.resize_terminal(*SMALL)
        await until(pilot, lambda: not any("preset" in line for line in drawn(app)))
