"""Softmax of the model's logits at several temperatures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tui_llm.facts.tokens import Token
from tui_llm.instruments.answers import answers
from tui_llm.instruments.temperatures.question import TemperatureColumn, Temperatures, TemperaturesQuestion
from tui_llm.llm.predict.distribution import Sorted

if TYPE_CHECKING:
    from tui_llm.session.open_model import OpenModel


def temperatures(logits: Sorted, asked: Sequence[float], top: int, token: Callable[[int], Token]) -> Temperatures:
    """Softmax at each temperature, before any cut, of the `top` most probable tokens; temperature 0 is greedy."""
    columns = []
    for temperature in asked:
        p = logits.tempered(temperature).astype(np.float64)
        entropy = 0.0 - float((p * np.log(np.where(p > 0, p, 1.0))).sum())  # 0 ln 0 = 0
        columns.append(
            TemperatureColumn(temperature, tuple(p[:top].tolist()), float(p[top:].sum()), entropy, math.exp(entropy))
        )
    ids = logits.order[:top].tolist()
    return Temperatures(tuple(token(id) for id in ids), len(logits.order) - len(ids), tuple(columns))


@answers(TemperaturesQuestion)
def answer(open_model: OpenModel, question: TemperaturesQuestion, overtaken: Callable[[], bool]) -> Temperatures:
    """Raises `UserError` if there is nothing to predict from."""
    logits = open_model.prediction(question.request, overtaken).sorted
    return temperatures(logits, question.temperatures, question.top, open_model.token)
