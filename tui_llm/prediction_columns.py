"""The same scores under several temperatures, as plain facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from tui_llm.facts.temperatures import TemperatureColumn, Temperatures
from tui_llm.llm.distribution import Sorted
from tui_llm.reading import Token


def temperatures(logits: Sorted, asked: Sequence[float], top: int, token: Callable[[int], Token]) -> Temperatures:
    """Softmax at each temperature, before any cut, of the `top` likeliest tokens; 0 is greedy."""
    columns = []
    for temperature in asked:
        p = logits.tempered(temperature).double()
        entropy = 0.0 - float(torch.special.xlogy(p, p).sum())
        columns.append(
            TemperatureColumn(temperature, tuple(p[:top].tolist()), float(p[top:].sum()), entropy, math.exp(entropy))
        )
    ids = logits.order[:top].tolist()
    return Temperatures(tuple(token(id) for id in ids), len(logits.order) - len(ids), tuple(columns))
