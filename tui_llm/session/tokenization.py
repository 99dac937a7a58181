"""Tokenization as plain data: a vocabulary and ids in, facts about each token out. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from tui_llm.facts.tokens import Piece, Token, Tokenization
from tui_llm.llm.tokens.text import clean
from tui_llm.llm.tokens.token_bytes import pieces, token_text
from tui_llm.llm.tokens.tokenizer import Tokenizer


def tokenization(
    vocabulary: Tokenizer, ids: Sequence[int], window: int | None = None, continuation: int = 0
) -> Tokenization:
    """The tokens of `ids` as plain data; with `window`, only the last `window` of them."""
    shown = list(ids if window is None else ids[-window:])
    tokens = tuple(token_of(vocabulary, id) for id in shown)
    joined = tuple(
        Piece(start, stop, tokens[start].piece or text if stop == start + 1 else text)
        for start, stop, text in pieces([token.bytes for token in tokens])
    )
    return Tokenization(
        vocabulary.name,
        vocabulary.size,
        len(ids),
        len(ids) - len(shown),
        tokens,
        joined,
        min(continuation, len(shown)),
        contents=vocabulary.contents,
    )


def span(
    vocabulary: Tokenizer, ids: Sequence[int], index: int, front: int, continuation: int, prompt: str
) -> tuple[int, int] | None:
    """The characters (start, end) of `prompt` that token `index` of `ids` covers in whole or in part. None if the token
    is not part of the prompt: one of the `front` first, or of the `continuation` last; and if the tokens' text is not
    that of the prompt."""
    typed_end = len(ids) - continuation
    if not front <= index < typed_end:
        return None
    typed = [bytes_of(vocabulary, id) for id in ids[front:typed_end]]
    if b"".join(typed).removeprefix(b" ") != clean(prompt).encode().removeprefix(b" "):
        return None  # the vocabulary changes the text: its letters' case, its white space
    own = bytes_of(vocabulary, ids[index])
    # Count from the end of the prompt, as the cursor is usually near it.
    end = len(prompt) - sum(_characters(bytes_of(vocabulary, id)) for id in ids[index + 1 : typed_end])
    return max(0, end - _characters(own) - (own[:1] > b"\x7f" and own[0] & 0xC0 == 0x80)), end


def _characters(data: bytes) -> int:
    """The number of characters that begin in `data`: bytes of UTF-8 that are not continuation bytes."""
    return sum(byte & 0xC0 != 0x80 for byte in data)


def token_of(vocabulary: Tokenizer, id: int, previous: int | None = None) -> Token:
    """`previous`: the token before it, which its bytes may depend on."""
    data = bytes_of(vocabulary, id, previous)
    return Token(id, data, token_text(data), vocabulary.is_special(id), vocabulary.piece(id))


def bytes_of(vocabulary: Tokenizer, id: int, previous: int | None = None) -> bytes:
    """A token's bytes after the token `previous`; for an id that the vocabulary skips, a placeholder with its
    number."""
    try:
        return vocabulary.bytes_after(previous, id)
    except KeyError:
        return f"<unused {id}>".encode()
