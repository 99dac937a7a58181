"""What all tests share: a home of their own, no network, no clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests import settling

# No test here is about time: a busy machine must not fail one.
settings.register_profile("quick", deadline=None, max_examples=40)  # the whole suite stays under five minutes
settings.register_profile("thorough", deadline=None, max_examples=400)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

settling.install()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `TUI_LLM_HOME`: no test sees, or writes into, the user's runs and caches."""
    path = tmp_path / "tui-llm-home"
    monkeypatch.setenv("TUI_LLM_HOME", str(path))
    return path
