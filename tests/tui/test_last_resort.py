"""An uncaught exception: its traceback in the log, a line on the screen, and the app continues."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from helpers import answered, drawn, make_app, until
from textual import events, on, work
from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot
from textual.reactive import reactive
from textual.screen import ModalScreen, Screen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from tui_llm.common.errors import UserError
from tui_llm.tui.app import LabApp
from tui_llm.tui.help import HelpScreen
from tui_llm.tui.kit import textual_private
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.last_resort import WITHOUT_INPUT, WITHOUT_PAINT, LastResort


class Boom(Exception):
    pass


def boom() -> None:
    raise Boom("it broke")


class Fragile(Widget):
    """A widget that raises at the chosen place."""

    DEFAULT_CSS = "Fragile { dock: bottom; height: 1; }"
    BINDINGS: ClassVar = [("f8", "break")]
    can_focus = True
    watched = reactive(0)

    class Told(Message):
        pass

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.told = 0

    def on_key(self, event: events.Key) -> None:
        if self.where == "key" and event.key == "f8":
            boom()

    def action_break(self) -> None:
        if self.where == "action":
            boom()

    @on(Told)
    def _shown(self) -> None:
        self.told += 1
        if self.where == "message" and self.told == 1:
            boom()

    def watch_watched(self, _old: int, new: int) -> None:
        if self.where == "watcher" and new:
            boom()
        if self.where == "first watcher":
            boom()

    def on_mount(self) -> None:
        if self.where == "mount":
            boom()

    def render(self) -> str:
        if self.where == "render":
            boom()
        return "drawn"

    @work(thread=True)
    def thread(self) -> None:
        boom()

    @work
    async def task(self) -> None:
        boom()

    def trigger(self) -> None:
        match self.where:
            case "message":
                self.post_message(self.Told())
            case "timer":
                self.set_timer(0.001, boom)
            case "interval":
                self.set_interval(0.001, boom, repeat=1)
            case "call_later":
                self.call_later(boom)
            case "call_next":
                self.call_next(boom)
            case "call_after_refresh":
                self.call_after_refresh(boom)
            case "thread":
                self.thread()
            case "task":
                self.task()
            case "watcher":
                self.call_later(setattr, self, "watched", 1)
            case _:
                pass


class FragileLines(Fragile):
    def render_line(self, y: int) -> Strip:
        if self.where == "render_line":
            boom()
        return super().render_line(y)


class FragileScreen(BaseScreen, ModalScreen[None]):
    """A screen without a key that closes it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def compose(self) -> ComposeResult:
        if self.where == "compose":
            boom()
        yield Fragile("mount" if self.where == "child" else "")

    def on_mount(self) -> None:
        if self.where == "on_mount":
            boom()


WHERE = (
    "key", "action", "message", "timer", "interval", "call_later", "call_next", "call_after_refresh", "thread", "task",
    "watcher", "first watcher", "mount", "render", "render_line",
)  # fmt: skip


def failed(app: LabApp) -> bool:
    return app._exception is not None


def forgive(app: LabApp) -> None:
    """Clears the app's recorded exception, which would fail the test."""
    assert isinstance(app._exception, Boom) or isinstance(app._exception.__context__, Boom)  # type: ignore[union-attr]
    app._exception = None
    app._exception_event.clear()


async def goes_on(app: LabApp, pilot: Pilot[None]) -> None:
    await pilot.press("escape", "2", "3", "question_mark")
    assert isinstance(app.screen, HelpScreen)
    assert app.lab_screen.panes.current == "loss"
    await pilot.press("escape")
    assert app.screen is app.lab_screen and app.return_code is None


def said(app: LabApp) -> list[str]:
    return [notification.message for notification in app._notifications]


@pytest.mark.parametrize("size", [(120, 40), (1, 1)], ids=["wide", "one column"])
@pytest.mark.parametrize("where", WHERE)
async def test_the_app_continues(where: str, size: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    async with app.run_test(size=size, notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        fragile = FragileLines(where)
        await app.lab_screen.mount(fragile)
        fragile.focus()
        await pilot.pause()
        fragile.trigger()
        if where in ("key", "action"):
            await pilot.press("f8")
        if where.startswith("render") and size == (1, 1):
            fragile.refresh(layout=True)
        if where.startswith("render") and not failed(app):
            return  # at that size there is no room for it, so it is not drawn
        await until(pilot, lambda: failed(app))
        forgive(app)
        await until(pilot, lambda: said(app))
        (line,) = said(app)
        assert line == "internal error, Boom: it broke; the app continues" or where == "timer"
        assert "\n" not in line and "continues" in line
        (record, *_) = [record for record in caplog.records if record.exc_info]
        text = caplog.text
        assert record.name == "tui_llm.tui" and "Traceback (most recent call last):" in text
        assert "in boom" in text and '    raise Boom("it broke")' in text and "Boom: it broke" in text
        before = fragile.told
        fragile.post_message(Fragile.Told())  # it still handles messages
        await until(pilot, lambda: fragile.told > before)
        await goes_on(app, pilot)
        if failed(app):  # a failed drawing is tried again
            assert where.startswith("render")
            forgive(app)


async def test_an_error_of_the_users_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise UserError("the name is\ntoo long; give another one")

    app = make_app()
    async with app.run_test(notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        app.push_screen(AskScreen("Name", ""), lambda _: refuse())
        await pilot.pause()
        await pilot.press("a", "enter")
        await until(pilot, lambda: said(app))
        assert said(app) == ["the name is too long; give another one"]
        assert not [record for record in caplog.records if record.name == "tui_llm.tui"]
        await goes_on(app, pilot)
        assert isinstance(app._exception, UserError)  # a test fails all the same: the screen itself should tell it
        app._exception = None
        app._exception_event.clear()


async def test_a_widget_that_cannot_be_drawn_says_so_in_its_place() -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await answered(pilot, app.lab_screen)
        await app.lab_screen.mount(Fragile("render"))
        await until(pilot, lambda: any("this can't be drawn" in line for line in drawn(app)))
        assert any("Logits" in line for line in drawn(app))
        forgive(app)


async def test_callbacks_after_one_that_raised_are_called() -> None:
    app = make_app()
    called: list[str] = []
    async with app.run_test() as pilot:
        await answered(pilot, app.lab_screen)
        lab = app.lab_screen
        for call in (lab.call_next, lab.call_after_refresh):
            call(boom)
            call(called.append, call.__name__)
        await until(pilot, lambda: len(called) == 2)
        forgive(app)


@pytest.mark.parametrize("where", ["compose", "on_mount", "child"])
async def test_a_screen_that_cannot_be_built_closes(where: str) -> None:
    app = make_app()
    async with app.run_test(notifications=True) as pilot:
        await answered(pilot, app.lab_screen)
        app.push_screen(FragileScreen(where))
        await until(pilot, lambda: failed(app) and app.screen is app.lab_screen)
        forgive(app)
        assert said(app)
        await goes_on(app, pilot)


async def test_the_app_ends_if_nothing_can_be_drawn() -> None:
    app = make_app()
    with pytest.raises(Boom):
        async with app.run_test() as pilot:
            await answered(pilot, app.lab_screen)

            def broken(*_: Any) -> None:
                app.lab_screen.call_later(app.lab_screen.refresh, layout=True)
                boom()

            app.lab_screen._compositor.reflow = broken  # type: ignore[method-assign, assignment]
            app.lab_screen.refresh(layout=True)
            while app.return_code is None:
                await asyncio.sleep(0)
    assert app.return_code == 1 and app.failed


async def test_a_lab_that_cannot_be_built_ends_the_app() -> None:
    app = make_app()
    app.lab_screen.compose = boom  # type: ignore[method-assign, assignment]
    with pytest.raises(Boom):
        async with app.run_test():
            while app.return_code is None:
                await asyncio.sleep(0)
    assert app.return_code == 1 and app.failed


class Plain(App[None]):
    def compose(self) -> ComposeResult:
        yield Static("here")

    def key_a(self) -> None:
        boom()


async def test_textual_still_ends_at_an_exception() -> None:
    """If Textual no longer exits on an exception, that part of tui/kit/textual_private.py can go.

    Other apps are not changed.
    """
    app = Plain()
    with pytest.raises(Boom):
        async with app.run_test() as pilot:
            await pilot.press("a")
    assert app.return_code == 1


# ── counting repeated exceptions ──────────────────────────────────────────────────────────────────────────────────────


def raised(number: int = 0) -> Exception:
    try:
        exec(compile("\n" * number + "raise ValueError(number)", f"file{number}", "exec"), {"number": number})
    except ValueError as error:
        return error
    raise AssertionError


class RemovesAndClicks(App[None]):
    """Presses the mouse on a widget between its removal and the next layout."""

    def compose(self) -> ComposeResult:
        yield Static("a widget that is removed")

    async def press(self) -> None:
        static = self.query_one(Static)
        x, y = static.region.offset
        with self.batch_update():
            await static.remove()
            assert static.parent is None
            event = events.MouseDown(None, x, y, 0, 0, 1, False, False, False, x, y)
            self.screen._forward_event(event)


async def test_a_press_on_a_removed_widget() -> None:
    app = RemovesAndClicks()
    async with app.run_test():
        await app.press()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screen, "get_widget_and_offset_at", textual_private._get_widget_and_offset_at)
        async with (app := RemovesAndClicks()).run_test():
            with pytest.raises(AttributeError):  # once Textual raises no longer, the wrapper can go
                await app.press()


def test_an_exception_is_shown_once_per_input_and_logged_less_and_less(caplog: pytest.LogCaptureFixture) -> None:
    last = LastResort()
    assert [last.take(raised(), drawn=True) for _ in range(1000)] == [True] + [False] * 999
    assert len(caplog.records) == 10 and sum(record.exc_info is not None for record in caplog.records) == 1
    assert last.take(raised(1))  # another exception
    last.input_came()
    assert last.take(raised()) and not last.cannot_draw


def test_the_app_is_hopeless_if_it_neither_paints_nor_waits_for_a_key() -> None:
    last = LastResort()
    for _ in range(10 * WITHOUT_INPUT):
        last.take(raised())
        last.painted()  # perhaps by showing the exception itself
        last.painted()
    assert not last.cannot_draw
    for _ in range(WITHOUT_INPUT):
        last.take(raised())
        last.painted()
    assert last.cannot_draw
    last.input_came()
    assert not last.cannot_draw
    for _ in range(WITHOUT_PAINT):
        last.take(raised())
        last.input_came()
    assert last.cannot_draw


def test_many_different_exceptions_use_bounded_memory() -> None:
    last = LastResort()
    for number in range(2000):
        last.take(raised(number), drawn=True)
    assert len(last._times) <= 200
