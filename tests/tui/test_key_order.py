"""Keys that arrive in one read of the terminal: each is handled where the one before it has moved the focus."""

from __future__ import annotations

import asyncio
import random
import string
import time
from typing import Any

import pytest
from helpers import answered, make_app, until
from textual import events
from textual.app import App
from textual.keys import key_to_character
from textual.widgets import TextArea

from tests import HANG
from tests.pilot_idle import waits
from tui_llm.tui.app import LabApp
from tui_llm.tui.kit import key_order
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.key_order import NO_REACTION, UNDRAWN, KeyHandled


def send(app: App[Any], *keys: str) -> None:
    """Posts all keys before the app handles any of them, as a driver does with one read."""
    for key in keys:
        character = key if len(key) == 1 else key_to_character(key)
        app.post_message(events.Key(key, character))


def prompt(app: LabApp) -> str:
    return app.lab_screen.lab.prompt


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is handled before the one in front of it, however slow the machine is."""
    monkeypatch.setattr(key_order, "LOST_AFTER", HANG)


@pytest.mark.usefixtures("patient")
async def test_text_behind_the_key_that_focuses_the_prompt_goes_into_the_prompt() -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        send(app, "escape", "2", "i", *"tempt")  # each letter is a key of the lab too
        await until(pilot, lambda: prompt(app) == "tempt")
        assert app.screen is app.lab_screen


@pytest.mark.usefixtures("patient")
async def test_a_paste_behind_that_key_goes_into_the_prompt_between_the_letters() -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        send(app, "escape", "4", "i", "a")
        app.post_message(events.Paste("bcd"))
        send(app, "e")
        await until(pilot, lambda: prompt(app) == "abcde")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("text", ["qit", "the"])
async def test_text_behind_the_key_that_opens_a_form_goes_into_the_form(text: str) -> None:
    """Also where it begins with that key: a second `t` may be the first letter of the target, so it is not ignored as a
    repeat, although a screen that closes does ignore one."""
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        before = prompt(app)
        send(app, "escape", "3", "t", *text)
        await until(
            pilot, lambda: isinstance(app.screen, AskScreen) and app.screen.query_one(TextArea).text.endswith(text)
        )
        assert prompt(app) == before


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seed", range(5))
async def test_keys_keep_their_order_however_they_are_split_into_reads(seed: int) -> None:
    app, chance = make_app(prompt=""), random.Random(seed)
    text = "".join(chance.choices(string.ascii_lowercase, k=40))
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        rest = ["escape", "5", "i", *text]
        while rest:
            count = chance.randint(1, 9)
            send(app, *rest[:count])
            rest = rest[count:]
            if chance.random() < 0.3:
                await pilot.pause()
        await until(pilot, lambda: prompt(app) == text)


async def test_a_key_whose_widget_is_removed_delays_the_next_ones_but_loses_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        with monkeypatch.context() as lost:
            lost.setattr(KeyHandled, "_bubble_to", lambda *_: None)
            send(app, "a", "b", "c")
            await until(pilot, lambda: prompt(app) == "abc")
        send(app, "d")
        await until(pilot, lambda: prompt(app) == "abcd")


@pytest.mark.usefixtures("patient")
async def test_a_burst_of_keys_is_drawn_a_few_times_only() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        drawn = 0
        hook = app.post_display_hook

        def count() -> None:
            nonlocal drawn
            drawn += app.draws
            hook()

        app.post_display_hook = count  # type: ignore[method-assign]
        begun, handled = time.process_time(), app.key_order._handled + 101
        send(app, "escape", *["1", "2"] * 50)
        while app.key_order._handled < handled:
            await asyncio.sleep(0.002)  # `pilot.pause` would hold the drawing back
        frames = (time.process_time() - begun) / UNDRAWN
        assert app.draws and drawn <= 4 * frames + 4  # measured: below 3 for each frame; 302 if every key is drawn


@pytest.mark.usefixtures("patient")  # else a slow prompt gets the keys behind the one that leaves it
async def test_the_last_key_of_a_burst_is_drawn_without_a_further_key() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        send(app, "escape", "3", "t")
        await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.focused)
        app.pause_drawing()
        send(app, *"purple")
        await until(pilot, lambda: app.screen.query_one(TextArea).text.endswith("purple") and app.screen._dirty_widgets)
        app.resume_drawing()
        while app.screen._dirty_widgets:
            await asyncio.sleep(0.002)  # `pilot.pause` would wake the screen


@pytest.mark.usefixtures("patient")
async def test_what_has_changed_below_a_dialog_is_drawn_without_a_further_message() -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        lab = app.lab_screen
        await answered(pilot, lab)
        send(app, "escape", "3", "t")
        await until(pilot, lambda: isinstance(app.screen, AskScreen) and app.focused)
        app.pause_drawing()
        bar, lab.top_line.problem = lab.top_line.bar, "a late answer"
        lab.call_later(lab.top_line.show)
        await until(pilot, lambda: bar in lab._dirty_widgets and waits(bar) and waits(lab))
        app.resume_drawing()
        while bar in lab._dirty_widgets:
            await asyncio.sleep(0.002)  # `pilot.pause` would wake the screen


async def test_ctrl_q_quits_before_keys_that_have_waited_for_seconds() -> None:
    app = make_app(prompt="")
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app.lab_screen)
        send(app, "escape", "i", *"abcdefgh" * 20)
        late = events.Key("ctrl+q", None)
        late.time += NO_REACTION + 1
        app.post_message(late)
        await until(pilot, lambda: app._exit)
        assert len(prompt(app)) < 160
