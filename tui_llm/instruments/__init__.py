"""Instruments: each answers one kind of question about the open model, on demand. Nobody pays for them otherwise.

The question of `facts/NAME.py` is answered by `answer(desk, question, overtaken)` of `instruments/NAME.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tui_llm.instruments.desk import Desk
from tui_llm.reading import Question


def answer(desk: Desk, question: Question, overtaken: Callable[[], bool]) -> Any:
    """The answer to `question`, which `overtaken` may interrupt (`Overtaken`). Raises `UserError` where there is none."""
    name = type(question).__module__.removeprefix("tui_llm.facts.")
    instrument = importlib.import_module(f"tui_llm.instruments.{name}")
    return instrument.answer(desk, question, overtaken)
