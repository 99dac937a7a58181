"""Reads a typed line of bets: words, each with its percent.

mat 50 floor 20     50 % on `·mat`, 20 % on `·floor`; a word gets the space in front that a new word has here
+ing 80             `ing`, joined to the text
, 40 . 30           punctuation is joined as it is
" mat" 50           in quotes: exactly this text (\\n and \\t too)
#3 50               the third of the choices
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tui_llm.common.errors import UserError

HOW = "such as: mat 50 floor 20"
_MOST_BETS = 20
_ITEMS = re.compile(r'"(?:[^"\\]|\\.)+"|\S+')
_ESCAPES = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\\\": "\\"}


class TypedBet(NamedTuple):
    """A word of the line. `join`: whether it is joined to the text as it is; `choice`: the number of a choice, from 1."""

    text: str
    percent: int
    join: bool = False
    choice: int | None = None


def parse(line: str, most: int) -> list[TypedBet]:
    """The bets of `line`, which may add up to at most `most` percent. Those without a percent share half of what the others
    leave of 100. Raises `UserError`."""
    found: list[TypedBet] = []
    for item in _ITEMS.findall(line):
        if re.fullmatch(r"\d+%?", item, re.ASCII):
            if not found or found[-1].percent >= 0:
                raise UserError(
                    f'{item[:20]} is a percent with no token before it; in quotes, "{item[:20]}", it is a token'
                )
            found[-1] = found[-1]._replace(percent=min(int(item.rstrip("%")[:9]), 1000))
        elif item != "%" or not found:
            found.append(_typed(item))
    if len(found) > _MOST_BETS:
        raise UserError(f"those are {len(found)} guesses; give at most {_MOST_BETS}, {HOW}")
    given = sum(bet.percent for bet in found if bet.percent >= 0)
    if given > most:
        raise UserError(f"the bets add up to {given} %; at most {most} % can be bet, {HOW}")
    if count := sum(bet.percent < 0 for bet in found):
        share = (100 - given) // 2 // count
        if not share:
            raise UserError(f"no percent is left for the guesses without one; give each a percent, {HOW}")
        found = [bet if bet.percent >= 0 else bet._replace(percent=share) for bet in found]
    return found


def _typed(item: str) -> TypedBet:
    if len(item) > 2 and item[0] == item[-1] == '"':
        inside = re.sub(r'\\[nt"\\]', lambda match: _ESCAPES[match[0]], item[1:-1])
        return TypedBet(inside, -1, join=True)
    if re.fullmatch(r"#\d{1,3}", item, re.ASCII):
        return TypedBet(item, -1, choice=int(item[1:]))
    if item.startswith("+") and len(item) > 1:
        return TypedBet(item[1:], -1, join=True)
    if item in _ESCAPES:
        return TypedBet(_ESCAPES[item], -1, join=True)
    return TypedBet(item.replace("·", " "), -1, join=not item[0].isalnum())


def needs_space(before: str) -> bool:
    """Whether a new word after the text `before` begins with a space: not at the start, after white space, or after an
    opening quote or bracket or a dash."""
    if not before or before[-1].isspace() or before[-1] in "([{-–—/“‘":
        return False
    if before[-1] == '"':
        return before.rpartition("\n")[2].count('"') % 2 == 0
    return before[-1] != "'" or (len(before) > 1 and not before[-2].isspace())
