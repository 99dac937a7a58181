"""Softmax of the same logits at several temperatures, side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tui_llm.common.errors import UserError
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token

USUAL = (0.5, 1.0, 2.0)
MOST = 8  # columns


@dataclass(frozen=True, slots=True)
class TemperaturesQuestion(Question["Temperatures"]):
    """The probabilities of the `top` most probable tokens at each temperature, before any cut."""

    temperatures: tuple[float, ...] = USUAL
    top: int = 200


@dataclass(frozen=True, slots=True)
class TemperatureColumn:
    """Softmax at one temperature.

    probabilities: probabilities[i] is that of token i of the table; rest: the sum over all other tokens.
    entropy: of the whole distribution, in nats; choices: e^entropy, the effective number of choices.
    """

    temperature: float
    probabilities: tuple[float, ...]
    rest: float
    entropy: float
    choices: float


@dataclass(frozen=True, slots=True)
class Temperatures:
    tokens: tuple[Token, ...]
    others: int  # number of tokens that are not listed
    columns: tuple[TemperatureColumn, ...]


def parse(text: str) -> tuple[float, ...]:
    """`0.5, 1, 2` → temperatures ≥ 0 (0 is greedy). Raises `UserError`."""
    found = []
    for word in text.replace(",", " ").split():
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"{word!r} is not a temperature; give numbers from 0 up, such as 0.5, 1, 2")
        found.append(value)
    if not 1 <= len(found) <= MOST:
        raise UserError(f"{len(found)} temperatures; give 1 to {MOST}, such as 0.5, 1, 2")
    return tuple(found)
