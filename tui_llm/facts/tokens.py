"""A text's tokens in one vocabulary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Token:
    """A token is its id and its bytes. `text` is the bytes as UTF-8, with `<0xE2>` for each byte that is no
    character here; it is raw text: it passes `display.visible` before any screen."""

    id: int
    bytes: bytes
    text: str
    special: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring tokens that make whole characters together: tokens[start:stop] (indices into
    `Tokenization.tokens`). Nearly always one token; several where a character is split over them."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Tokenization:
    """A text's tokens in one vocabulary. `tokens` holds the last ones only where there are very many:
    tokens[0] is token number `first` (from 0) of `count`. `problem` says why there are none, if so."""

    tokenizer: str
    vocabulary: int
    count: int
    first: int
    tokens: tuple[Token, ...]
    pieces: tuple[Piece, ...]
    continuation: int = 0  # how many of the last tokens were generated, not typed
    problem: str | None = None
