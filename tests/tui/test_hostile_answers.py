"""Dialogs that ask for a text get hostile ones: the screen says in a line what is wrong, or takes it.

`KEYS` and `PANES` list the dialogs. Left out are those that need a state first: a chat's message, a game's bets, the tour's
questions. A test of a seeded sample; `python scripts/hostile_answers.py` tries all values. An exception that the app catches
fails the test, even if the app continues.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from test_closing_keys import BY_ID, OPENED, opened
from textual.pilot import Pilot

from tests.hostile import VALUES
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.models.pull import ModelPull

EACH = int(os.environ.get("TUI_LLM_EACH", "1"))  # texts for each dialog, besides ALWAYS
ALWAYS = "a\0b"  # no path, no argument of a process

# The keys of each screen that open a dialog.
KEYS = {
    "AblateScreen": "p", "CurvesScreen": "x", "ForeignScreen": "p", "HelpScreen": "slash", "InsideScreen": "slash",
    "LearnScreen": "e", "LettersScreen": "t", "LogScreen": "slash ampersand", "MergesScreen": "t", "ModelsScreen": "p",
    "PatchScreen": "r", "PreferScreen": "a b B N e f p t", "RewardScreen": "s c e g p t B L N", "RunsScreen": "plus f r",
    "SftScreen": "f e", "SteerScreen": "t a o", "SwapScreen": "t", "TemperaturesScreen": "e", "TreeScreen": "n o w",
    "WhyScreen": "r t F",
}  # fmt: skip
PANES = {"1": "t V ampersand", "2": "e F", "3": "t", "4": "ampersand", "5": "t"}  # and those of the lab's panes
SCREENS = {kind.__name__: kind for kind in (*OPENED, *BY_ID)}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # answers are names of files, too
    monkeypatch.setattr(ModelPull, "command", lambda self, name: [sys.executable, "-c", "", name])


async def answer(app: LabApp, pilot: Pilot[None], text: str) -> None:
    await until(pilot, lambda: isinstance(app.screen, AskScreen))
    asking: Any = app.screen
    asking.dismiss(text)
    await pilot.pause()
    await app.workers.wait_for_complete()  # files are read and written on threads
    await pilot.pause()
    assert not unsafe(drawn(app)), ascii(text)
    assert app._exception is None, ascii(text)


def texts(key: str) -> list[str]:
    return [ALWAYS, *random.Random(key).sample(VALUES, min(EACH, len(VALUES)))]


@pytest.mark.parametrize("name", KEYS)
async def test_a_screens_dialogs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(FakeEngine())
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")
        for key in KEYS[name].split():
            for number, text in enumerate(texts(name + key)):
                monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / f"{key}-{number}"))  # each screen makes its own runs
                screen = await opened(app, pilot, SCREENS[name], [])
                screen.set_focus(None)
                await pilot.press(key)
                await answer(app, pilot, text)
                while len(app.screen_stack) > 1:
                    app.screen.dismiss(None)
                    await pilot.pause()


@pytest.mark.parametrize("pane", PANES)
async def test_a_panes_dialogs(pane: str) -> None:
    app = make_app(FakeEngine())
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        for key in PANES[pane].split():
            for text in texts(pane + key):
                await pilot.press("escape", pane, key)
                await answer(app, pilot, text)
                while len(app.screen_stack) > 1:
                    app.screen.dismiss(None)
                    await pilot.pause()
