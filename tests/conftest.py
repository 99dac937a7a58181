"""Fixtures and settings of all tests: a home of their own, no network, no deadlines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests import durations, pilot_idle, preloaded, screen_report, stylesheets, timeouts
from tui_llm.tui.state import garbage

# No deadlines: a busy machine must not fail a test.
settings.register_profile("quick", deadline=None, max_examples=40)  # keeps the whole suite short
settings.register_profile("few", deadline=None, max_examples=10)  # the second run of the numeric tests
settings.register_profile("thorough", deadline=None, max_examples=400)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# These begin first: at the end, one process would still be busy with them for a minute, and the others idle.
FIRST = ("tests/tui/test_soak.py", "tests/tui/test_tour_screen.py")

LONGEST_ID = 80  # characters of one parameter in a test's id

# Nothing is flushed to the disk: processes are killed here, the machine is not. A wrong descriptor is an error still.
os.fsync = os.fstat  # type: ignore[assignment]

pilot_idle.install()
stylesheets.install()
screen_report.install()
preloaded.install()
pytest_runtest_makereport = screen_report.pytest_runtest_makereport

pytest_timeout_set_timer = timeouts.pytest_timeout_set_timer
pytest_runtest_teardown = timeouts.pytest_runtest_teardown


def pytest_configure(config: pytest.Config) -> None:
    durations.install(config)
    # Importing the tests makes half a million objects that live as long as the process: torch, transformers, Textual.
    # Python's collector would traverse them many times meanwhile (a third of the time to collect the tests), and again
    # in each full collection of the tests that follow.
    garbage.pause(again=True)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A short id for a long text: the processes of pytest-xdist send each other the ids of all tests, of this one twice."""
    if not isinstance(val, str | bytes) or len(val) <= LONGEST_ID:
        return None
    begin = val[:LONGEST_ID] if isinstance(val, str) else val[:LONGEST_ID].decode("latin-1")
    return f"{begin.encode('unicode_escape').decode()[: LONGEST_ID // 2]}...{len(val)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    garbage.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    preloaded.real = item.path.stem in preloaded.REAL


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `TUI_LLM_HOME`: no test reads or writes the user's runs and caches."""
    path = tmp_path / "tui-llm-home"
    monkeypatch.setenv("TUI_LLM_HOME", str(path))
    monkeypatch.setenv("TUI_LLM_KERNEL", "torch")  # `--kernel` changes it for the process
    return path
