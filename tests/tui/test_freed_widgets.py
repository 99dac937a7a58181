"""A removed widget that follows the theme is freed: Textual's signal kept it, and its screen, until the next change."""

from __future__ import annotations

import gc
import weakref

from helpers import make_app
from textual.pilot import Pilot
from textual.widgets import Static

from tui_llm.tui.app import LabApp


class Follows(Static):
    def on_mount(self) -> None:
        self.followed = 0
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.follow())

    def follow(self) -> None:
        self.followed += 1


async def test_a_removed_widget_that_follows_the_theme_is_freed_though_the_theme_stays() -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        widgets = [weakref.ref(await mounted_and_removed(app, pilot)) for _ in range(4)]
        gc.collect()
        # a message that was handled last may refer to the last one
        assert [widget() for widget in widgets[:-1]] == [None, None, None]


async def test_the_widgets_that_are_there_follow_it() -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await mounted_and_removed(app, pilot)
        widget = Follows()
        await app.screen.mount(widget)
        app.theme = "textual-light"
        await pilot.pause()
        assert widget.followed == 1


async def mounted_and_removed(app: LabApp, pilot: Pilot[None]) -> Follows:
    widget = Follows()
    await app.screen.mount(widget)
    await pilot.pause()
    await widget.remove()
    await pilot.pause()
    return widget
