"""Added tokens: texts that are one token wherever they occur, found before the text is split into words.

The rules are those of the `tokenizers` library (src/tokenizer/added_vocabulary.rs): the leftmost, longest match wins;
tokens that match the raw text (`normalized` false) go first, the others search what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import regex

from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import whole_number
from tui_llm.llm.tokens.vocab_json import MOST_IDS

MOST_ADDED = 100_000  # of a folder: all are alternatives of one pattern, and compiling 300,000 takes half a minute
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A text that is one token.

    special: a control token: plain text where it is typed, unless special tokens are allowed.
    lstrip, rstrip: white space to its left or right belongs to it.
    single_word: it matches only where no word character is next to it.
    """

    text: str
    id: int
    special: bool = False
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False

    def entry(self) -> dict[str, Any]:
        """The token as `tokenizer.json` lists it."""
        return {"id": self.id, "content": self.text} | {flag: getattr(self, flag) for flag in _FLAGS}


def check_count(entries: Sized, where: object) -> None:
    """Raises `UserError` if a file lists more added tokens than are read."""
    if len(entries) > MOST_ADDED:
        raise UserError(f"{where} has {len(entries):,} added tokens; {MOST_ADDED:,} at most are read")


def read_added(entry: Any, id: Any, where: object, **defaults: bool) -> AddedToken:
    """An added token from a file: its text, or an object with `content` and flags. Raises `UserError` if it is
    neither."""
    found = {"content": entry} if isinstance(entry, str) else entry
    text = found.get("content") if isinstance(found, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{where}: the added token {str(entry)[:60]!r} has no text; get the file again")
    if (number := whole_number(id, 0, MOST_IDS - 1)) is None:
        raise UserError(
            f"{where}: the added token {text[:40]!r} has the id {str(id)[:40]}; ids go from 0 to {MOST_IDS - 1:,}"
        )
    flags: dict[str, Any] = {flag: found.get(flag, defaults.get(flag, False)) for flag in _FLAGS}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{where}: {flag} of the added token {text[:40]!r} is neither true nor false")
    return AddedToken(text, number, **flags)


class AddedTokens:
    """Finds added tokens in texts."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.tokens = tuple(token for token in tokens if token.text)
        self._passes = [
            _Pass(chosen)
            for normalized in (False, True)
            if (chosen := [token for token in self.tokens if token.normalized is normalized])
        ]

    def split(self, text: str, allow_special: bool) -> list[str | AddedToken]:
        """`text` as added tokens and the stretches between them. Special tokens are found if `allow_special`."""
        parts: list[str | AddedToken] = [text] if text else []
        for one in self._passes:
            if allow_special or not one.only_special:
                parts = [
                    piece
                    for part in parts
                    for piece in (one.split(part, allow_special) if isinstance(part, str) else (part,))
                ]
        return parts


class _Pass:
    """The tokens that are searched for together."""

    def __init__(self, tokens: list[AddedToken]) -> None:
        self._tokens = {token.text: token for token in tokens}
        self.only_special = all(token.special for token in tokens)
        # Alternatives are tried in order, so the longest comes first.
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._any = regex.compile("|".join(map(regex.escape, longest_first)))

    def split(self, text: str, allow_special: bool) -> Iterator[str | AddedToken]:
        done = 0
        for match in self._any.finditer(text):
            token, begin, end = self._tokens[match[0]], match.start(), match.end()
            if token.special and not allow_special:
                continue
            if token.single_word and (_WORD.match(text[end : end + 1]) or _WORD.match(text[max(0, begin - 1) : begin])):
                continue
            while token.lstrip and begin > done and text[begin - 1] in _SPACES:
                begin -= 1
            while token.rstrip and end < len(text) and text[end] in _SPACES:
                end += 1
            if done < begin:
                yield text[done:begin]
            yield token
            done = end
        if done < len(text):
            yield text[done:]


_WORD = regex.compile(r"\w")
_SPACES = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)
