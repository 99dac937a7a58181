"""The app under random keys, clicks, pastes, resizes and answers (`scripts/soak.py`), and bugs that this found."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers import drawn, make_app, unsafe, until
from textual.screen import Screen
from textual.widgets import Input

import tui_llm.tui
from tui_llm.tui.keymap import COMMANDS
from tui_llm.tui.kit.palette import Palette

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
EVENTS = 900  # about a minute beside the other tests


def soak(seed: int, events: int) -> list[str]:
    """Returns the state after each event. The script's own checks must pass."""
    words = [str(SCRIPTS / "soak.py"), "--seed", str(seed), "--events", str(events), "--verbose"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5000:]
    return [line for line in done.stdout.splitlines() if " → " in line]


@pytest.mark.timeout(1800)  # a minute of CPU time, beside whatever else runs; the script itself ends at a hang
def test_a_short_soak_finds_nothing_and_replays_exactly() -> None:
    first = soak(1, EVENTS)
    again = soak(1, 300)
    assert len(again) > 50 and first[: len(again)] == again


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("soak_events")


def test_events_depend_on_the_seed_alone_and_press_every_key(events: ModuleType) -> None:
    first = list(itertools.islice(events.Events(3), 10_000))
    assert first == list(itertools.islice(events.Events(3), 10_000))
    assert first != list(itertools.islice(events.Events(4), 10_000))
    typed = "".join(event.text for event in first)
    assert [key for command in COMMANDS for key in command.keys.split(",") if events.sequence(key) not in typed] == []


def subclasses(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def test_every_screen_keeps_what_its_textual_base_defines() -> None:
    """Every screen's first base is a Screen, for its attributes.

    Without them, a double click that selects text ended the app.
    """
    for module in pkgutil.walk_packages(tui_llm.tui.__path__, "tui_llm.tui."):
        importlib.import_module(module.name)
    screens = [one for one in subclasses(Screen) if one.__module__.startswith("tui_llm")]
    assert len(screens) > 20
    assert [one.__name__ for one in screens if "screen--selection" not in one._get_component_classes()] == []


async def test_escape_sequences_pasted_into_the_palette_never_reach_the_terminal() -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, Palette) and app.screen.query(Input))
        line = app.screen.query_one(Input)
        app.copy_to_clipboard("a\x1bcb\x9d52;c;aGk=\x9cc\u202ed")
        line.action_paste()
        await pilot.pause()
        assert line.value == "acb52;c;aGk=cd"
        assert unsafe(drawn(app)) == set()
