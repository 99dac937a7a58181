"""Make a Pilot continue once the app is idle, instead of by polling.

Textual's own `wait_for_idle` polls every 20 ms, twice for each key, and a change is drawn at the next 1/60 s. With
dozens of keys in each of hundreds of tests, that was most of the suite's time. Here it is once for each key: the second
wait is for animations, which are off.

On a busy machine the wait takes longer but ends at the same state: a thread that waits for a CPU counts as working, and
the limit for an app that is never idle (one that streams) is in CPU time.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from textual import app, constants, notifications, pilot, screen
from textual._context import active_app

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
        if disturbed or used > MOMENT / 4 or unpainted() or runnable():
            idle = 0.0
            spent += max(used, LEAST)
            continue
        idle += passed
        if idle >= (PATIENCE if working() else min_sleep):
            return


def unpainted() -> bool:
    """Whether the screen has changed and waits for its next update."""
    running = active_app.get(None)
    if running is None or not running.screen_stack:
        return False
    return running.screen._update_timer._active.is_set()


def working() -> bool:
    running = active_app.get(None)
    return running is not None and any(not worker.is_finished for worker in running.workers)


def runnable() -> bool:
    """Whether another thread of this process runs, or waits for a CPU or the disk; known on Linux only.

    Reading the files releases the GIL, so that a thread that waits for it is seen too.
    """
    own = str(threading.get_native_id())
    try:
        return any(_state(thread) in b"RD" for thread in TASKS.iterdir() if thread.name != own)
    except FileNotFoundError:
        return False


def _state(thread: Path) -> bytes:
    try:
        return (thread / "stat").read_bytes().rpartition(b") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return b"X"


async def _press_one_by_one(self: app.App[object], keys: Iterable[str]) -> None:
    for key in keys:
        await _press(self, [key])
        await settle()


async def _no_wait(min_sleep: float) -> None:
    pass


_press = app.App._press_keys


def install() -> None:
    """Installs `settle` for the apps of this process. Apps that tests start as processes are not changed."""
    pilot.wait_for_idle = settle  # type: ignore[attr-defined]
    app.wait_for_idle = _no_wait  # type: ignore[attr-defined]
    app.App._press_keys = _press_one_by_one  # type: ignore[method-assign]
    screen.UPDATE_PERIOD = MOMENT / 2  # type: ignore[misc]
    constants.TEXTUAL_ANIMATIONS = "none"  # type: ignore[misc]
    # Notifications disappear after some seconds: on a busy machine, a test would miss them.
    notifications.Notification.time_left = property(lambda _: HANG)  # type: ignore[assignment, method-assign]
    # Wait for the next paint before a click: the app ignores clicks on what has not been painted (closing_keys.py).
    click = pilot.Pilot._post_mouse_events

    async def click_what_is_painted(self: pilot.Pilot[object], *arguments: object, **options: object) -> bool:
        await self.pause()
        return await click(self, *arguments, **options)  # type: ignore[arg-type]

    pilot.Pilot._post_mouse_events = click_what_is_painted  # type: ignore[method-assign, assignment]
    # A Pilot fails if the widgets have not handled their messages after 30 s.
    whole = pilot.Pilot._wait_for_screen
    pilot.Pilot._wait_for_screen = functools.partialmethod(whole, timeout=HANG)  # type: ignore[method-assign, assignment]
