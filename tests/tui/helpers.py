"""Helpers of the screen's tests: the app on the fake engine, waiting for a condition, reading the drawn screen."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import Callable

from fake_engine import FakeEngine
from textual.pilot import Pilot

from tui_llm.tui.app import LabApp
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.widgets.prompt import PromptEditor
from tui_llm.tui.lab.lab import LabScreen


def make_app(engine: FakeEngine | None = None, prompt: str = "The cat sat on the", model: str = "nano") -> LabApp:
    engine = engine or FakeEngine()
    return LabApp(lambda: engine, model=model, prompt=prompt)


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Runs the app until the condition holds; the tests' timeout ends a futile wait. What has taken long, such as a process
    that starts, is looked for less often: conditions read the whole screen. It is looked for once the app is idle, not
    between a message and the layout that follows from it: a click would go to where its line was before."""
    began = time.monotonic()
    while not condition():
        await asyncio.sleep(min(0.05, max(0.002, (time.monotonic() - began) / 10)))
        await pilot.pause()


async def question_editor(pilot: Pilot[None]) -> PromptEditor:
    """Waits for a one-line question. Returns its editor, once that can be typed into: the screen is there before it."""
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, AskScreen) and isinstance(app.focused, PromptEditor))
    assert isinstance(app.focused, PromptEditor)
    return app.focused


async def workers_done(pilot: Pilot[None]) -> None:
    """Waits until no worker is at work. Textual's `wait_for_complete` raises if one is cancelled meanwhile, as a watcher's look
    that takes longer than a second is by the next one."""
    await until(pilot, lambda: all(worker.is_finished for worker in pilot.app.workers))


async def answered(pilot: Pilot[None], lab: LabScreen) -> None:
    """Waits for the reading of the newest request."""
    await pilot.pause()
    await until(pilot, lambda: lab.reading is not None and lab.reading.request.number == lab.lab.number)


def drawn(app: LabApp) -> list[str]:
    """Returns the screen's lines as sent to the terminal."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def text(app: LabApp) -> str:
    return "\n".join(drawn(app))


def unsafe(lines: list[str]) -> set[str]:
    """Returns the characters that must not be sent to a terminal."""
    return {
        char
        for line in lines
        for char in line
        if unicodedata.category(char).startswith("C") or unicodedata.category(char) in ("Zl", "Zp")
    }
