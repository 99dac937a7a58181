"""Make a Pilot continue once the app is idle, instead of by polling.

Textual's own `wait_for_idle` polls every 20 ms, twice for each key. With dozens of keys in each of hundreds of tests,
that was most of the suite's time. Here it is once for each key: the second wait is for animations, which are off.

What a key changes is drawn once, when the app is idle, or after 1/60 s if it is not: as if the end of a frame were then.
Textual draws the first change at once and the rest at the end of the frame. Drawing is two thirds of what a key costs.

On a busy machine the wait takes longer but ends at the same state: a thread that waits for a CPU counts as working, and
the limit for an app that is never idle (one that streams) is in CPU time.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from textual import app, constants, notifications, pilot, timer
from textual._context import active_app
from textual.message_pump import MessagePump

from tests import HANG

MOMENT = 0.002  # seconds
PATIENCE = 0.02  # how long to wait for a thread that works (or that a test holds back)
LEAST = MOMENT / 20  # counted for an interval without CPU time, so that the wait ends

TASKS = Path("/proc/self/task")  # Linux


async def settle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Waits until nothing is left to draw and the process was idle for one undisturbed `MOMENT`.

    If another thread is working, it must be idle for ten of them. `max_sleep` is in seconds of CPU time.
    """
    idle = spent = 0.0
    while spent < max_sleep:
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(MOMENT)
        passed, used = time.monotonic() - began, time.process_time() - used
        disturbed = passed > 3 * MOMENT  # preempted or stopped: whether the process was idle is unknown
        if disturbed or used > MOMENT / 4 or runnable() or paint():
            idle = 0.0
            spent += max(used, LEAST)
            continue
        idle += passed
        if idle >= (PATIENCE if working() else min_sleep):
            return


def paint() -> bool:
    """Draws the screen if it has changed and waits for the end of the frame. Returns whether it did."""
    running = active_app.get(None)
    if running is None or not running.screen_stack or not running.screen._update_timer._active.is_set():
        return False
    with running.screen._context():
        running.screen._on_timer_update()
    return True


def resume(self: timer.Timer) -> None:
    """A frame begins with its first change."""
    if self.name == "screen_update" and not self._active.is_set():
        self.reset()
    else:
        _resume(self)


def working() -> bool:
    running = active_app.get(None)
    return running is not None and any(not worker.is_finished for worker in running.workers)


def runnable() -> bool:
    """Whether another thread of this process runs, or waits for a CPU or the disk; known on Linux only.

    Reading the files releases the GIL, so that a thread that waits for it is seen too.
    """
    own = str(threading.get_native_id())
    try:
        return any(_state(thread) in b"RD" for thread in os.listdir(TASKS) if thread != own)  # noqa: PTH208
    except FileNotFoundError:
        return False


def _state(thread: str) -> bytes:
    try:
        file = os.open(f"/proc/self/task/{thread}/stat", os.O_RDONLY)
        try:
            return os.read(file, 512).rpartition(b") ")[2][:1]
        finally:
            os.close(file)
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return b"X"


def waits(pump: MessagePump) -> bool:
    """Whether an app or a widget has handled all of its messages and waits for the next one, or has ended."""
    queue = pump._message_queue
    return pump._closing or (queue.empty() and any(not wait.done() for wait in queue.ready_event._waiters))


async def wait_for_screen(self: pilot.Pilot[object], timeout: float = HANG) -> bool:
    """Textual's wait until the app and the widgets on the screen have handled their messages, where any has one.

    It posts a callback to each of them, and each then looks for something to draw: done before and after each key, that
    was a good part of the suite's time.
    """
    stack = self.app.screen_stack
    if stack and all(map(waits, (self.app, *stack[-1].walk_children(with_self=True)))):
        return not self.app._exception_event.is_set()
    return await _wait_for_screen(self, timeout)


async def _press_one_by_one(self: app.App[object], keys: Iterable[str]) -> None:
    for key in keys:
        await _press(self, [key])
        await settle()


async def _no_wait(min_sleep: float) -> None:
    pass


_press = app.App._press_keys
_resume = timer.Timer.resume
_wait_for_screen = pilot.Pilot._wait_for_screen


def install() -> None:
    """Installs `settle` for the apps of this process. Apps that tests start as processes are not changed."""
    pilot.wait_for_idle = settle  # type: ignore[attr-defined]
    app.wait_for_idle = _no_wait  # type: ignore[attr-defined]
    app.App._press_keys = _press_one_by_one  # type: ignore[method-assign]
    timer.Timer.resume = resume  # type: ignore[method-assign]
    constants.TEXTUAL_ANIMATIONS = "none"  # type: ignore[misc]
    # Notifications disappear after some seconds: on a busy machine, a test would miss them.
    notifications.Notification.time_left = property(lambda _: HANG)  # type: ignore[assignment, method-assign]
    # Wait for the next paint before a click: the app ignores clicks on what has not been painted (closing_keys.py).
    click = pilot.Pilot._post_mouse_events

    async def click_what_is_painted(self: pilot.Pilot[object], *arguments: object, **options: object) -> bool:
        await self.pause()
        return await click(self, *arguments, **options)  # type: ignore[arg-type]

    pilot.Pilot._post_mouse_events = click_what_is_painted  # type: ignore[method-assign, assignment]
    pilot.Pilot._wait_for_screen = wait_for_screen  # type: ignore[method-assign]
