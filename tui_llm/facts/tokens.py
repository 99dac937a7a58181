"""A text's tokens in one vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

BYTES = "one for each byte"
BYTES_AND_END = "256 bytes + <|endoftext|>"


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its id and its bytes, which it adds to a text. `text` is the bytes decoded as UTF-8, with `<0xE2>` for
    each byte that does not decode. `piece`: as the vocabulary writes it (`##ing`), if `text` shows it differently. Both
    are raw text: pass them through `display.visible` before showing them."""

    id: int
    bytes: bytes
    text: str
    special: bool = False
    piece: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of consecutive tokens that together form whole characters: `Tokenization.tokens[start:stop]`. Usually one
    token; several if a character is split across tokens."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Tokenization:
    """A text's tokens in one vocabulary. If there are very many, `tokens` holds the last ones only: tokens[0] is token
    number `first` (from 0) of `count`. If there are none because of an error, `problem` is its message."""

    tokenizer: str
    vocabulary: int
    count: int
    first: int
    tokens: tuple[Token, ...]
    pieces: tuple[Piece, ...]
    continuation: int = 0  # number of tokens at the end that were generated
    problem: str | None = None
    contents: str = ""  # what `vocabulary` counts, where the number alone would puzzle: `BYTES`, `BYTES_AND_END`

    @property
    def size_note(self) -> str:
        """` (256 bytes + <|endoftext|>)`, or nothing: to follow the size."""
        return f" ({self.contents})" if self.contents else ""
