"""What `tests/settling.py` promises: after a key all that follows from it is done and drawn, and a held thread holds no test."""

from __future__ import annotations

import threading

from helpers import drawn
from textual import work
from textual.app import App, ComposeResult
from textual.widgets import Static


class Chain(App[None]):
    """Each key: a change that shows after three refreshes, and one that a thread makes."""

    BINDINGS = [("a", "later(3)"), ("b", "thread")]
    gate = threading.Event()

    def compose(self) -> ComposeResult:
        yield Static("first", id="refreshed")
        yield Static("first", id="threaded")

    def action_later(self, refreshes: int) -> None:
        if refreshes:
            self.query_one("#refreshed", Static).update(f"{refreshes} to go")
            self.call_after_refresh(self.action_later, refreshes - 1)
        else:
            self.query_one("#refreshed", Static).update("refreshed")

    @work(thread=True)
    def action_thread(self) -> None:
        self.gate.wait()
        self.call_from_thread(self.query_one("#threaded", Static).update, "threaded")


async def test_all_that_follows_from_a_key_is_done_and_drawn() -> None:
    app = Chain()
    app.gate = threading.Event()
    app.gate.set()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.press("a")
        assert "refreshed" in "".join(drawn(app))
        await pilot.press("b")
        assert "threaded" in "".join(drawn(app))


async def test_a_thread_that_waits_holds_no_test() -> None:
    app = Chain()
    app.gate = threading.Event()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.press("b", "a")
        assert "refreshed" in "".join(drawn(app)) and "threaded" not in "".join(drawn(app))
        app.gate.set()
        await pilot.pause()
        assert "threaded" in "".join(drawn(app))
