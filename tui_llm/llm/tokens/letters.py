"""Count a letter across the tokens of a text. Shows that a model sees token ids, not letters."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import regex

from tui_llm.common.errors import UserError

_CHARACTER = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class Count:
    """How often a letter occurs; upper and lower case count as one.

    total: occurrences in the text; inside: inside[i] of them begin in token i.
    split: how many of them have their bytes in more than one token.
    """

    letter: str
    total: int
    inside: tuple[int, ...]
    split: int


def one_letter(text: str) -> str:
    """Return the only grapheme cluster in `text`. Raises `UserError` if there are none or several."""
    found = _CHARACTER.findall(text)
    if len(found) != 1:
        raise UserError(f"one letter is needed, not {len(found)}; type one, such as r")
    return str(found[0])


def count(tokens: Sequence[bytes], letter: str) -> Count:
    """Count `letter` in the concatenation of `tokens`; bytes that are invalid UTF-8 never match."""
    text = b"".join(tokens).decode("utf-8", errors="surrogateescape")
    wanted = _same(letter)
    begins = [0, *accumulate(map(len, tokens))]
    inside, split, at = [0] * len(tokens), 0, 0
    for match in _CHARACTER.finditer(text):
        character = match[0]
        size = len(character.encode("utf-8", errors="surrogateescape"))
        if _same(character) == wanted:
            token = bisect_right(begins, at) - 1
            inside[token] += 1
            split += at + size > begins[token + 1]
        at += size
    return Count(letter, sum(inside), tuple(inside), split)


def _same(character: str) -> str:
    """A key that is equal for all spellings of a letter: Unicode normalization (é or e + ́ ) and case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", character).casefold())


def marked(text: str, letter: str) -> list[tuple[str, bool]]:
    """Split `text` into parts, each with whether it consists of the letter."""
    wanted = _same(letter)
    parts: list[tuple[str, bool]] = []
    for character in _CHARACTER.findall(text):
        is_it = _same(character) == wanted
        if parts and parts[-1][1] == is_it:
            parts[-1] = parts[-1][0] + character, is_it
        else:
            parts.append((character, is_it))
    return parts
