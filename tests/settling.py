"""When a Pilot goes on: once the app has nothing more to do.

Textual's own `wait_for_idle` looks every 20 ms at whether the process is idle, twice a key, and what a key changed is drawn
at the next 1/60 s. A test presses dozens of keys, and there are hundreds of tests: most of their time was that.
"""

from __future__ import annotations

import asyncio
import time

from textual import app, constants, pilot, screen
from textual._context import active_app

MOMENT = 0.002  # seconds
PATIENCE = 0.02  # as long a thread that works (or waits for what a test holds back) is waited for


async def settle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Waits until nothing is left to draw and the process was idle for an undisturbed moment; with a thread at work, for ten."""
    idle = spent = 0.0
    while spent < max_sleep:
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(MOMENT)
        passed, used = time.monotonic() - began, time.process_time() - used
        disturbed = passed > 3 * MOMENT  # kept from the processor, or stopped: what it would have done is not known
        spent += min(passed, 3 * MOMENT)
        if disturbed or used > MOMENT / 4 or unpainted():
            idle = 0.0
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


def install() -> None:
    """For the apps of this process; those that tests start as processes stay as users have them."""
    app.wait_for_idle = pilot.wait_for_idle = settle  # type: ignore[attr-defined]
    screen.UPDATE_PERIOD = MOMENT / 2  # type: ignore[misc]
    constants.TEXTUAL_ANIMATIONS = "none"  # type: ignore[misc]
