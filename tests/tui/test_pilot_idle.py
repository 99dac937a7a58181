"""`tests/pilot_idle.py`: after a key, all its effects are done and drawn; a blocked thread does not block the test."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time

import pytest
from helpers import drawn, until, workers_done
from textual import events, work
from textual.app import App, ComposeResult
from textual.widgets import Static

from tests import HANG, pilot_idle


class Chain(App[None]):
    """Each key causes a change that is visible after three refreshes, and one by a thread."""

    BINDINGS = [("a", "later(3)"), ("b", "thread"), ("c", "slowly")]
    gate = threading.Event()
    given_a_cpu = asyncio.Event()

    def compose(self) -> ComposeResult:
        yield Static("first", id="refreshed")
        yield Static("first", id="threaded")

    def action_later(self, refreshes: int) -> None:
        if refreshes:
            self.query_one("#refreshed", Static).update(f"{refreshes} to go")
            self.call_after_refresh(self.action_later, refreshes - 1)
        else:
            self.query_one("#refreshed", Static).update("refreshed")

    async def action_slowly(self) -> None:
        await self.given_a_cpu.wait()
        self.query_one("#refreshed", Static).update("slowly")

    @work(thread=True)
    def action_thread(self) -> None:
        self.gate.wait()
        self.call_from_thread(self.query_one("#threaded", Static).update, "threaded")


async def test_all_effects_of_a_key_are_done_and_drawn() -> None:
    app = Chain()
    app.gate = threading.Event()
    app.gate.set()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.press("a")
        assert "refreshed" in "".join(drawn(app))
        await pilot.press("b")
        assert "threaded" in "".join(drawn(app))


async def test_after_each_change_of_the_size_the_screen_has_it() -> None:
    app = Chain()
    async with app.run_test(size=(20, 5)) as pilot:
        for size in ((30, 5), (1, 1), (20, 5), (80, 24)):
            await pilot.resize_terminal(*size)
            assert app.screen.size == app.screen._compositor.size == size
            assert [len(line) for line in drawn(app)] == [size[0]] * size[1]


async def test_a_blocked_thread_does_not_block_a_test() -> None:
    app = Chain()
    app.gate = threading.Event()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.press("b", "a")
        assert "refreshed" in "".join(drawn(app)) and "threaded" not in "".join(drawn(app))
        app.gate.set()
        await pilot.pause()
        assert "threaded" in "".join(drawn(app))


class Watching(App[None]):
    BINDINGS = [("a", "look")]

    def __init__(self) -> None:
        super().__init__()
        self.go, self.looks = threading.Event(), 0

    @work(thread=True, exclusive=True)
    def action_look(self) -> None:
        self.looks += 1
        self.go.wait(HANG)


async def test_a_worker_that_a_newer_one_cancels_is_not_waited_for() -> None:
    app = Watching()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.press("a")
        waiting = asyncio.ensure_future(workers_done(pilot))
        try:
            await pilot.press("a")
            await until(pilot, lambda: app.looks == 2)
            assert not waiting.done()
        finally:
            app.go.set()  # the threads would keep the process from ending
        await waiting


async def test_a_thread_that_waits_for_a_processor_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine: the app's thread is runnable, but does not run for longer than `PATIENCE`."""
    looks = iter([True] * 30)
    monkeypatch.setattr(pilot_idle, "runnable", lambda: next(looks, False))
    await pilot_idle.settle()
    assert next(looks, None) is None


@pytest.mark.skipif(not pilot_idle.TASKS.is_dir(), reason="only Linux tells what threads do")
def test_running_threads_are_distinguished_from_waiting_ones() -> None:
    end, seen = threading.Event(), threading.Event()
    waits = threading.Thread(target=end.wait)

    def work() -> None:
        while not seen.is_set():
            hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)

    works = threading.Thread(target=work)
    waits.start()
    try:
        while pilot_idle.runnable():
            pass
        works.start()
        while not pilot_idle.runnable():
            assert works.is_alive()
        seen.set()
        works.join()
        while pilot_idle.runnable():
            pass
    finally:
        end.set()
        seen.set()
        waits.join()


class Delaying(App[None]):
    BINDINGS = [("a", "choose")]

    def action_choose(self) -> None:
        self.delay_update(0.05)  # as Textual's palette does once a command was chosen


async def test_a_delayed_update_is_waited_for() -> None:
    app = Delaying()
    async with app.run_test(size=(20, 5)) as pilot:
        await pilot.press("a", "a")
        assert not app._batch_count


async def test_notifications_stay_for_a_slow_test() -> None:
    app = Chain()
    async with app.run_test(size=(40, 10), notifications=True) as pilot:
        app.notify("said", timeout=0.001)
        await pilot.pause()
        assert any("said" in line for line in drawn(app)) and len(app._notifications) == 1


async def test_a_process_that_is_given_no_cpu_is_not_idle_while_a_message_is_not_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, looked = Chain(), 0

    def runnable() -> bool:
        nonlocal looked
        looked += 1
        if looked == 8:  # what draws takes less
            app.given_a_cpu.set()
        return False

    async with app.run_test(size=(20, 5)) as pilot:
        app.given_a_cpu = asyncio.Event()
        monkeypatch.setattr(time, "process_time", lambda: 0.0)
        monkeypatch.setattr(pilot_idle, "runnable", runnable)
        monkeypatch.setattr(pilot_idle, "PATIENCE", HANG)
        app.post_message(events.Key("c", "c"))
        await pilot_idle.settle()
        found = "".join(drawn(app))
        app.given_a_cpu.set()
        await pilot.pause()
    assert "slowly" in found
