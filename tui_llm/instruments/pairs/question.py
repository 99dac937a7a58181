"""The training pairs of a text: after each token, the one to predict."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import TokenScore
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class PairsQuestion(Question):
    """Every pair of the request's text, with the model's loss on it."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """n tokens make n − 1 pairs. tokens[0] is token number `first` (from 0) of `count`: only the last of very many are here.
    Pair i is tokens[: i + 1] → tokens[i + 1]; scores[i] is how the target was predicted, its surprisal the loss: None where
    the model was not fed that far back (`fed` tokens, the last ones). `mean` is of the pairs that have a loss, in nats."""

    weights: Weights
    count: int
    first: int
    fed: int
    tokens: tuple[Token, ...]
    scores: tuple[TokenScore | None, ...]
    mean: float | None
