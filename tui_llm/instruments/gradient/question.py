"""The gradient of the loss on the logits, p − y: what a step pushes up, and what it pushes down."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class GradientQuestion(Question):
    """Of the loss on token number `index` (from 0) of the request's target: the target's own row, and the `count` other
    rows where |p − y| is largest."""

    index: int = 0
    count: int = 10


@dataclass(frozen=True, slots=True)
class Push:
    """One row of p − y. `gradient` is p, or p − 1 for the target itself: a step moves the logit the other way."""

    token: Token
    probability: float
    gradient: float
    target: bool


@dataclass(frozen=True, slots=True)
class Gradient:
    """Largest |p − y| first, the target's always among them. `rest` of `rest_count` tokens is the sum of the others' p − y;
    all rows and the rest sum to 0."""

    question: GradientQuestion
    token: Token
    tokens: int  # how many the target has
    rows: tuple[Push, ...]
    rest_count: int
    rest: float
