"""Make a Pilot continue once the app is idle, instead of by polling.

Textual's own `wait_for_idle` polls every 20 ms, twice for each key. With dozens of keys in each of hundreds of tests,
that was most of the suite's time. Here it is once for each key: the second wait is for animations, which are off.

During such a wait, what has changed is drawn once the app is idle, or at the end of a frame, as if one had just begun;
Textual draws the first change at once and the rest at the end of the frame. Drawing is two thirds of what a key costs.
A new layout is drawn once the widgets that it resized have settled, which mostly change once more.

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
from weakref import WeakKeyDictionary

from textual import app, constants, notifications, pilot, screen, timer
from textual._context import active_app
from textual.message_pump import MessagePump

from tests import HANG

MOMENT = 0.002  # seconds
FRAME = 1 / 60  # how long an app that is never idle is not drawn
PATIENCE = 0.02  # how long to wait for a thread that works (or that a test holds back)
LEAST = MOMENT / 20  # counted for an interval without CPU time, so that the wait ends

TASKS = Path("/proc/self/task")  # Linux


async def settle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """Waits until nothing is left to draw and the process was idle for one undisturbed `MOMENT`.

    It must be idle for ten of them if another thread is working, or a message is not handled: a process that is given no
    CPU for a while looks idle too. `max_sleep` is in seconds of CPU time.
    """
    global _settling
    idle = spent = 0.0
    _settling, drawn = _settling + 1, time.monotonic()
    try:
        while spent < max_sleep:
            began, used = time.monotonic(), time.process_time()
            await asyncio.sleep(MOMENT)
            passed, used = time.monotonic() - began, time.process_time() - used
            disturbed = passed > 3 * MOMENT  # preempted or stopped: whether the process was idle is unknown
            busy = disturbed or used > MOMENT / 4 or runnable()
            if not busy or began > drawn + FRAME:
                draw()
                drawn = began
            if busy or unpainted():
                idle = 0.0
                spent += max(used, LEAST)
                continue
            idle += passed
            if idle >= (PATIENCE if working() or not handled() else min_sleep):
                return
    finally:
        _settling -= 1
        draw()


_settling = 0  # how many waits are under way
_held: set[timer.Timer] = set()  # the timers of screens that have changed meanwhile
_laid_out: set[screen.Screen[object]] = set()  # the screens that have been laid out meanwhile
_painting: set[screen.Screen[object]] = set()  # and those that are about to be painted
_delays: WeakKeyDictionary[app.App[object], int] = WeakKeyDictionary()  # how many times each app delays what it draws


def draw() -> None:
    """Has the screens laid out that wait for it; has them painted if none does."""
    for laid_out in () if _held else tuple(_laid_out):
        if not laid_out.is_running:
            _laid_out.discard(laid_out)
        elif not laid_out.app._batch_count:
            _laid_out.discard(laid_out)
            _painting.add(laid_out)
            laid_out.call_next(paint, laid_out)
    while _held:
        _resume(_held.pop())


def paint(self: screen.Screen[object]) -> None:
    _painting.discard(self)
    if self.app._batch_count:
        _laid_out.add(self)
    else:
        _paint(self)


def paint_later(self: screen.Screen[object]) -> None:
    if _settling and self.app.screen is self:  # one below a dialog only tells the dialog what to paint
        _laid_out.add(self)
    else:
        _paint(self)


def resume(self: timer.Timer) -> None:
    if _settling and self.name == "screen_update" and not self._active.is_set():
        _held.add(self)
    else:
        _resume(self)


def pause(self: timer.Timer) -> None:
    _held.discard(self)
    _pause(self)


def unpainted() -> bool:
    """Whether the screen has changed and waits for its next update or for the end of a `delay_update`, or the terminal has
    another size, which Textual tells the screen 8 ms later: it could be the next one's."""
    running = active_app.get(None)
    if running is None or not running.screen_stack:
        return False
    top = running.screen
    waits = top._update_timer
    return (
        (running._resize_timer is not None and running.is_running)
        or waits._active.is_set()
        or waits in _held
        or top in _painting
        or (top in _laid_out and not running._batch_count)
        or bool(_delays.get(running))
    )


def delay_update(self: app.App[object], delay: float = 0.05) -> None:
    """Textual's, and `settle` waits for its end: the palette holds the drawing for so long once a command was chosen."""

    def ended() -> None:
        _delays[self] -= 1

    _delay_update(self, delay)
    _delays[self] = _delays.get(self, 0) + 1
    self.set_timer(delay, ended)


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


def handled() -> bool:
    """Whether the app and the widgets on the screen have handled all of their messages."""
    running = active_app.get(None)
    stack = running.screen_stack if running is not None else ()
    return not stack or all(map(waits, (running, *stack[-1].walk_children(with_self=True))))


async def wait_for_screen(self: pilot.Pilot[object], timeout: float = HANG) -> bool:
    """Textual's wait until the app and the widgets on the screen have handled their messages, where any has one.

    It posts a callback to each of them, and each then looks for something to draw: done before and after each key, that
    was a good part of the suite's time.
    """
    if self.app.screen_stack and handled():
        return not self.app._exception_event.is_set()
    return await _wait_for_screen(self, timeout)


async def _press_one_by_one(self: app.App[object], keys: Iterable[str]) -> None:
    for key in keys:
        await _press(self, [key])
        await settle()


async def _no_wait(min_sleep: float) -> None:
    pass


async def end(self: app.App[object]) -> None:
    """Ends the app, and first what still works for it: at the end of a test, unlike at a user's `quit`, a screen counts as live
    while its widgets are removed, and a search in the palette would not find its list."""
    self.workers.cancel_all()
    await _shutdown(self)


_press, _shutdown, _delay_update = app.App._press_keys, app.App._shutdown, app.App.delay_update
_paint = screen.Screen._compositor_refresh
_resume, _pause = timer.Timer.resume, timer.Timer.pause
_wait_for_screen = pilot.Pilot._wait_for_screen


def install() -> None:
    """Installs `settle` for the apps of this process. Apps that tests start as processes are not changed."""
    pilot.wait_for_idle = settle  # type: ignore[attr-defined]
    app.wait_for_idle = _no_wait  # type: ignore[attr-defined]
    app.App._press_keys = _press_one_by_one  # type: ignore[method-assign]
    screen.UPDATE_PERIOD = MOMENT / 2  # type: ignore[misc]
    timer.Timer.resume, timer.Timer.pause = resume, pause  # type: ignore[method-assign]
    screen.Screen._compositor_refresh = paint_later  # type: ignore[method-assign, assignment]
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
    app.App._shutdown = end  # type: ignore[method-assign]
    app.App.delay_update = delay_update  # type: ignore[method-assign, assignment]
