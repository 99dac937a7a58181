"""Every dialog that asks for a text gets hostile ones: the screen says in a line what is wrong, or takes it.

A test of a seeded sample; `python scripts/hostile_answers.py` tries all values. An exception that the app catches
fails the test, even if the app continues.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from helpers import answered, drawn, make_app, question_editor, unsafe, until, workers_done
from test_closing_keys import BY_ID, OPENED, opened
from test_guess_screen import dealt
from textual import events
from textual.pilot import Pilot

import tui_llm.tui
from tests.hostile import VALUES
from tui_llm.tour.lesson_file import find, read
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.models.pull import ModelPull

EACH = int(os.environ.get("TUI_LLM_EACH", "1"))  # texts for each dialog, besides ALWAYS
ALWAYS = "a\0b"  # no path, no argument of a process

# The keys of each screen that open a dialog.
KEYS = {
    "AblateScreen": "p", "ChatScreen": "i", "CompareModelsScreen": "m a", "CurvesScreen": "x", "ForeignScreen": "p",
    "HelpScreen": "slash", "InsideScreen": "slash",
    "LearnScreen": "e", "LettersScreen": "t", "LogScreen": "slash ampersand", "MergesScreen": "t", "ModelsScreen": "p",
    "PatchScreen": "c r", "PreferScreen": "a b B N e f p t", "RewardScreen": "s c e g p t B L N", "RunsScreen": "plus f r",
    "SftScreen": "f e", "SteerScreen": "t a o", "SwapScreen": "t", "TemperaturesScreen": "e", "TreeScreen": "n o w",
    "WhyScreen": "r t F",
}  # fmt: skip
PANES = {"1": "t V ampersand", "2": "e F", "3": "t", "4": "ampersand", "5": "t"}  # and those of the lab's panes
SCREENS = {kind.__name__: kind for kind in (*OPENED, *BY_ID)}
LESSONS = ("tour", "tokens", "loss-curve")

FOLDER = Path(tui_llm.tui.__path__[0])
# Files that open dialogs and hold no screen of `KEYS`, and who opens them there.
OTHERS = {
    "instruments/copy_saver.py": "KEYS: SftScreen e, PreferScreen e, RewardScreen e",
    "instruments/guess.py": "test_a_games_bets",
    "instruments/tree/files.py": "KEYS: TreeScreen o w",
    "lab/candidate_table.py": "PANES: 2",
    "lab/target.py": "PANES: 3",
    "lab/tour.py": "test_a_lessons_questions",
    "models/pull.py": "KEYS: ModelsScreen p",
    "runs/chart_export.py": "KEYS: CurvesScreen x",
    "runs/run_actions.py": "KEYS: RunsScreen f r",
    "runs/watched_run.py": "PANES: 4",
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # answers are names of files, too
    monkeypatch.setattr(ModelPull, "command", lambda self, name: [sys.executable, "-c", "", name])


async def answer(app: LabApp, pilot: Pilot[None], text: str) -> None:
    """Answers the dialog; with `ALWAYS` through its editor, into which it is pasted, and Enter."""
    editor = await question_editor(pilot)
    asking: Any = app.screen
    if text == ALWAYS:
        editor.select_all()
        app.post_message(events.Paste(text))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is not asking)
    else:
        asking.dismiss(text)
    await pilot.pause()
    await workers_done(pilot)  # files are read and written on threads
    await pilot.pause()
    assert not unsafe(drawn(app)), ascii(text)
    assert app._exception is None, ascii(text)


@functools.cache
def dialogs() -> Counter[str]:
    """Returns the number of places that open such a dialog, of each file that has one."""
    found: Counter[str] = Counter()
    for path in FOLDER.rglob("*.py"):
        source = path.read_bytes()
        for node in ast.walk(ast.parse(source)) if b"AskScreen" in source else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "AskScreen":
                found[path.relative_to(FOLDER).as_posix()] += 1
    return found


def file_of(kind: type[Any]) -> str:
    return Path(inspect.getfile(kind)).relative_to(FOLDER).as_posix()


def texts(key: str) -> list[str]:
    return [ALWAYS, *random.Random(key).sample(VALUES, min(EACH, len(VALUES)))]


def test_every_file_that_opens_a_dialog_is_listed() -> None:
    assert dialogs().keys() - {file_of(SCREENS[name]) for name in KEYS} == OTHERS.keys()


@pytest.mark.parametrize("name", KEYS)
async def test_a_screens_dialogs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, own, init, seen = make_app(FakeEngine()), file_of(SCREENS[name]), AskScreen.__init__, set()

    def noting(asking: AskScreen, *given: Any, **named: Any) -> None:
        caller = sys._getframe(1)
        if caller.f_code.co_filename == str(FOLDER / own):
            seen.add(caller.f_lineno)
        init(asking, *given, **named)

    monkeypatch.setattr(AskScreen, "__init__", noting)
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape")
        for key in KEYS[name].split():
            for number, text in enumerate(texts(name + key)):
                monkeypatch.setenv("TUI_LLM_HOME", str(tmp_path / f"{key}-{number}"))  # each screen makes its own runs
                screen = await opened(app, pilot, SCREENS[name], [])
                await workers_done(pilot)  # without the runs or the curves that they read, some keys open nothing
                await pilot.pause()
                for action in [
                    one for one in vars(screen) if one.startswith("action_") and hasattr(SCREENS[name], one)
                ]:
                    delattr(screen, action)  # `quiet` covers the screen's own with it
                screen.set_focus(None)
                await pilot.press(key)
                await answer(app, pilot, text)
                while len(app.screen_stack) > 1:
                    app.screen.dismiss(None)
                    await pilot.pause()
    assert len(seen) == dialogs()[own]  # each place of the screen's own file


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


async def test_a_games_bets() -> None:
    engine = FakeEngine()
    dealt(engine)
    app = make_app(engine)
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        await pilot.press("escape", "Q")
        await until(pilot, lambda: getattr(app.screen, "game", None) is not None)
        for text in texts("bets"):
            await pilot.press("t")
            await answer(app, pilot, text)


@pytest.mark.parametrize("name", LESSONS)
async def test_a_lessons_questions(name: str) -> None:
    app = LabApp(FakeEngine, lesson=read(find(name)))
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        tour, asked = app.lab_screen.tour.tour, 0
        assert tour is not None
        while not tour.finished:
            if tour.here is not None and tour.here.ask is not None and tour.here.ask.form != "pairs":
                asked, at = asked + 1, (tour.step, tour.part)
                for text in texts(f"{name}{asked}"):
                    # An answer that is taken goes on to the next part, at a check five times a second: perhaps before the key
                    # is handled.
                    while not isinstance(app.screen, AskScreen):
                        tour.step, tour.part = at
                        await pilot.press("f5")
                    await answer(app, pilot, text)
                tour.step, tour.part = at
            await pilot.press("f4")
        assert asked >= 2
