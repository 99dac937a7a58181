"""Token bytes → text, where one token needn't be whole characters.

A byte-level vocabulary cuts anywhere: 344 of GPT-2's tokens are not valid UTF-8 alone, and `€` may be two
tokens. A byte that is part of no character shows as `<0xE2>`; neighbours that complete a character are
joined. What comes out is raw text: it passes the gate (`tui_llm.common.display`) before any screen.
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


@lru_cache(maxsize=1 << 16)  # a table asks for two hundred at every key
def token_text(data: bytes) -> str:
    """`data` as UTF-8, with `<0xE2>` for each byte that is not part of a valid character."""
    return data.decode("utf-8", errors=_ERRORS)


def pieces(tokens: Sequence[bytes]) -> list[tuple[int, int, str]]:
    """The shortest runs of neighbouring tokens that split no character: (start, stop, text of
    tokens[start:stop]).

    Nearly always a token each. Tokens that hold a character between them are one piece; bytes that nothing
    completes stay in their own token's piece, as `<0xE2>`. The pieces cover all tokens, in order, without
    overlap.
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
    """Whether a valid character lies on both sides of position `at`. UTF-8 synchronises itself: the nearest
    byte before that is no continuation byte (10xxxxxx) is the only one that the character can start with."""
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
    """Text from bytes that arrive token by token: a character comes out when its last byte has come in."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors=_ERRORS)

    def feed(self, data: bytes) -> str:
        """The text that `data` completes: empty while a character is unfinished."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left unfinished, as `<0xE2>`; the stream can then be used again from the start."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
