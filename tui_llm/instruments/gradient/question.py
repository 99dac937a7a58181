"""The gradient of the loss with respect to the logits, p − y: whether the loss falls if a logit
rises, or if it falls."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class GradientQuestion(Question["Gradient"]):
    """The gradient of the loss on token `index` (from 0) of the request's target: the target's row, and the `count`
    other rows with the largest |p − y|."""

    index: int = 0
    count: int = 10


@dataclass(frozen=True, slots=True)
class LogitGradient:
    """One component of p − y. `gradient` is p, or p − 1 for the target itself; the loss falls if the logit moves in the
    opposite direction. (A training step moves weights, which all logits share.)"""

    token: Token
    probability: float
    gradient: float
    target: bool


@dataclass(frozen=True, slots=True)
class Gradient:
    """Rows in descending order of |p − y|, the target's always included. `rest` is the sum of p − y over the
    `rest_count` other tokens; all rows and `rest` together sum to 0."""

    question: GradientQuestion
    token: Token
    tokens: int  # number of tokens in the target
    rows: tuple[LogitGradient, ...]
    rest_count: int
    rest: float
