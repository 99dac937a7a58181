"""Scores of attention heads: how much of a head's attention follows a pattern."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

INDUCTION, PREVIOUS, DUPLICATE = SCORES = ("induction", "previous", "duplicate")

MEANINGS = {
    INDUCTION: "attends to what followed an earlier occurrence",
    PREVIOUS: "attends to the previous token",
    DUPLICATE: "attends to an earlier occurrence",
}
"""What a head with a high score does, in few words: an occurrence is one of the current token."""

LENGTH = 50
"""Random tokens of the detectors' texts, before they are repeated."""

STRONG = 0.4
"""From this score on, a head is named after the pattern."""


@dataclass(frozen=True, slots=True)
class HeadScore:
    """The scores of one head, each from 0 to 1: the mean attention to the pattern's tokens, over the tokens that have one.

    layer, head: from 0. A score is None if no token of the text has a pattern token.
    """

    layer: int
    head: int
    induction: float | None
    previous: float | None
    duplicate: float | None

    @property
    def name(self) -> str:
        """As in the literature and in interventions: `1.3` is head 3 of layer 1."""
        return f"{self.layer}.{self.head}"

    def of(self, score: str) -> float | None:
        """The score named `score`, one of `SCORES`."""
        return {INDUCTION: self.induction, PREVIOUS: self.previous, DUPLICATE: self.duplicate}[score]


@dataclass(frozen=True, slots=True)
class PatternCounts:
    """How many tokens each score is a mean over; `tokens` is the number of all."""

    tokens: int
    induction: int
    previous: int
    duplicate: int

    def of(self, score: str) -> int:
        return {INDUCTION: self.induction, PREVIOUS: self.previous, DUPLICATE: self.duplicate}[score]


def best(heads: Iterable[HeadScore], score: str) -> HeadScore | None:
    """The head with the largest score, the first on a tie; None if no head has this score."""
    scored = [head for head in heads if head.of(score) is not None]
    return max(scored, key=lambda head: head.of(score) or 0.0, default=None)
