"""When a Pilot goes on: once the app has nothing more to do.

Textual's own `wait_for_idle` looks every 20 ms at whether the process is idle, twice a key, and what a key changed is drawn
at the next 1/60 s. A test presses dozens of keys, and there are hundreds of tests: most of their time was that.

A busy machine changes how long this takes, not when it ends: a thread that waits for a processor is at work, and what limits
the wait for an app that is never idle (one that streams) is the processor time that it has used.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from pathlib import Path

from textual import app, constants, notifications, pilot, screen
from textual._context import active_app

from tests import HANG

MOMENT = 0.002  # seconds
PATIENCE = 0.02  # as long a thread that works (or waits for what a test holds back) is waited for
LEAST = MOMENT / 20  # counted for a moment without processor time, so that the wait ends

TASKS = Path("/proc/self/task")  # Linux


async def settle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Waits until nothing is left to draw and the process was idle for an undisturbed moment; with a thread at work, for ten.

    `max_sleep` is in seconds of processor time.
    """
    idle = spent = 0.0
    while spent < max_sleep:
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(MOMENT)
        passed, used = time.monotonic() - began, time.process_time() - used
        disturbed = passed > 3 * MOMENT  # kept from the processor, or stopped: what it would have done is not known
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
    """Whether another thread of this process runs, waits for a processor or for the disk, where the system tells it (Linux).
    Reading the files lets go of Python's lock, so that a thread that waits for that shows, too."""
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


def install() -> None:
    """For the apps of this process; those that tests start as processes stay as users have them."""
    app.wait_for_idle = pilot.wait_for_idle = settle  # type: ignore[attr-defined]
    screen.UPDATE_PERIOD = MOMENT / 2  # type: ignore[misc]
    constants.TEXTUAL_ANIMATIONS = "none"  # type: ignore[misc]
    # A notification is there for some seconds. A test that comes late on a busy machine would not find it.
    notifications.Notification.time_left = property(lambda _: HANG)  # type: ignore[assignment, method-assign]
    # Nobody clicks on what has not been painted, and the app takes no such click (closing_keys.py).
    click = pilot.Pilot._post_mouse_events

    async def click_what_is_painted(self: pilot.Pilot[object], *arguments: object, **options: object) -> bool:
        await self.pause()
        return await click(self, *arguments, **options)  # type: ignore[arg-type]

    pilot.Pilot._post_mouse_events = click_what_is_painted  # type: ignore[method-assign, assignment]
    # A Pilot gives up after 30 s in which the widgets have not handled their messages.
    whole = pilot.Pilot._wait_for_screen
    pilot.Pilot._wait_for_screen = functools.partialmethod(whole, timeout=HANG)  # type: ignore[method-assign, assignment]
