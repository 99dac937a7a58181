"""Merges: how the words of a text become tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token
from tui_llm.llm.tokens.bpe import Replay


@dataclass(frozen=True, slots=True)
class MergesQuestion(Question):
    """The words of `text`, or of the request's text where that is None: `count` of them from word number `first` on. Where
    `first` is None they begin with the word that the request's position is in."""

    text: str | None = None
    first: int | None = None
    count: int = 1
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """One word as the vocabulary's pattern cuts it, number `number` of the text. `tokens` is what it is encoded as. `replay`
    is None where `problem` says why. Ranks are of merges: 0 is the first that was learned."""

    number: int
    text: str
    replay: Replay | None
    tokens: tuple[Token, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Merges:
    """`pattern` cuts the text into `count` words; `merges` is how many merges the vocabulary has."""

    tokenizer: str
    vocabulary: int
    merges: int
    pattern: str
    count: int
    words: tuple[Word, ...]
