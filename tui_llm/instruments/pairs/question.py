"""The training pairs of a text: each prefix, and the next token as its target."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import TokenScore
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class PairsQuestion(Question["Pairs"]):
    """Every training pair of the request's text, with the model's loss on it."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """n tokens make n − 1 pairs. Pair i is tokens[: i + 1] → tokens[i + 1].

    tokens: if there are very many, the last ones only; tokens[0] is token number `first` (from 0) of `count`.
    scores: scores[i] is the prediction of pair i's target (surprisal is the loss); None if the target is not among the
        last `fed` tokens, which were fed to the model, or is the first of them.
    mean: over the pairs that have a loss, in nats.
    """

    weights: Weights
    count: int
    first: int
    fed: int
    tokens: tuple[Token, ...]
    scores: tuple[TokenScore | None, ...]
    mean: float | None
