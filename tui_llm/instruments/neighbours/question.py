"""Embedding neighbours: the tokens whose embeddings have the highest cosine similarity with one token's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token


@dataclass(frozen=True, slots=True)
class NeighboursQuestion(Question["Neighbours"]):
    """The `count` tokens nearest to token `id`, by the cosine similarity of their embeddings. `text`, if given,
    replaces `id`: the text of a single token, or `#464` for an id."""

    uses_parts: ClassVar[bool] = False
    id: int = 0
    count: int = 20
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    token: Token
    cosine: float  # −1…1


@dataclass(frozen=True, slots=True)
class Neighbours:
    """In descending order of cosine similarity, ties by lower id, the token itself excluded. `norm` is the L2 norm of
    the token's embedding, `width` its dimension."""

    weights: Weights
    token: Token
    width: int
    norm: float
    nearest: tuple[Neighbour, ...]
