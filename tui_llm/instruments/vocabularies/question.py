"""The same text in several vocabularies, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Tokenization


@dataclass(frozen=True, slots=True)
class VocabulariesQuestion(Question):
    """The request's prompt and continuation in every vocabulary."""


@dataclass(frozen=True, slots=True)
class Side:
    """One vocabulary. `tokens` holds the first ones of very many. `problem` says why there are none."""

    name: str
    own: bool  # the open model's
    size: int | None  # tokens that it has; None where it is open-ended
    count: int
    characters_per_token: float
    bytes_per_token: float
    tokens: Tokenization | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WordCoverage:
    """What a vocabulary of whole words could not represent: those of the text's words that are not in `source`, which
    has `size` different words. `trained`: the open model learned from that very text. `missing` is in order of
    appearance, each once; `missing_count` counts each time, of `count` words."""

    source: str
    trained: bool
    size: int
    count: int
    missing_count: int
    missing: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Vocabularies:
    characters: int
    bytes: int
    sides: tuple[Side, ...]
    words: WordCoverage
