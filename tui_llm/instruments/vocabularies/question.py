"""The same text in several vocabularies, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Tokenization


@dataclass(frozen=True, slots=True)
class VocabulariesQuestion(Question["Vocabularies"]):
    """The request's prompt and continuation in every vocabulary."""


@dataclass(frozen=True, slots=True)
class VocabularyTokens:
    """One vocabulary. `tokens` holds the first ones if there are very many. If there are none, `problem` is the
    reason."""

    name: str
    own: bool  # the open model's
    size: int | None  # number of tokens; None if unbounded
    count: int
    characters_per_token: float
    bytes_per_token: float
    tokens: Tokenization | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WordCoverage:
    """What a vocabulary of whole words could not represent: the text's words that do not occur in `source`, which has
    `size` distinct words.

    trained: the open model was trained on `source`.
    missing: the missing words in order of appearance, each once; missing_count: with repetitions, of `count` words.
    """

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
    sides: tuple[VocabularyTokens, ...]
    words: WordCoverage
