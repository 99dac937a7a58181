"""A vocabulary and ids in, the plain facts about each token out. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from tui_llm.llm.token_bytes import pieces, token_text
from tui_llm.llm.tokenizer import Tokenizer
from tui_llm.reading import Piece, Token, Tokenization


def tokenization(
    vocabulary: Tokenizer, ids: Sequence[int], window: int | None = None, continuation: int = 0
) -> Tokenization:
    """The tokens of `ids` as plain facts, only the last `window` of them where that is given."""
    shown = list(ids if window is None else ids[-window:])
    tokens = tuple(token_of(vocabulary, id) for id in shown)
    joined = tuple(Piece(start, stop, text) for start, stop, text in pieces([token.bytes for token in tokens]))
    return Tokenization(
        vocabulary.name,
        vocabulary.size,
        len(ids),
        len(ids) - len(shown),
        tokens,
        joined,
        min(continuation, len(shown)),
    )


def token_of(vocabulary: Tokenizer, id: int) -> Token:
    data = bytes_of(vocabulary, id)
    return Token(id, data, token_text(data), vocabulary.is_special(id))


def bytes_of(vocabulary: Tokenizer, id: int) -> bytes:
    """A token's bytes; an id that the vocabulary leaves out (a gap) shows as its number."""
    try:
        return vocabulary.token_bytes(id)
    except KeyError:
        return f"<unused {id}>".encode()
