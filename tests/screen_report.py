"""A failed test of the app reports what was on the screen, as text.

It does so whatever failed: an assertion, a wait that the tests' timeout ended, an error in the app.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager

import pytest
from textual.app import App
from textual.pilot import Pilot

_running: list[App[object]] = []  # the apps that the current test has started and not yet left
_screens: list[str] = []  # what they showed when an exception left them


def text_of(app: App[object]) -> str:
    """Returns the screen's lines as sent to the terminal, without the empty ones at its end."""
    try:
        strips = app.screen._compositor.render_strips()
    except Exception as error:  # the report of a failure must not fail
        return f"(the screen could not be read: {error!r})"
    lines = ["".join(segment.text for segment in strip).rstrip() for strip in strips]
    return f"{type(app.screen).__name__}, {app.size.width}×{app.size.height}\n" + "\n".join(lines).rstrip()


def remember() -> None:
    """Stores what the running apps show, before an exception is raised in one of their tasks and ends it."""
    _screens.extend(text_of(app) for app in _running)
    _running.clear()


def install() -> None:
    """Makes `App.run_test` remember the screen when an exception leaves it: the app is closed before pytest reports."""
    run_test = App.run_test

    @functools.wraps(run_test)
    @asynccontextmanager
    async def remembering(self: App[object], *arguments: object, **options: object) -> AsyncIterator[Pilot[object]]:
        async with run_test(self, *arguments, **options) as pilot:  # type: ignore[arg-type]
            _running.append(self)
            try:
                yield pilot
            except GeneratorExit:
                raise
            except BaseException:
                if self in _running:
                    _screens.append(text_of(self))
                raise
            finally:
                if self in _running:
                    _running.remove(self)

    App.run_test = remembering  # type: ignore[method-assign, assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the screens to a failed test's report. A timeout interrupts the event loop: the app is then still running."""
    report = yield
    if report.when == "call" and report.failed:
        screens = _screens + [text_of(app) for app in _running]
        report.sections += [("On the screen", text) for text in screens]
    if report.when != "setup":  # an interrupted app is closed at teardown
        _screens.clear()
        _running.clear()
    return report
