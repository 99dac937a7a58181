"""The same text in several vocabularies, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Tokenization


@dataclass(frozen=True, slots=True)
class VocabulariesQuestion(Question["Vocabularies"]):
    """The request's prompt and continuation in every vocabulary."""

    uses_parts: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class VocabularyTokens:
    """The text in one vocabulary. `tokens` has only the first ones of a long text; it is None if the vocabulary is not
    available, and `problem` is the reason."""

    name: str
    own: bool  # it is the open model's vocabulary
    size: int | None  # number of tokens in the vocabulary; None if unbounded
    count: int  # number of tokens in the text
    characters_per_token: float
    bytes_per_token: float
    tokens: Tokenization | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WordCoverage:
    """Which words of the text a word-level vocabulary would lack. Its words are those of the text `source`.

    trained: the open model was trained on `source`. size: number of distinct words in `source`.
    count: number of words in the text; missing_count: how many of them do not occur in `source`.
    missing: those words in order of appearance, without repetitions.
    problem: why `source` can't be read; empty if it can.
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
