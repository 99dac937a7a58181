"""Embedding neighbours: the tokens whose vectors point the same way as one token's."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class NeighboursQuestion(Question):
    """The `count` tokens nearest to token `id`, by the cosine of the angle between their embeddings. `text`, where it is
    given, names the token instead: as the vocabulary encodes it, or `#464` for an id."""

    id: int = 0
    count: int = 20
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    token: Token
    cosine: float  # −1…1


@dataclass(frozen=True, slots=True)
class Neighbours:
    """`norm` is the length of the token's own vector, `width` how many numbers it has. Nearest first, ties by lower id;
    the token itself is not among them."""

    weights: Weights
    token: Token
    width: int
    norm: float
    nearest: tuple[Neighbour, ...]
