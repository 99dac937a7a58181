"""Token bytes → text, for tokens that are not whole characters.

A byte-level vocabulary splits anywhere: 344 of GPT-2's tokens are not valid UTF-8 on their own, and `€` may be two
tokens. A byte that is part of no character is shown as `<0xE2>`; adjacent tokens that complete a character are joined.
The result is raw text: pass it through `tui_llm.common.display` before showing it.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

_ERRORS = "tui_llm.token_bytes"


def _as_hex(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"<0x{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _as_hex)


@lru_cache(maxsize=1 << 13)  # a table looks up 200 tokens per key press
def token_text(data: bytes) -> str:
    """`data` decoded as UTF-8, with `<0xE2>` for each byte that is not part of a valid character."""
    return data.decode("utf-8", errors=_ERRORS)


def pieces(tokens: Sequence[bytes]) -> list[tuple[int, int, str]]:
    """Group tokens into the shortest runs that split no character: (start, stop, text of tokens[start:stop]).

    Usually one token each. Tokens that share a character form one piece; invalid bytes stay in their own token's piece,
    as `<0xE2>`. The pieces cover all tokens, in order, without overlap.
    """
    data = b"".join(tokens)
    found: list[tuple[int, int, str]] = []
    first, begin = 0, 0
    for stop, end in enumerate(accumulate(map(len, tokens)), start=1):
        if not _splits_character(data, end):
            found.append((first, stop, token_text(data[begin:end])))
            first, begin = stop, end
    return found


def _splits_character(data: bytes, at: int) -> bool:
    """Whether a valid character extends across offset `at`. UTF-8 is self-synchronizing: the character can only start
    at the nearest preceding byte that is no continuation byte (10xxxxxx)."""
    if at >= len(data) or not _continues(data[at]):
        return False
    for start in range(at - 1, max(at - 4, -1), -1):
        if _continues(data[start]):
            continue
        lead = data[start]
        length = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
        try:
            data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            return False
        return start + length > at
    return False


def _continues(byte: int) -> bool:
    return byte & 0xC0 == 0x80


class TextStream:
    """Incremental decoder: text from bytes that arrive token by token. A character is emitted once its last byte has
    arrived."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors=_ERRORS)

    def feed(self, data: bytes) -> str:
        """The text that `data` completes; empty while a character is incomplete."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The incomplete rest, as `<0xE2>`; resets the decoder."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
