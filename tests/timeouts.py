"""Repeat a test's timeout until the test has failed.

pytest-timeout raises its exception once, wherever the main thread is. In a test of the app, that is the task or the
callback that the event loop runs at that moment. If that is not the test's own task, asyncio stores the exception in the
task or logs it, and the test waits forever.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Generator

import pytest
from pytest_timeout import Settings

from tests import HANG, screen_report

AGAIN = 2.0  # seconds until the exception is raised again

_fired = pytest.StashKey[Settings]()  # of a test that has exceeded its timeout


def in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> Generator[None, object, object]:
    result = yield
    if settings.method != "signal" or threading.current_thread() is not threading.main_thread():
        return result
    fail = signal.getsignal(signal.SIGALRM)
    assert callable(fail)

    def fail_until_left(number: int, frame: object) -> None:
        __tracebackhide__ = True
        if in_event_loop():
            item.stash[_fired] = settings
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        elif _fired in item.stash:  # the exception has left the loop: pytest has it
            return
        screen_report.remember()
        fail(number, frame)

    signal.signal(signal.SIGALRM, fail_until_left)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Sets a timer again: what an interrupted app leaves behind can also hang the fixtures that close its event loop. At the
    test's exception, pytest-timeout has removed its handler of the signal: without one, the signal ends the process."""
    settings = item.stash.get(_fired, None)
    if settings is None:
        return (yield)
    del item.stash[_fired]
    item.ihook.pytest_timeout_set_timer(item=item, settings=settings._replace(timeout=max(HANG, settings.timeout)))
    try:
        return (yield)
    finally:
        item.ihook.pytest_timeout_cancel_timer(item=item)
