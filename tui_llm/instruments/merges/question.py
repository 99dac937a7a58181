"""Merges: how BPE turns the words of a text into tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tui_llm.facts.request import Question
from tui_llm.facts.tokens import Token
from tui_llm.llm.tokens.bpe import Replay


@dataclass(frozen=True, slots=True)
class MergesQuestion(Question["Merges"]):
    """Words of `text`, or of the request's text if None: `count` words (None: all) from word number `first`. If `first`
    is None, start with the word at the request's position."""

    uses_parts: ClassVar[bool] = False
    text: str | None = None
    first: int | None = None
    count: int = 1
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """Word number `number` of the text, as the vocabulary's pattern splits it.

    replay: its merges, or None and the reason in `problem`. Ranks are merge indices: 0 was learned first.
    tokens: what the word is encoded as.
    """

    number: int
    text: str
    replay: Replay | None
    tokens: tuple[Token, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Merges:
    """`pattern` splits the text into `count` words; `merges` is the number of merges in the vocabulary."""

    tokenizer: str
    vocabulary: int
    merges: int
    pattern: str
    count: int
    words: tuple[Word, ...]
