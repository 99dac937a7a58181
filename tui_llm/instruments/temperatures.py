"""Temperatures side by side, of what the model predicts."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.facts.temperatures import Temperatures, TemperaturesQuestion
from tui_llm.instruments.desk import Desk
from tui_llm.llm import device
from tui_llm.prediction_columns import temperatures


def answer(desk: Desk, question: TemperaturesQuestion, overtaken: Callable[[], bool]) -> Temperatures:
    """Raises `UserError` where nothing is predicted."""
    logits = desk.prediction(question.request, overtaken).sorted
    with device.threads(desk.tokenizer.size):
        return temperatures(logits, question.temperatures, question.top, desk.token)
