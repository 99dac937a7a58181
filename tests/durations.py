"""How long each test took when it last ran here: kept in pytest's cache, from which `python -m tests --quick` budgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

KEY = "tests/durations"


def function_of(nodeid: str) -> str:
    """Returns a test's id without its parameters.

    Example: `tests/test_a.py::test_b[1-2]` → `tests/test_a.py::test_b`.
    """
    return nodeid.partition("[")[0]


class Recorder:
    """A pytest plugin that stores each test function's seconds; those of its parameters are added up."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        function = function_of(report.nodeid)
        self.seconds[function] = self.seconds.get(function, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        earlier = self.config.cache.get(KEY, {})
        self.config.cache.set(KEY, earlier | {test: round(s, 3) for test, s in self.seconds.items()})


def install(config: pytest.Config) -> None:
    """Records in the process that receives all reports: pytest-xdist's workers report to it."""
    if not hasattr(config, "workerinput") and hasattr(config, "cache"):
        config.pluginmanager.register(Recorder(config), "durations")


def measured(repository: Path) -> dict[str, float]:
    """Returns the seconds of each test function that ran in this checkout."""
    path = repository / ".pytest_cache" / "v" / KEY
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
