"""The letter blind spot: a model sees ids, not the letters inside them. Counts a letter across the tokens that hide it."""

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
    """`total` is how often the letter is in the text; inside[i] how many of them begin in token i. `split` of them are cut:
    their bytes are in more than one token. Upper and lower case count as one letter."""

    letter: str
    total: int
    inside: tuple[int, ...]
    split: int


def one_letter(text: str) -> str:
    """The letter that was typed. Raises `UserError` where it is none, or several."""
    found = _CHARACTER.findall(text)
    if len(found) != 1:
        raise UserError(f"one letter is needed, not {len(found)}; type one, such as r")
    return str(found[0])


def count(tokens: Sequence[bytes], letter: str) -> Count:
    """Counts `letter` in the text that `tokens` make together; bytes that are no characters hold none."""
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
    """However it is written (é or e + ́ ), and in either case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", character).casefold())


def marked(text: str, letter: str) -> list[tuple[str, bool]]:
    """`text` in parts, each with whether it is the letter."""
    wanted = _same(letter)
    parts: list[tuple[str, bool]] = []
    for character in _CHARACTER.findall(text):
        is_it = _same(character) == wanted
        if parts and parts[-1][1] == is_it:
            parts[-1] = parts[-1][0] + character, is_it
        else:
            parts.append((character, is_it))
    return parts
